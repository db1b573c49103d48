//! How a holder learns that its lock file was deleted, renamed or replaced under it.
//!
//! The inode of the door is watched for changes of its name while somebody asks, and compared with the path on every
//! event, on every call of `is_held`, and once a second. A loss is latched: it stays true for this grant. Nobody
//! enters meanwhile, because the lock on `state` refuses a second holder, so the loss says that newcomers fail, not that they
//! are inside.

use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use super::super::door::Door;
use super::super::watch::{Seen, watch};
use super::core::Core;
use crate::guard::Loss;

impl Core {
    /// Whether the guard with this token still has the lock.
    pub(crate) fn is_held(&mut self, token: u64) -> bool {
        self.look_for_loss(false);
        self.possession
            .as_ref()
            .is_some_and(|it| it.token == token && it.loss.is_none())
    }

    /// Asks to hear of a loss; `door` is the guard's, for the watch.
    pub(crate) fn watch_for_loss(&mut self, door: &Door) {
        self.look_for_loss(false);
        if let Some(possession) = &mut self.possession
            && possession.loss.is_none()
            && possession.held_watch.is_none()
            && self.events
        {
            possession.held_watch = watch().add(self.seat, door.file(), Seen::Held).ok();
            // It may have gone before the watch was there.
            self.look_for_loss(false);
        }
    }

    pub(crate) fn poll_lost(&mut self, token: u64, poll: Duration, waker: &Waker) -> Poll<Loss> {
        if let Some((lost, loss)) = self.lost
            && lost == token
        {
            return Poll::Ready(loss);
        }
        let held = self.possession.as_ref().is_some_and(|it| it.token == token);
        if held {
            self.lost_wakers
                .retain(|(watched, it)| *watched != token || !it.will_wake(waker));
            self.lost_wakers.push((token, waker.clone()));
            if self.lost_at.is_none() {
                self.lost_at = Instant::now().checked_add(poll.min(Duration::from_secs(1)));
            }
        }
        Poll::Pending
    }

    /// Compares the door with its path. What cannot be looked at is not taken for lost.
    pub(super) fn look_for_loss(&mut self, watch_fired: bool) {
        let Some(possession) = &mut self.possession else {
            return;
        };
        if watch_fired {
            possession.held_watch = None;
        }
        if possession.loss.is_some() {
            return;
        }
        let path = &self.disk.place().door;
        let loss = match crate::fs::sys::file::id_at(path) {
            Ok(Some(id)) if id == possession.door => None,
            Ok(Some(_)) => Some(Loss::Replaced),
            Ok(None) => Some(Loss::Deleted),
            Err(_) => None,
        };
        if let Some(loss) = loss {
            possession.loss = Some(loss);
            let token = possession.token;
            self.lost = Some((token, loss));
            for (watched, waker) in std::mem::take(&mut self.lost_wakers) {
                if watched == token {
                    self.wakes.push(waker);
                }
            }
        } else if !self.lost_wakers.is_empty() {
            self.lost_at = Instant::now().checked_add(Duration::from_secs(1));
        }
    }
}
