//! One suite for every lock: what each must guarantee within one process.
//!
//! A lock joins with a [`Subject`](subject::Subject) and one line at the end of this file. Every
//! lock is tested for every property. The list below is the only one: a property that is written
//! but not listed does not compile.

#![allow(clippy::disallowed_methods)] // Tests may do what the crate must not do.
#![deny(dead_code)]

#[path = "../crew/skip.rs"]
#[macro_use]
mod skip;

mod any;
mod cancellation;
mod claim;
mod counting;
#[cfg(all(any(target_os = "linux", target_os = "android"), stanchion_test))]
#[path = "../crew/mod.rs"]
mod crew;
#[cfg(all(any(target_os = "linux", target_os = "android"), stanchion_test))]
mod events;
mod exclusion;
mod fifo;
mod file;
mod memory;
mod named;
mod one_permit;
mod order;
mod ownership;
mod pid;
#[cfg(all(unix, feature = "postgres"))]
mod postgres;
#[cfg(all(unix, feature = "postgres"))]
#[path = "../postgres/server.rs"]
mod postgres_server;
#[cfg(feature = "redis")]
mod redis;
mod reentrant;
mod semaphore;
#[cfg(feature = "redis")]
#[path = "../redis/server.rs"]
mod server;
mod sharing;
mod subject;
mod support;
mod waiting;
mod way;

/// Makes one test of each property for one lock: all properties that need no queue, and for a lock
/// with a queue also those of the queue.
macro_rules! conforms {
    ($name:ident, $subject:ty) => {
        mod $name {
            conforms! { @tests $subject:
                exclusion::p01_no_update_is_lost,
                exclusion::p01_no_update_is_lost_among_threads_that_block,
                exclusion::p02_two_handles_exclude_each_other,
                exclusion::p02_tasks_threads_and_runtimes_exclude_each_other,
                exclusion::p07_different_locks_never_contend,
                exclusion::p07_all_spellings_of_a_name_are_one_lock,
                exclusion::p40_no_guard_without_the_lock,
                waiting::p12_a_failed_try_changes_nothing,
                waiting::p16_zero_is_one_attempt,
                waiting::p17_a_limit_is_kept,
                waiting::p18_extreme_limits_are_honoured,
                waiting::p20_a_free_lock_is_entered_at_once,
                waiting::p21_no_wake_up_is_lost_without_polling,
                waiting::a_limit_of_waiters_is_kept_or_refused_at_once,
                cancellation::p23_dropping_at_every_stage_frees_the_place,
                cancellation::p24_a_cancelled_acquire_never_releases_a_later_claim,
                cancellation::p25_a_cancelled_release_completes,
                cancellation::p25_an_aborted_holder_releases,
                cancellation::p62_a_future_of_a_loss_that_is_dropped_keeps_no_waker,
                cancellation::p62_a_storm_leaves_nothing,
                ownership::p39_acquiring_what_is_held_waits,
                ownership::p39_a_panic_poisons_nothing,
                ownership::p41_guards_go_anywhere,
                ownership::the_capabilities_are_told,
                ownership::the_status_agrees_with_a_try,
            }
        }
    };
    ($name:ident, $subject:ty, with a line in $line:ident) => {
        conforms!($name, $subject);

        mod $line {
            conforms! { @tests $subject:
                order::p09_waiters_are_served_in_order,
                order::p09_handles_and_threads_share_one_line,
                order::p10_a_newcomer_never_passes_a_waiter,
                order::p10_a_newcomer_never_overtakes_an_offer,
                order::p11_leaving_changes_no_order,
                order::p11_timing_out_changes_no_order,
                waiting::p21_a_release_wakes_the_next_one_only,
                ownership::p49_tokens_increase,
                ownership::the_status_tells_who_holds_and_who_waits,
            }
        }
    };
    ($name:ident, readers share $subject:ty) => {
        mod $name {
            conforms! { @tests $subject:
                sharing::a_downgrade_grants_the_readers_at_the_head,
                sharing::no_writer_enters_during_a_downgrade,
                sharing::a_downgrade_that_is_dropped_releases,
                sharing::a_reader_cannot_be_downgraded,
            }
        }
    };
    (@tests $subject:ty: $($group:ident::$property:ident,)*) => {
        $(
            #[test]
            fn $property() {
                if <$subject as crate::subject::Subject>::is_possible() {
                    crate::$group::$property::<$subject>();
                }
            }
        )*
    };
}

use crate::fifo::Fifo;
use crate::file::Plain;
use crate::way::{Blocked, Polled, Watched};

