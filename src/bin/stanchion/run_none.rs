//! `stanchion run` where there are no signals to pass on.

use super::exit::{Answer, Failure};

pub(crate) fn die_of(_: i32) {}
use super::options::Run;

pub(crate) async fn run(_: Run) -> Answer {
    Err(Failure::own(
        "`run` needs a Unix system; `status` and `remove` work here",
    ))
}
