//! `stanchion run` where there are no signals to pass on.

use super::exit::{Answer, Failure};
use super::options::Run;

pub(crate) fn die_of(_: i32) {}

pub(crate) async fn run(_: Run) -> Answer {
    Err(Failure::own(
        "`run` needs a Unix system; `status` and `remove` work here",
    ))
}