conforms!(fifo_lock, crate::Fifo<crate::Watched>, with a line in fifo_line);
conforms!(fifo_lock_poll, crate::Fifo<crate::Polled>, with a line in fifo_line_poll);
conforms!(fifo_lock_blocking, crate::Fifo<crate::Blocked>, with a line in fifo_line_blocking);
conforms!(rwlock, crate::Fifo<crate::Watched, stanchion::FifoRwLock>, with a line in rwlock_line);
conforms!(rwlock_poll, crate::Fifo<crate::Polled, stanchion::FifoRwLock>, with a line in rwlock_line_poll);
conforms!(rwlock_blocking, crate::Fifo<crate::Blocked, stanchion::FifoRwLock>, with a line in rwlock_line_blocking);
conforms!(file_lock, crate::Plain<crate::Watched>);
conforms!(file_lock_poll, crate::Plain<crate::Polled>);
conforms!(file_lock_blocking, crate::Plain<crate::Blocked>);
conforms!(
    claim_by_directory,
    crate::claim::Claim<crate::claim::Directory>
);
conforms!(claim_by_file, crate::claim::Claim<crate::claim::File>);
mod claim_tokens {
    conforms! { @tests crate::claim::Claim<crate::claim::File>:
        ownership::p49_tokens_increase,
    }
}
conforms!(pid_lock, crate::pid::Pid<crate::Watched>);
conforms!(pid_lock_poll, crate::pid::Pid<crate::Polled>);
conforms!(
    reentrant_file_lock,
    crate::reentrant::Reentered<crate::Plain<crate::Watched>>
);
conforms!(
    any_file_lock,
    crate::any::Forgotten<crate::Plain<crate::Watched>>
);
conforms!(reentrant_fifo_lock, crate::reentrant::Reentered<crate::Fifo<crate::Watched>>, with a line in reentrant_line);
conforms!(semaphore_of_one, crate::semaphore::OfOne, with a line in semaphore_line);
conforms!(any_fifo_lock, crate::any::Forgotten<crate::Fifo<crate::Watched>>, with a line in any_fifo_line);
conforms!(mem_lock, crate::memory::InMemory<stanchion::MemLock>, with a line in mem_line);
conforms!(mem_rwlock, crate::memory::InMemory<stanchion::MemRwLock>, with a line in mem_rwlock_line);
conforms!(mem_semaphore_of_one, crate::memory::InMemory<crate::one_permit::OnePermit<stanchion::MemSemaphore>>, with a line in mem_semaphore_line);
conforms!(named_fifo_lock, crate::named::Named<crate::named::ByFifo>, with a line in named_fifo_line);
conforms!(named_os_lock, crate::named::Named<crate::named::ByOs>);
conforms!(rwlock_shared, readers share crate::Fifo<crate::Watched, stanchion::FifoRwLock>);
conforms!(rwlock_shared_poll, readers share crate::Fifo<crate::Polled, stanchion::FifoRwLock>);
conforms!(rwlock_shared_blocking, readers share crate::Fifo<crate::Blocked, stanchion::FifoRwLock>);
conforms!(file_lock_shared, readers share crate::Plain<crate::Watched>);
conforms!(file_lock_shared_poll, readers share crate::Plain<crate::Polled>);
conforms!(file_lock_shared_blocking, readers share crate::Plain<crate::Blocked>);
conforms!(mem_rwlock_shared, readers share crate::memory::InMemory<stanchion::MemRwLock>);
conforms!(any_rwlock_shared, readers share crate::any::Forgotten<crate::Fifo<crate::Watched, stanchion::FifoRwLock>, stanchion::AnySharedLock>);
conforms!(any_mem_rwlock_shared, readers share crate::any::Forgotten<crate::memory::InMemory<stanchion::MemRwLock>, stanchion::AnySharedLock>);
conforms!(url_mem_lock, crate::named::Behind, with a line in url_mem_line);

#[cfg(feature = "redis")]
mod on_a_server {
    use crate::redis::OnServer;
    use stanchion::redis::{RedisLock, RedisRwLock, RedisSemaphore};

    use crate::one_permit::OnePermit;

    conforms!(redis_lock, super::OnServer<super::RedisLock>, with a line in redis_line);
    conforms!(redis_rwlock, super::OnServer<super::RedisRwLock>, with a line in redis_rwlock_line);
    conforms!(redis_rwlock_shared, readers share super::OnServer<super::RedisRwLock>);
    conforms!(any_redis_rwlock_shared, readers share crate::any::Forgotten<super::OnServer<super::RedisRwLock>, stanchion::AnySharedLock>);
    conforms!(redis_semaphore, super::OnServer<super::OnePermit<super::RedisSemaphore>>, with a line in redis_semaphore_line);
}

#[cfg(all(unix, feature = "postgres"))]
mod in_a_database {
    use crate::postgres::InDatabase;
    use stanchion::postgres::{PgLock, PgRwLock, PgSemaphore};

    use crate::one_permit::OnePermit;

    conforms!(postgres_lock, super::InDatabase<super::PgLock>, with a line in postgres_line);
    conforms!(postgres_rwlock, super::InDatabase<super::PgRwLock>, with a line in postgres_rwlock_line);
    conforms!(postgres_rwlock_shared, readers share super::InDatabase<super::PgRwLock>);
    conforms!(postgres_semaphore, super::InDatabase<super::OnePermit<super::PgSemaphore>>, with a line in postgres_semaphore_line);
}

#[cfg(all(any(target_os = "linux", target_os = "android"), stanchion_test))]
#[test]
#[ignore = "a child program"]
fn child() {
    crew::child::run(events::CASES);
}
