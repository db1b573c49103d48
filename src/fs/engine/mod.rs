//! The parts of the locks on files: the queue of this process, the queue on disk, the door, and the
//! events that wake waiters.

pub(crate) mod blocking;
pub(crate) mod claim;
pub(crate) mod disk;
pub(crate) mod door;
pub(crate) mod file_wait;
pub(crate) mod line;
pub(crate) mod loss_watcher;
pub(crate) mod os_lock;
pub(crate) mod owner;
pub(crate) mod path;
pub(crate) mod pidfile;
pub(crate) mod slots;
pub(crate) mod state;
pub(crate) mod step;
pub(crate) mod ticket;
pub(crate) mod wait;
pub(crate) mod watch;
