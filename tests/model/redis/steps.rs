//! All successors: messages arrive, clients take steps, time passes, and events happen to server,
//! clients and connections.

use super::rules::Rules;
use super::world::{Client, Fifo, Life, N, NONE, Record, Run, Server, Stage, World};
use crate::graph::{Act, State};

pub(super) const TWO: &str = "two holders";
pub(super) const SUPERSEDED: &str = "a hold continues after a later grant";
pub(super) const REVIVED: &str = "a hold that was over comes back";
pub(super) const TOKEN: &str = "a token that is not above the last";

/// The index of the server as the actor of a step.
const SERVER: usize = N;

type Out = Vec<(Act, World)>;

impl State for World {
    fn next(&self, out: &mut Out) {
        for c in 0..N {
            self.messages(c, out);
            let client = &self.clients[c];
            if client.life == Life::Awake {
                self.client(c, out);
            }
            self.befalls(c, out);
        }
        self.server(out);
        self.patience(out);
        if self.clients.iter().all(|it| it.has_time(&self.rules)) {
            self.add(out, (SERVER, "time"), World::pass_time);
        }
    }

    fn fault(&self) -> Option<&'static str> {
        let inside = || self.clients.iter().filter(|it| it.believes());
        let goes_on = inside().any(|it| it.stage == Stage::Held && it.token < self.taken);
        let found = self.fault.or((inside().count() > 1).then_some(TWO));
        found.or(goes_on.then_some(SUPERSEDED))
    }

    fn is_end(&self) -> bool {
        self.clients.iter().all(|it| it.stage == Stage::Done)
    }
}

impl World {
    /// The result of a step, unless it has no effect.
    fn add(&self, out: &mut Out, act: Act, step: impl FnOnce(&mut Self)) {
        let mut after = *self;
        step(&mut after);
        after.settle();
        if after != *self {
            out.push((act, after));
        }
    }

    /// Events, as long as the rules allow them.
    fn spend(
        &self,
        out: &mut Out,
        act: Act,
        left: fn(&mut Rules) -> &mut u8,
        step: impl FnOnce(&mut Self),
    ) {
        let mut rules = self.rules;
        if *left(&mut rules) > 0 {
            self.add(out, act, |after| {
                *left(&mut after.rules) -= 1;
                step(after);
            });
        }
    }

    fn messages(&self, c: usize, out: &mut Out) {
        let client = &self.clients[c];
        if client.requests.len() > 0 {
            self.add(out, (c, "is heard"), |after| {
                let request = after.clients[c].requests.pop();
                let reply = request.map(|it| after.serve(c, it));
                let client = &mut after.clients[c];
                if client.up {
                    reply.into_iter().for_each(|it| client.replies.push(it));
                }
            });
        }
        if client.late.len() > 0 {
            self.add(out, (c, "is heard late"), |after| {
                let request = after.clients[c].late.pop();
                request.into_iter().for_each(|it| _ = after.serve(c, it));
            });
        }
        if client.life != Life::Awake {
            return;
        }
        let rules = &self.rules;
        if client.replies.len() > 0 {
            self.add(out, (c, "reads an answer"), |after| {
                let client = &mut after.clients[c];
                let reply = client.replies.pop();
                let is_over = client.stage == Stage::Held && client.valid == 0;
                reply.into_iter().for_each(|it| client.answer(rules, it));
                if is_over && client.believes() {
                    after.fail(REVIVED);
                }
            });
        }
        // There must be room for what it then asks for.
        let asks = matches!(client.stage, Stage::Waiting | Stage::Granted);
        if client.pushes.len() > 0 && (!asks || client.flights() < rules.flights) {
            self.add(out, (c, "reads a message"), |after| {
                let client = &mut after.clients[c];
                let push = client.pushes.pop();
                push.into_iter().for_each(|it| client.push(rules, it));
            });
        }
    }

    /// What a client does by itself.
    fn client(&self, c: usize, out: &mut Out) {
        let client = &self.clients[c];
        if !client.up && client.stage != Stage::Done {
            self.add(out, (c, "connects"), |after| after.clients[c].reconnect());
        }
        if client.flights() >= self.rules.flights {
            return;
        }
        let rules = &self.rules;
        let own = |out: &mut Out, what, step: &dyn Fn(&mut Client)| {
            self.add(out, (c, what), |after| step(&mut after.clients[c]));
        };
        match client.stage {
            Stage::Idle => own(out, "asks", &Client::enter),
            Stage::Granted | Stage::Passed => {
                self.add(out, (c, "is polled"), |after| {
                    if after.clients[c].poll() {
                        after.takes(c);
                    }
                });
            }
            Stage::Held => own(out, "releases", &Client::leave),
            Stage::Releasing | Stage::Leaving => own(out, "gives up", &Client::forget),
            _ => {}
        }
        if client.beats(rules) {
            own(out, "beats", &Client::beat);
        }
        own(out, "is alarmed", &|it| it.rings(rules));
        if matches!(
            client.stage,
            Stage::Asking | Stage::Waiting | Stage::Granted | Stage::Passed
        ) {
            self.spend(
                out,
                (c, "is dropped"),
                |it| &mut it.leaves,
                |after| {
                    after.clients[c].leave();
                },
            );
        }
    }

