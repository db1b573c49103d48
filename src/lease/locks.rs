//! Macros that define the public types of a backend: a client, three locks, and their guards. The
//! documentation of their methods is here, and is the same for all servers.

/// Defines the client, the locks and the guards of a backend. `Config` must have a method
/// `full_name`, which returns the name of a lock in the store. The module, the place of the locks,
/// and the URL are for the documentation.
macro_rules! locks {
    (
        module $module:literal, place $place:literal, url $url:literal;
        $(#[$about_client:meta])* client $client:ident;
        lock $lock:ident, $guard:ident;
        rwlock $rwlock:ident, $read:ident, $write:ident;
        semaphore $semaphore:ident, $permit:ident;
    ) => {
        $(#[$about_client])*
        #[derive(Clone)]
        pub struct $client {
            core: std::sync::Arc<$crate::lease::Client>,
            config: std::sync::Arc<super::Config>,
        }

        impl $client {
            /// Starts the thread of the client, and connects.
            pub(super) async fn start(
                store: impl $crate::lease::Store,
                config: super::Config,
            ) -> $crate::error::Result<Self> {
                Ok(Self {
                    core: $crate::lease::Client::start(store, config.settings()).await?,
                    config: std::sync::Arc::new(config),
                })
            }

            /// Returns the lock with this name. Nothing is sent before the first acquire.
            pub fn lock(&self, name: impl AsRef<str>) -> $lock {
                let lock = self.core.lock(self.config.full_name(name.as_ref()));
                $lock { lock, config: self.config.clone() }
            }

            /// Returns the reader-writer lock with this name.
            pub fn rwlock(&self, name: impl AsRef<str>) -> $rwlock {
                let lock = self.core.rwlock(self.config.full_name(name.as_ref()));
                $rwlock { lock, config: self.config.clone() }
            }

            /// Returns the semaphore with this name and this many permits.
            ///
            /// # Errors
            ///
            /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for 0 permits, and for
            /// more than 999,999,999.
            pub fn semaphore(
                &self,
                name: impl AsRef<str>,
                permits: u32,
            ) -> $crate::error::Result<$semaphore> {
                let name = self.config.full_name(name.as_ref());
                let lock = self.core.semaphore(name, permits)?;
                Ok($semaphore { lock, config: self.config.clone() })
            }

            /// Returns the capabilities of the locks on this server.
            pub fn capabilities(&self) -> $crate::lock::Capabilities {
                self.core.capabilities()
            }

            /// Returns the options of this client.
            pub fn config(&self) -> &super::Config {
                &self.config
            }

            /// Returns the address of the server, without user and password.
            pub fn address(&self) -> &str {
                self.core.address()
            }

            /// Ends every wait through this client, its clones and its locks with
            /// [`ErrorKind::Closed`](crate::ErrorKind::Closed), and refuses new waits. Use it for a
            /// graceful shutdown. Guards stay valid.
            ///
            /// [`Locks::close`](crate::Locks::close) does the same if the client was turned into
            /// `Locks`.
            pub fn close(&self) {
                self.core.close();
            }
        }

        impl std::fmt::Debug for $client {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($client))
                    .field("address", &self.address())
                    .field("config", &self.config)
                    .finish()
            }
        }

        impl $crate::backend::Engine for $client {
            fn url(&self) -> String {
                self.address().to_owned()
            }

            fn capabilities(&self) -> $crate::lock::Capabilities {
                $client::capabilities(self)
            }

            fn lock(&self, name: &str) -> $crate::error::Result<$crate::any::AnyLock> {
                Ok($client::lock(self, name).into())
            }

            fn rwlock(&self, name: &str) -> $crate::error::Result<$crate::any::AnySharedLock> {
                Ok($client::rwlock(self, name).into())
            }

            fn semaphore(
                &self,
                name: &str,
                permits: u32,
            ) -> $crate::error::Result<$crate::any::AnySemaphore> {
                $client::semaphore(self, name, permits).map(Into::into)
            }

            /// Removes nothing: the server itself deletes the records of unused locks.
            fn sweep(
                &self,
                _: std::time::Duration,
            ) -> $crate::backend::BoxFuture<'_, $crate::error::Result<Vec<String>>> {
                Box::pin(async { Ok(Vec::new()) })
            }

            fn close(&self) {
                $client::close(self);
            }
        }

        $crate::lease::handle! {
            #[doc = concat!("A fair lock with a name ", $place, ": one holder at a time among")]
            /// all hosts that reach the server. Requests are served in the order in which they
            /// arrive there.
            ///
            #[doc = concat!("Created by [`", stringify!($client), "::lock`]. Cheap to clone.")]
            ///
            /// ```no_run
            /// # async fn example() -> stanchion::Result<()> {
            #[doc = concat!("use stanchion::", $module, "::", stringify!($client), ";")]
            ///
            #[doc = concat!("let options = ", stringify!($client), "::options().label(\"nightly backup\");")]
            #[doc = concat!("let client = options.connect(\"", $url, "\").await?;")]
            /// let lock = client.lock("backup");
            /// let guard = lock.acquire().on_wait(|line| eprintln!("{line}")).await?;
            /// tokio::select! {
            ///     () = back_up(guard.token()) => {}
            ///     loss = guard.lost() => eprintln!("stopped: {loss}"),
            /// }
            /// guard.release().await
            /// # }
            /// # async fn back_up(_: u64) {}
            /// ```
            $lock => AnyLock
        }
        $crate::lock::is_lock!($lock: Lock<$guard>, acquire, try_acquire, await);
        $crate::lease::guard! {
            /// Holds the lock as long as this value lives, or until the lock is [lost](Self::lost).
            $guard
        }

        impl $lock {
            /// Waits in the queue for the lock.
            ///
            /// # Cancel safety
            ///
            /// Dropping the future at any point leaves the queue, in the background. If the lock
            /// was granted meanwhile, it goes to the next waiter.
            ///
            /// # Fairness
            ///
            /// First come, first served, by arrival at the server. When its turn comes, a waiter
            /// that is not polled within the [claim window](super::Config::claim_window) is
            /// bypassed. It is first again when it is polled.
            ///
            /// # Errors
            ///
            /// Those of [waits](crate::lease#waits).
            pub fn acquire(&self) -> $crate::acquire::Acquire<$guard> {
                self.lock.acquire($crate::backend::Mode::Exclusive)
            }

            /// Acquires the lock if it is free and no waiter is queued. Otherwise returns `None`
            /// and changes nothing. Takes one round trip.
            ///
            /// # Cancel safety
            ///
            /// If the future is dropped, a lock that was granted meanwhile is released in the
            /// background.
            ///
            /// # Errors
            ///
            /// Those of [`acquire`](Self::acquire), except time limits.
            pub async fn try_acquire(&self) -> $crate::error::Result<Option<$guard>> {
                self.lock.try_acquire($crate::backend::Mode::Exclusive).await
            }
        }

        $crate::lease::handle! {
            #[doc = concat!("A fair reader-writer lock with a name ", $place, ": any number of")]
            /// readers, or one writer, among all hosts that reach the server.
            ///
            /// The order is strictly that of arrival. Consecutive readers acquire the lock
            /// together. A waiting writer holds back the readers that arrive after it.
            ///
            #[doc = concat!("Created by [`", stringify!($client), "::rwlock`]. Cheap to clone.")]
            ///
            /// ```no_run
            #[doc = concat!("# async fn example(client: stanchion::", $module, "::", stringify!($client), ") -> stanchion::Result<()> {")]
            /// let lock = client.rwlock("catalogue");
            /// let (one, two) = (lock.read().await?, lock.read().await?);
            /// assert!(lock.try_write().await?.is_none(), "readers hold it");
            /// # drop((one, two));
            /// # Ok(()) }
            /// ```
            $rwlock => AnySharedLock
        }
        $crate::lock::is_lock!($rwlock: Lock<$write>, write, try_write, await);
        $crate::lock::is_lock!($rwlock: SharedLock<$read>, read, try_read, await);
        $crate::lease::guard! {
            /// Holds the lock as a reader as long as this value lives, or until the lock is
            /// [lost](Self::lost).
            $read,
            token: "Returns the fencing token of the last writer before this reader. If there was no writer, returns a number greater than 0. Readers that hold the lock together have the same token."
        }
        $crate::lease::guard! {
            /// Holds the lock as the writer as long as this value lives, or until the lock is
            /// [lost](Self::lost).
            $write,
            reader: $read
        }

        impl $write {
            /// Turns the writer into a reader, in one round trip. Waiting readers behind it may
            /// acquire the lock at once. No writer acquires the lock in between. The lease is
            /// renewed.
            ///
            /// # Cancel safety
            ///
            /// If the future is dropped before it is ready, the lock is released, as when the guard
            /// is dropped.
            ///
            /// # Errors
            ///
            /// [`ErrorKind::Lost`](crate::ErrorKind::Lost) when the lock is lost, and when it was
            /// held for [`max_hold`](super::Config::max_hold). While the server does not answer,
            /// the call waits, at most until the lease is over.
            pub fn downgrade(self) -> $crate::guard::Downgrade<Self> {
                $crate::guard::WriteGuard::downgrade(self)
            }
        }

        impl $rwlock {
            /// Waits in the queue to read, together with any number of other readers. See
            /// [waits](crate::lease#waits).
            ///
            /// # Fairness
            ///
            /// Waits for every writer that arrived before it, whether it holds the lock or is
            /// queued, and for no other caller.
            ///
            /// # Errors
            ///
            /// Those of [waits](crate::lease#waits).
            pub fn read(&self) -> $crate::acquire::Acquire<$read> {
                self.lock.acquire($crate::backend::Mode::Shared)
            }

            /// Waits in the queue to write, alone. See [waits](crate::lease#waits).
            ///
            /// # Fairness
            ///
            /// Waits for every caller that arrived before it, and for no other caller.
            ///
            /// # Errors
            ///
            /// Those of [waits](crate::lease#waits).
            pub fn write(&self) -> $crate::acquire::Acquire<$write> {
                self.lock.acquire($crate::backend::Mode::Exclusive)
            }

            /// Acquires the lock to read if no writer holds it or is queued. Otherwise returns
            /// `None`.
            ///
            /// # Cancel safety
            ///
            /// If the future is dropped, a grant that has arrived meanwhile is released in the
            /// background.
            ///
            /// # Errors
            ///
            /// Those of [`read`](Self::read), except time limits.
            pub async fn try_read(&self) -> $crate::error::Result<Option<$read>> {
                self.lock.try_acquire($crate::backend::Mode::Shared).await
            }

            /// Acquires the lock to write if no caller holds it or is queued. Otherwise returns
            /// `None`.
            ///
            /// # Cancel safety
            ///
            /// If the future is dropped, a grant that has arrived meanwhile is released in the
            /// background.
            ///
            /// # Errors
            ///
            /// Those of [`write`](Self::write), except time limits.
            pub async fn try_write(&self) -> $crate::error::Result<Option<$write>> {
                self.lock.try_acquire($crate::backend::Mode::Exclusive).await
            }
        }

        $crate::lease::handle! {
            #[doc = concat!("A fair semaphore with a name ", $place, ": at most n permits are held at")]
            /// a time, among all hosts that reach the server.
            ///
            /// The order is strictly that of arrival: small requests do not overtake a request for
            /// many permits at the head of the queue.
            ///
            /// The number of permits is recorded. A handle with another number is refused until
            /// [`remove`](Self::remove), or a day without use, has cleared the record.
            ///
            #[doc = concat!("Created by [`", stringify!($client), "::semaphore`]. Cheap to clone.")]
            ///
            /// ```no_run
            #[doc = concat!("# async fn example(client: stanchion::", $module, "::", stringify!($client), ") -> stanchion::Result<()> {")]
            /// let workers = client.semaphore("workers", 4)?;
            /// let one = workers.acquire().await?;
            /// let three = workers.acquire_many(3).await?;
            /// assert!(workers.try_acquire().await?.is_none());
            /// # drop((one, three));
            /// # Ok(()) }
            /// ```
            $semaphore => AnySemaphore
        }
        $crate::lock::is_lock!($semaphore: Semaphore<$permit>, await);
        $crate::lease::guard! {
            /// Holds one or more permits as long as this value lives, or until they are
            /// [lost](Self::lost).
            $permit
        }
        $crate::guard::is_permit!($permit);

        impl $semaphore {
            /// Waits in the queue for one permit. See [waits](crate::lease#waits).
            ///
            /// # Errors
            ///
            /// Those of [waits](crate::lease#waits).
            pub fn acquire(&self) -> $crate::acquire::Acquire<$permit> {
                self.acquire_many(1)
            }

            /// Waits in the queue for this many permits at once.
            ///
            /// # Errors
            ///
            /// Those of [`acquire`](Self::acquire). Also
            /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for 0 permits, and for
            /// more than there are.
            pub fn acquire_many(&self, permits: u32) -> $crate::acquire::Acquire<$permit> {
                self.lock.acquire($crate::backend::Mode::Permits(permits))
            }

            /// Acquires a permit if one is free and no waiter is queued. Otherwise returns `None`.
            ///
            /// # Cancel safety
            ///
            /// If the future is dropped, a grant that has arrived meanwhile is released in the
            /// background.
            ///
            /// # Errors
            ///
            /// Those of [`acquire`](Self::acquire), except time limits.
            pub async fn try_acquire(&self) -> $crate::error::Result<Option<$permit>> {
                self.try_acquire_many(1).await
            }

            /// Acquires this many permits if they are free and no waiter is queued. Otherwise
            /// returns `None`.
            ///
            /// # Cancel safety
            ///
            /// If the future is dropped, a grant that has arrived meanwhile is released in the
            /// background.
            ///
            /// # Errors
            ///
            /// Those of [`acquire_many`](Self::acquire_many), except time limits.
            pub async fn try_acquire_many(
                &self,
                permits: u32,
            ) -> $crate::error::Result<Option<$permit>> {
                self.lock.try_acquire($crate::backend::Mode::Permits(permits)).await
            }

            /// Returns the number of permits.
            pub fn limit(&self) -> u32 {
                self.lock.limit()
            }

            /// Returns how many permits are free at this moment; see
            /// [`Semaphore::available`](crate::Semaphore::available). Takes one round trip.
            ///
            /// # Cancel safety
            ///
            /// Dropping the future changes nothing.
            ///
            /// # Errors
            ///
            /// - [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) when the server does not
            ///   answer, and while it [may have forgotten holders](crate::lease).
            /// - [`ErrorKind::Incompatible`](crate::ErrorKind::Incompatible) when another limit is
            ///   recorded.
            pub async fn available(&self) -> $crate::error::Result<u32> {
                self.lock.available().await
            }

            /// Always fails. For another number of permits, release all of them, call
            /// [`remove`](Self::remove), and open the semaphore with the new number.
            ///
            /// # Cancel safety
            ///
            /// The future is ready at its first poll.
            ///
            /// # Errors
            ///
            /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported).
            pub async fn resize(&self, _: u32) -> $crate::error::Result<()> {
                let text = "the number of permits on a server cannot be changed; release them all, \
                            remove the semaphore, and open it with the new number";
                let kind = $crate::error::ErrorKind::Unsupported;
                Err($crate::error::Error::at(kind, text, self.address()))
            }
        }
    };
}
pub(crate) use locks;

