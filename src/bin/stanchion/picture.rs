//! What there is to show: the line at one moment.

use std::time::SystemTime;

use stanchion::{FifoKind, Held, Owner, Status};

use crate::lock::AnyLock;

/// Who is inside.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Inside {
    Nobody,
    /// Nobody can tell. The holder on record may have died.
    Unknown(Option<Person>),
    /// Somebody who came through the line.
    Holder(Person),
    /// Somebody who has the file locked and left no record.
    Outsider(Person),
    /// Those who read, or have permits.
    Sharers(Vec<Person>),
}

/// A process, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Person {
    pub(crate) pid: Option<u32>,
    pub(crate) label: Option<String>,
    pub(crate) host: Option<String>,
    pub(crate) command: Option<String>,
    pub(crate) since: Option<SystemTime>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct InLine {
    pub(crate) ticket: Option<u64>,
    pub(crate) person: Person,
    pub(crate) passed_over: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Picture {
    pub(crate) lock: String,
    /// None where none is recorded.
    pub(crate) kind: Option<FifoKind>,
    pub(crate) at: SystemTime,
    pub(crate) inside: Inside,
    /// Whether `inside` are all that there are.
    pub(crate) names_all: bool,
    pub(crate) line: Vec<InLine>,
    pub(crate) last_token: u64,
}

impl Picture {
    pub(crate) fn new(lock: &AnyLock, kind: Option<FifoKind>, status: &Status) -> Self {
        Self {
            lock: lock.path().to_string_lossy().into_owned(),
            kind,
            at: SystemTime::now(),
            inside: inside(status),
            names_all: status.names_all,
            line: line(status),
            last_token: status.last_token,
        }
    }

    /// In one word, the same for people and for programs.
    pub(crate) fn state(&self) -> &'static str {
        match self.inside {
            Inside::Nobody => "free",
            Inside::Unknown(_) => "unknown",
            Inside::Holder(_) => "held",
            Inside::Outsider(_) => "locked",
            Inside::Sharers(_) => "shared",
        }
    }

    /// Who is inside alone.
    pub(crate) fn holder(&self) -> Option<&Person> {
        match &self.inside {
            Inside::Nobody | Inside::Sharers(_) => None,
            Inside::Unknown(person) => person.as_ref(),
            Inside::Holder(person) | Inside::Outsider(person) => Some(person),
        }
    }

    pub(crate) fn sharers(&self) -> &[Person] {
        match &self.inside {
            Inside::Sharers(people) => people,
            _ => &[],
        }
    }

    /// Whether it is known whether the lock is held.
    pub(crate) fn is_known(&self) -> bool {
        !matches!(self.inside, Inside::Unknown(_))
    }

    /// How many permits a semaphore has.
    pub(crate) fn limit(&self) -> Option<u32> {
        match self.kind {
            Some(FifoKind::Semaphore { limit }) => Some(limit),
            _ => None,
        }
    }
}

fn inside(status: &Status) -> Inside {
    match (&status.held, &status.holder, &status.outsider) {
        (Held::No, ..) => Inside::Nobody,
        (Held::Yes, Some(owner), _) => Inside::Holder(owner.into()),
        (Held::Yes, None, Some(owner)) => Inside::Outsider(owner.into()),
        (Held::Yes, None, None) if status.shared_by.is_empty() => Inside::Holder(Person::default()),
        (Held::Yes, None, None) => {
            Inside::Sharers(status.shared_by.iter().map(Person::from).collect())
        }
        (_, holder, _) => Inside::Unknown(holder.as_ref().map(Person::from)),
    }
}

fn line(status: &Status) -> Vec<InLine> {
    let in_line = status.waiters.iter().map(|it| InLine {
        ticket: it.ticket,
        person: (&it.owner).into(),
        passed_over: it.passed_over,
    });
    in_line.collect()
}

impl From<&Owner> for Person {
    fn from(owner: &Owner) -> Self {
        Self {
            pid: owner.pid,
            label: owner.label.clone(),
            host: owner.host.clone(),
            command: owner.command.clone(),
            since: owner.since,
        }
    }
}
