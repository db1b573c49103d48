//! The messages to a client. They come through another connection than the answers, so an offer may
//! arrive before the answer that its waiter is queued. A client ignores an offer to a waiter that it
//! does not know to wait, and would notice it by a heartbeat much later. So a message waits until
//! the request under way for its id is answered.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::lease::Notice;

#[derive(Clone)]
pub(super) struct Inbox {
    send: Arc<dyn Fn(Notice) + Send + Sync>,
    asking: Arc<Mutex<HashMap<String, Asking>>>,
}

/// An id with requests under way.
#[derive(Default)]
struct Asking {
    requests: usize,
    held_back: Vec<Notice>,
}

impl Inbox {
    /// `send` passes a message on to the client.
    pub(super) fn new(send: impl Fn(Notice) + Send + Sync + 'static) -> Self {
        Self {
            send: Arc::new(send),
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
        (self.send)(notice);
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
                (self.inbox.send)(notice);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p63_an_offer_waits_for_the_answer_of_its_id_and_for_no_other() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let inbox = Inbox::new({
            let heard = heard.clone();
            move |notice| heard.lock().expect("not poisoned").push(notice)
        });
        let lost = |id: &str| Notice::Lost { id: id.to_owned() };
        let (first, again) = (inbox.ask("a"), inbox.ask("a"));
        for notice in [lost("a"), lost("b"), Notice::Closed] {
            inbox.hear(notice);
        }
        let so_far = || heard.lock().expect("not poisoned").clone();
        assert_eq!(so_far(), [lost("b"), Notice::Closed]);
        drop(first);
        assert_eq!(so_far().len(), 2, "the other request is under way");
        drop(again);
        assert_eq!(so_far()[2..], [lost("a")]);
        inbox.hear(lost("a"));
        assert_eq!(so_far().len(), 4);
        assert!(inbox.asking().is_empty(), "nothing is left");
    }
}