/// Defines a lock, with the methods that all kinds have.
macro_rules! handle {
    ($(#[$about:meta])* $lock:ident => $any:ident) => {
        $(#[$about])*
        #[derive(Clone)]
        pub struct $lock {
            lock: $crate::lease::LeaseLock,
            config: std::sync::Arc<super::Config>,
        }

        impl $lock {
            /// Returns the holders, and the waiters in order, at one instant. Changes nothing. The
            /// status contains up to 10,000 waiters.
            ///
            /// # Cancel safety
            ///
            /// Dropping the future changes nothing.
            ///
            /// # Errors
            ///
            /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if the server does not
            /// answer or is a replica. `docs/protocol.md` lists the kinds for other errors of the
            /// server.
            pub async fn status(&self) -> $crate::error::Result<$crate::status::Status> {
                self.lock.status().await
            }

            /// Deletes the record of the lock on the server if the lock has no holder and no
            /// waiter. The lock stays usable. A lock that grants nothing now, because of a quarantine
            /// or a lock delay, counts as in use.
            ///
            /// The last token is deleted with the record. The next token is still greater, unless
            /// the server's clock was set back.
            ///
            /// # Cancel safety
            ///
            /// If the future is dropped after its first poll, the lock may have been removed.
            ///
            /// # Errors
            ///
            /// Those of [`status`](Self::status).
            pub async fn remove(&self) -> $crate::error::Result<$crate::status::Removal> {
                self.lock.remove().await
            }

            /// Returns the status as it changes. As long as it is polled, the stream asks the
            /// server four times a second. So one item may cover several changes.
            ///
            /// # Errors
            ///
            /// The items have those of [`status`](Self::status).
            pub fn changes(&self) -> $crate::status::Changes {
                self.lock.changes()
            }

            /// Returns the statistics of all handles of this process on this lock.
            pub fn stats(&self) -> $crate::stats::Stats {
                self.lock.stats()
            }

            /// Ends every wait through this handle and its clones with
            /// [`ErrorKind::Closed`](crate::ErrorKind::Closed), and refuses new waits. Guards stay
            /// valid.
            pub fn close(&self) {
                self.lock.close();
            }

            /// Returns the capabilities of this lock.
            pub fn capabilities(&self) -> $crate::lock::Capabilities {
                self.lock.capabilities()
            }

            /// Ends the hold with this token, or every hold with `None`, without asking the holder.
            /// Returns how many holds were ended.
            ///
            /// The holder [learns of the loss](crate::Loss::Revoked) when the message reaches it.
            /// Until then there may be two holders, so let the resource check
            /// [tokens](crate::TokenGate).
            ///
            /// # Cancel safety
            ///
            /// If the future is dropped after its first poll, the holds may have been ended.
            ///
            /// # Errors
            ///
            /// Those of [`status`](Self::status).
            pub async fn force_release(
                &self,
                token: impl Into<Option<u64>>,
            ) -> $crate::error::Result<u64> {
                self.lock.force_release(token.into()).await
            }

            /// Returns the server's address and the full name of the lock, as errors show them.
            pub fn address(&self) -> &str {
                self.lock.address()
            }

            /// Returns the options of the client.
            pub fn config(&self) -> &super::Config {
                &self.config
            }
        }

        $crate::lock::is_handle! { $lock, await; }

        impl std::fmt::Debug for $lock {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_tuple(stringify!($lock))
                    .field(&self.address())
                    .finish()
            }
        }

        $crate::any::becomes_any!($lock => $crate::any::$any);
    };
}
pub(crate) use handle;

/// Defines the guard of a lock on a server; see [`guard!`](crate::guard::guard).
macro_rules! guard {
    ($(#[$about:meta])* $name:ident $(, reader: $reader:ident)?) => {
        $crate::lease::guard! {
            $(#[$about])*
            $name,
            token: "Returns the fencing token. It is greater than the token of every earlier grant. `Capabilities::tokens` says whether this also holds after the server has lost data. Pass it to the resource, and let the resource refuse smaller tokens; see [`TokenGate`](crate::token::TokenGate)."
            $(, reader: $reader)?
        }
    };
    ($(#[$about:meta])* $name:ident, token: $token:literal $(, reader: $reader:ident)?) => {
        $crate::guard::guard! {
            $(#[$about])*
            ///
            /// Dropping it releases in the background, also outside a runtime and while unwinding.
            /// The result is not reported. If the server cannot be reached, the lease ends the
            /// hold. In a forked child, dropping it does nothing.
            ///
            /// The lock is lost three quarters of a lease after the last renewal that the server
            /// confirmed. This is before the server may grant the lock to another caller. A loss
            /// that is known earlier counts at once.
            ///
            /// `is_held` uses the clock of this host and sends no request. That clock counts the
            /// time for which the machine was suspended, so a lease that ended meanwhile is noticed
            /// at once. `release` takes one round trip. A request without an answer is repeated
            /// until the lease is over.
            $name holds $crate::lease::LeaseHold,
            by $crate::lease::LeasePending,
            token: $token $(, reader: $reader)?
        }

        impl $name {
            /// Returns the time at which the hold ends if it is not renewed. Each renewal moves
            /// this time. Returns `None` if the lock is lost.
            pub fn held_until(&self) -> Option<std::time::Instant> {
                self.held.hold.held_until()
            }

            /// Asks the server whether the lock is still held, and renews it. Use it as a last
            /// check before a step that cannot be undone.
            ///
            /// # Cancel safety
            ///
            /// Dropping the future changes nothing. The server may still receive the request.
            ///
            /// # Errors
            ///
            /// [`ErrorKind::Lost`](crate::ErrorKind::Lost) when the lock is lost, and when it was
            /// held for [`max_hold`](super::Config::max_hold): then it is lost from now on. While
            /// the server does not answer, the call waits, at most until the lease is over.
            pub async fn ensure_held(&self) -> crate::error::Result<()> {
                self.held.hold.ensure().await
            }
        }
    };
}
pub(crate) use guard;
