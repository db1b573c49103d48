//! The network between the clients and the server: every request, answer and notice has its own
//! delay. Requests of one connection keep their order, answers and notices do not.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until};

use super::log::{Answered, Asked};
use super::server::{Bug, Sent};
use super::world::{Shared, World};
use crate::backend::BoxFuture;
use crate::error::{Error, ErrorKind, Result};
use crate::lease::{
    Answer, Enter, Entered, Failure, Heartbeat, Inspection, Leave, Link, Notice, Notices, Store,
    Target, Terms, Tokens,
};

/// The server, as one client reaches it.
pub(super) struct Simulated {
    world: Shared,
    client: usize,
}

impl Simulated {
    pub(super) fn new(world: Shared, client: usize) -> Self {
        Self { world, client }
    }
}

/// The state of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cable {
    Up,
    /// Both sides notice that it is gone.
    Closed,
    /// Nothing passes, and no side notices.
    Silent,
}

/// A connection that was made.
pub(super) struct Connection {
    pub(super) client: usize,
    pub(super) cable: Cable,
    notices: Notices,
    /// When the last request arrives.
    arrival: Instant,
}

struct SimulatedLink {
    world: Shared,
    number: u64,
    terms: Arc<Terms>,
}

impl Store for Simulated {
    fn backend(&self) -> &'static str {
        "simulated"
    }

    fn address(&self) -> &str {
        "simulated:"
    }

    fn tokens(&self) -> Tokens {
        Tokens::Strict
    }

    fn connect(
        &self,
        terms: Arc<Terms>,
        notices: Notices,
    ) -> BoxFuture<'static, Result<Box<dyn Link>>> {
        let (world, client) = (self.world.clone(), self.client);
        Box::pin(async move {
            let (there, back) = {
                let mut world = world.lock();
                (world.delay(), world.delay())
            };
            sleep(there).await;
            let number = world.lock().accept(client, &terms, notices);
            sleep(back).await;
            let number = number.ok_or_else(|| {
                let text = "connection refused";
                Error::at(ErrorKind::Unavailable, text, "simulated:")
            })?;
            let link = SimulatedLink {
                world,
                number,
                terms,
            };
            Ok(Box::new(link) as Box<dyn Link>)
        })
    }
}

impl World {
    /// Accepts a connection, if the server runs.
    fn accept(&mut self, client: usize, terms: &Terms, notices: Notices) -> Option<u64> {
        if !self.is_up {
            return None;
        }
        let number = self.connections.len() as u64;
        self.connections.push(Connection {
            client,
            cable: Cable::Up,
            notices,
            arrival: Instant::now(),
        });
        if self.plan().listens {
            self.listen(&terms.inbox, number);
        }
        Some(number)
    }

    fn cable(&self, link: u64) -> Cable {
        self.connections[link as usize].cable
    }

    /// Breaks a connection. The server notices it later, or with the client.
    pub(super) fn cut(&mut self, link: usize, cable: Cable, world: &Shared) {
        let connection = &mut self.connections[link];
        if connection.cable != Cable::Up {
            return;
        }
        connection.cable = cable;
        let notices = connection.notices.clone();
        let (delay, late) = (self.delay(), self.dice.between(0, 3000));
        let world = world.clone();
        tokio::spawn(async move {
            sleep(delay).await;
            if cable == Cable::Closed {
                notices.send(Notice::Closed);
            } else {
                sleep(Duration::from_millis(late)).await;
            }
            world.lock().hang_up(link as u64);
        });
    }

    /// Sends what the last step has to send.
    fn deliver(&mut self, sent: Vec<Sent>, world: &Shared) {
        for (inbox, notice) in sent {
            let Some(link) = self.server.hears(&inbox) else {
                continue;
            };
            let faults = self.faults();
            let copies = if self.dice.chance(faults.lost_notices) {
                0
            } else {
                1 + u64::from(self.dice.chance(faults.doubled_notices))
            };
            for _ in 0..copies {
                let (delay, notice, world) = (self.delay(), notice.clone(), world.clone());
                tokio::spawn(async move {
                    sleep(delay).await;
                    let notices = {
                        let world = world.lock();
                        let connection = &world.connections[link as usize];
                        (connection.cable == Cable::Up).then(|| connection.notices.clone())
                    };
                    notices
                        .into_iter()
                        .for_each(|it| _ = it.send(notice.clone()));
                });
            }
        }
    }
}

