//! A backend outside the crate, with the public traits only: locks in a table of this process. It
//! has the scheme `table:`, and passes the suite for backends.
#![allow(clippy::disallowed_methods)]

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use stanchion::backend::{Address, BoxPending, Engine, Hold, Line, Mode, Pending, Request};
use stanchion::{
    AnyLock, Capabilities, Error, ErrorKind, Locks, Lost, Reach, Result, Tokens, conformance,
};

/// The place of the locks: a row for each name.
#[derive(Default)]
struct Table(Mutex<HashMap<String, Arc<Row>>>);

/// One lock.
struct Row {
    name: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    last: u64,
    /// The holder, or the caller that may claim the lock at its next poll.
    first: Option<u64>,
    waiters: BTreeMap<u64, Waker>,
}

impl Engine for Table {
    fn url(&self) -> String {
        "table:".to_owned()
    }

    fn capabilities(&self) -> Capabilities {
        let mut can = Capabilities::minimal(Reach::Process);
        (can.fair, can.push, can.detects_loss) = (true, true, true);
        can.tokens = Tokens::Strict;
        can
    }

    fn lock(&self, name: &str) -> Result<AnyLock> {
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (name, state) = (name.to_owned(), Mutex::default());
        let row = rows.entry(name.clone());
        let row = row.or_insert_with(|| Arc::new(Row { name, state })).clone();
        Ok(AnyLock::of_line(Handle(row, self.capabilities())))
    }
}

struct Handle(Arc<Row>, Capabilities);

impl Line for Handle {
    fn address(&self) -> Address {
        Address::new("table", "", &self.0.name)
    }

    fn capabilities(&self) -> Capabilities {
        self.1
    }

    fn enqueue(&self, _: Mode) -> BoxPending {
        let (row, number) = (self.0.clone(), None);
        Box::new(Caller { row, number })
    }
}

impl Row {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A caller that waits, and later holds the lock. Its number grows with arrival, and is also its
/// token.
struct Caller {
    row: Arc<Row>,
    number: Option<u64>,
}

impl Pending for Caller {
    type Grant = Box<dyn Hold>;

    fn poll(&mut self, asks: &Request, cx: &mut Context<'_>) -> Poll<Result<Option<Self::Grant>>> {
        let mut guard = self.row.state();
        let state = &mut *guard;
        let number = self.number.unwrap_or(state.last + 1);
        let (is_free, waiting) = (state.first.is_none(), state.waiters.len());
        if self.number.is_none() && !is_free && asks.try_only {
            return Poll::Ready(Ok(None));
        }
        if self.number.is_none() && !is_free && asks.max_waiting.is_some_and(|it| it <= waiting) {
            let text = format!("{waiting} already wait");
            return Poll::Ready(Err(Error::at(ErrorKind::Busy, text, &self.row.name)));
        }
        state.last = state.last.max(number);
        if *state.first.get_or_insert(number) == number {
            let (row, number) = (self.row.clone(), Some(number));
            self.number = None;
            return Poll::Ready(Ok(Some(Box::new(Caller { row, number }))));
        }
        self.number = Some(number);
        let waker = state.waiters.insert(number, cx.waker().clone());
        drop((guard, waker)); // in this order: a waker is foreign code
        Poll::Pending
    }

    /// Ends the hold or the wait of the caller. The next caller in the queue is first then.
    fn leave(&mut self) {
        let Some(number) = self.number.take() else {
            return;
        };
        let mut state = self.row.state();
        let mut waker = state.waiters.remove(&number);
        if state.first == Some(number) {
            let next = state.waiters.pop_first();
            (state.first, waker) = next.map_or((None, None), |(it, waker)| (Some(it), Some(waker)));
        }
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Hold for Caller {
    fn token(&self) -> Option<u64> {
        self.number
    }

    fn is_held(&self) -> bool {
        self.number.is_some()
    }

    fn lost(&self) -> Lost {
        Lost::never()
    }

    fn poll_release(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        self.leave();
        Poll::Ready(Ok(()))
    }

    fn place(&self) -> &Path {
        Path::new(&self.row.name)
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    Locks::register("table", |_, _| {
        Ok(Box::pin(async {
            Ok(Box::new(Table::default()) as Box<dyn Engine>)
        }))
    })?;
    let locks = Locks::connect("table:").await?;
    let guard = locks.lock("deploy")?.acquire().await?;
    println!("acquired, with token {:?}", guard.token());
    guard.release().await?;

    let report = conformance::run(&locks).await;
    print!("{report}");
    assert!(report.is_ok());
    Ok(())
}
