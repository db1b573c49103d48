//! The plain file lock with its three ways to wait, beside the same peers: the fair lock without
//! its queue.

use super::{handover, uncontended};
use crate::plan::{Job, Metric, Pick, Target, Unit};
use crate::subject::Kind;

pub(crate) const UNCONTENDED: Job = Job {
    name: "plain-uncontended",
    subjects: &Kind::PLAIN,
    rounds: [3, 9],
    metrics: &[Metric {
        name: "acquire + release",
        unit: Unit::Nanoseconds,
        pick: Pick::Median,
        peer: Some(Kind::AsyncFdLock),
        target: Target::AtMost(2_000.0),
    }],
    round: uncontended::round,
};

pub(crate) const HANDOVER: Job = Job {
    name: "plain-handover",
    subjects: &Kind::PLAIN,
    rounds: [3, 7],
    metrics: handover::JOB.metrics,
    round: handover::round,
};