impl SimulatedLink {
    /// Carries a request to the server, and the answer back.
    fn carry<T: Send + 'static>(
        &self,
        asked: Asked,
        read: impl FnOnce(Answered) -> Option<T> + Send + 'static,
    ) -> Answer<T> {
        let (reply, answer) = oneshot::channel();
        let (shared, link, terms) = (self.world.clone(), self.number, self.terms.clone());
        let mut world = shared.lock();
        if world.cable(link) == Cable::Closed {
            return Box::pin(async { Err(Failure::closed()) });
        }
        let client = world.connections[link as usize].client;
        world.note(|| format!("client {client} sends through {link}: {asked:?}"));
        let arrival = Instant::now() + world.delay();
        let arrival = match world.plan().bug {
            Some(Bug::Reordering) => arrival,
            _ => arrival.max(world.connections[link as usize].arrival),
        };
        world.connections[link as usize].arrival = arrival;
        drop(world);
        tokio::spawn(async move {
            sleep_until(arrival).await;
            let back = {
                let mut world = shared.lock();
                // What was under way when the connection broke may arrive all the same.
                let passes = world.cable(link) == Cable::Up || world.dice.chance(30);
                if !world.is_up || !passes {
                    return;
                }
                let (mut answer, mut sent) = world.serve(&asked, &terms);
                let doubled = world.faults().doubled_requests;
                if world.dice.chance(doubled) {
                    let (again, more) = world.serve(&asked, &terms);
                    answer = again;
                    sent.extend(more);
                }
                world.deliver(sent, &shared);
                (world.delay(), answer)
            };
            sleep(back.0).await;
            let mut world = shared.lock();
            if world.cable(link) == Cable::Up {
                world.note(|| format!("client {client} receives: {:?}", back.1));
                let _ = reply.send(back.1);
            }
        });
        let silent = self.world.lock().cable(link) == Cable::Silent;
        Box::pin(async move {
            match answer.await {
                Ok(answer) => read(answer).ok_or_else(Failure::nonsense),
                Err(_) if silent => std::future::pending().await,
                Err(_) => Err(Failure::closed()),
            }
        })
    }
}

impl Link for SimulatedLink {
    fn listens(&self) -> bool {
        self.world.lock().plan().listens
    }

    fn enter(&self, lock: &Target, request: &Enter) -> Answer<Entered> {
        let asked = Asked::Enter(lock.clone(), request.clone());
        self.carry(asked, |answer| match answer {
            Answered::Entered(entered) => Some(entered),
            _ => None,
        })
    }

    fn heartbeat(&self, lock: &Target, ids: &[String]) -> Answer<Heartbeat> {
        let asked = Asked::Heartbeat(lock.clone(), ids.to_vec());
        self.carry(asked, |answer| match answer {
            Answered::Heartbeat(heartbeat) => Some(heartbeat),
            _ => None,
        })
    }

    fn release(&self, lock: &Target, id: &str, how: Leave) -> Answer<bool> {
        let asked = Asked::Release(lock.clone(), id.to_owned(), how);
        self.carry(asked, |answer| match answer {
            Answered::Released(held) => Some(held),
            _ => None,
        })
    }

    fn inspect(&self, lock: &Target, most_waiters: usize) -> Answer<Inspection> {
        let asked = Asked::Inspect(lock.clone(), most_waiters);
        self.carry(asked, |answer| match answer {
            Answered::Inspected(inspection) => Some(inspection),
            _ => None,
        })
    }

    fn force_release(&self, lock: &Target, token: Option<u64>) -> Answer<u64> {
        let asked = Asked::Force(lock.clone(), token);
        self.carry(asked, |answer| match answer {
            Answered::Forced(ended) => Some(ended),
            _ => None,
        })
    }

    fn remove(&self, lock: &Target) -> Answer<bool> {
        self.carry(Asked::Remove(lock.clone()), |answer| match answer {
            Answered::Removed(removed) => Some(removed),
            _ => None,
        })
    }

    fn ping(&self) -> Answer<()> {
        self.carry(Asked::Ping, |_| Some(()))
    }
}

/// A mutex for a simulation on one thread.
pub(super) struct Cell<T>(Mutex<T>);

impl<T> Cell<T> {
    pub(super) fn new(value: T) -> Arc<Self> {
        Arc::new(Self(Mutex::new(value)))
    }

    pub(super) fn lock(&self) -> std::sync::MutexGuard<'_, T> {
        self.0.try_lock().expect("locked twice")
    }
}
