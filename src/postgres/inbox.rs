//! The messages to a client. They come through another connection than the answers, so an offer may
//! arrive before the answer that its waiter is queued. A client ignores an offer to a waiter that it
//! does not know to wait, and would notice it by a heartbeat much later. So a message waits until
//! the request under way for its id is answered.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::lease::{Notice, Notices};

#[derive(Clone)]
pub(super) struct Inbox {
    notices: Notices,
    asking: Arc<Mutex<HashMap<String, Asking>>>,
}

/// An id with requests under way.
#[derive(Default)]
struct Asking {
    requests: usize,
    held_back: Vec<Notice>,
}

impl Inbox {
    pub(super) fn new(notices: Notices) -> Self {
        Self {
            notices,
            asking: Arc::default(),
        }
    }

    fn asking(&self) -> MutexGuard<'_, HashMap<String, Asking>> {
        self.asking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes a message on, now or after the answer for its id.
    pub(super) fn hear(&self, notice: Notice) {
        if let Notice::Offer { id, .. } | Notice::Lost { id } = &notice
            && let Some(asking) = self.asking().get_mut(id)
        {
            return asking.held_back.push(notice);
        }
        self.notices.send(notice);
    }

    /// Holds messages back for this id, as long as the value lives.
    pub(super) fn ask(&self, id: &str) -> Request {
        let mut asking = self.asking();
        asking.entry(id.to_owned()).or_default().requests += 1;
        Request {
            inbox: self.clone(),
            id: id.to_owned(),
        }
    }
}

/// A request under way. It ends with its answer, or when that is no longer wanted.
pub(super) struct Request {
    inbox: Inbox,
    id: String,
}

impl Drop for Request {
    fn drop(&mut self) {
        let mut asking = self.inbox.asking();
        let Some(it) = asking.get_mut(&self.id) else {
            return;
        };
        it.requests -= 1;
        if it.requests == 0 {
            let it = asking.remove(&self.id);
            drop(asking);
            for notice in it.into_iter().flat_map(|it| it.held_back) {
                self.inbox.notices.send(notice);
            }
        }
    }
}
