//! The jobs, one per module. Each has the parent's part, `round`, and the part of its processes,
//! `child`.

use crate::plan::Job;

pub(crate) mod cost;
pub(crate) mod crash;
pub(crate) mod crowd;
pub(crate) mod dropping;
pub(crate) mod handover;
pub(crate) mod idle;
pub(crate) mod onlooker;
pub(crate) mod overtakes;
pub(crate) mod plain;
pub(crate) mod processes;
pub(crate) mod sharing;
pub(crate) mod tasks;
pub(crate) mod throughput;
pub(crate) mod uncontended;

/// All jobs, in the order of the table.
pub(crate) const ALL: [&Job; 18] = [
    &uncontended::JOB,
    &handover::JOB,
    &handover::FLOOR,
    &cost::JOB,
    &tasks::JOB,
    &throughput::JOB,
    &processes::JOB,
    &onlooker::JOB,
    &overtakes::JOB,
    &crash::JOB,
    &idle::JOB,
    &crowd::JOB,
    &dropping::JOB,
    &sharing::RWLOCK,
    &sharing::SEMAPHORE,
    &sharing::READERS,
    &plain::UNCONTENDED,
    &plain::HANDOVER,
];