    /// The caller has the guard.
    fn takes(&mut self, c: usize) {
        let token = self.clients[c].token;
        if token <= self.taken {
            self.fail(TOKEN);
        }
        self.taken = self.taken.max(token);
    }

    fn befalls(&self, c: usize, out: &mut Out) {
        let client = &self.clients[c];
        let done = client.stage == Stage::Done;
        if client.heard && !client.up {
            self.add(out, (c, "is missed"), |after| {
                after.clients[c].heard = false
            });
        }
        if client.life == Life::Stopped {
            self.add(out, (c, "continues"), |after| {
                after.clients[c].life = Life::Awake
            });
        }
        if done || client.life == Life::Dead {
            return;
        }
        let late = self.rules.late;
        if client.up {
            self.spend(
                out,
                (c, "is cut off"),
                |it| &mut it.cuts,
                |after| {
                    after.clients[c].cut(late);
                },
            );
        }
        self.spend(
            out,
            (c, "dies"),
            |it| &mut it.kills,
            |after| after.clients[c].kill(),
        );
        if client.life == Life::Awake {
            self.spend(
                out,
                (c, "is stopped"),
                |it| &mut it.stops,
                |after| {
                    after.clients[c].life = Life::Stopped;
                },
            );
        }
    }

    /// The server gives up a waiter that it has not heard from for long, and each waiter that may
    /// look like one.
    fn patience(&self, out: &mut Out) {
        for id in 0..2 * N {
            if self.server.records[id].known && self.rules.impatient {
                self.add(out, (id / 2, "is given up"), |after| {
                    after.server.records[id] = Record::default();
                });
            }
        }
    }

    /// Events of the server.
    fn server(&self, out: &mut Out) {
        let lease = self.rules.lease;
        let act = |what| (SERVER, what);
        self.spend(
            out,
            act("runs ahead"),
            |it| &mut it.drift,
            |after| {
                after.server.age();
            },
        );
        self.spend(
            out,
            act("is flushed"),
            |it| &mut it.flushes,
            |after| {
                let born = after.server.born;
                after.server = Server {
                    born,
                    flushed: true,
                    ..Server::NEW
                };
                after.forgets();
            },
        );
        self.spend(
            out,
            act("loses the state"),
            |it| &mut it.deletes,
            |after| {
                let s = &mut after.server;
                (s.state, s.run, s.until, s.sole) = (false, Run::Blank, 0, NONE);
            },
        );
        self.spend(
            out,
            act("starts again"),
            |it| &mut it.restarts,
            |after| {
                after.begins(after.server, lease);
            },
        );
        self.spend(
            out,
            act("starts with nothing"),
            |it| &mut it.blanks,
            |after| {
                after.begins(Server::NEW, lease);
                after.forgets();
            },
        );
        self.copies(out);
    }

    /// Older data comes back.
    fn copies(&self, out: &mut Out) {
        let lease = self.rules.lease;
        let act = |what| (SERVER, what);
        let Some(copy) = self.copy else {
            let rolls = self.rules.rollbacks > 0 || self.rules.failovers > 0;
            if rolls && self.server.state {
                self.add(out, act("is copied"), |after| {
                    after.copy = Some(after.server)
                });
            }
            return;
        };
        self.spend(
            out,
            act("starts with the copy"),
            |it| &mut it.rollbacks,
            |after| {
                after.begins(copy, lease);
                after.forgets();
            },
        );
        self.spend(
            out,
            act("is succeeded"),
            |it| &mut it.failovers,
            |after| {
                after.begins(copy, 0);
                after.forgets();
            },
        );
    }

    /// Another server process with these keys. All connections are gone.
    fn begins(&mut self, keys: Server, born: u8) {
        let run = match keys.run {
            Run::Blank => Run::Blank,
            _ => Run::Other,
        };
        self.server = Server {
            run,
            born,
            flushed: false,
            ..keys
        };
        self.copy = None;
        for client in &mut self.clients {
            client.cut(false);
            (client.heard, client.late) = (false, Fifo::default());
        }
    }

    /// The server is not asked for what it has forgotten.
    fn forgets(&mut self) {
        self.gone = 0;
        (self.rules.rollbacks, self.rules.failovers) = match self.copy {
            Some(_) => (self.rules.rollbacks, self.rules.failovers),
            None => (0, 0),
        };
    }
}
