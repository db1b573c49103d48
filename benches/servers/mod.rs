//! What the benches of the locks on servers share. Each bench has its server, its subjects and its
//! table of jobs.

pub(crate) mod jobs;
pub(crate) mod ours;
pub(crate) mod peer;
pub(crate) mod plan;
pub(crate) mod player;
pub(crate) mod process;
mod table;
