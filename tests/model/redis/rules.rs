//! What a scenario allows, and the rules that a mutation breaks.

use super::world::N;

/// A rule that is broken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Mutation {
    #[default]
    None,
    /// An offer's lease begins when the message comes.
    OfferFromArrival,
    /// An offer is taken for newer than the last answer, whatever its turn says.
    NoTurnCheck,
    /// A lease begins when the answer comes.
    LeaseFromReply,
    /// A hold is lost at the end of its lease, not after three quarters.
    LostAtEnd,
    /// A renewal revives a lease that was over.
    RevivesLeases,
    /// A release ends the hold of whoever is inside.
    ReleasesAnother,
    /// Who is passed goes to the end of the line.
    PassLosesNumber,
    /// An unclaimed offer is not taken back.
    KeepsOffers,
    /// An offer is made though nobody listens.
    PublishesBlindly,
    /// No heartbeats of waiters.
    NoBeats,
    /// Whoever asks is let in, whatever was forgotten.
    NoQuarantine,
    /// The quarantine counts from the start of the server also where the state is of another one.
    FromBorn,
    /// A server that was flushed is taken for one that never was.
    NoWitness,
    /// A missing state is a new lock, whatever the fence says.
    NoFence,
    /// A hold that was forgotten comes back though another was let in since.
    ReassertsBlindly,
    /// An answer that comes too late is not asked for again.
    NoSecondAsk,
    /// What is passed is whatever turn there is.
    PassesAnyTurn,
    /// Who asks anew does not say which turn it gave back.
    AsksUnnamed,
    /// Who is on record as inside counts as inside on another server, too.
    TrustsRecords,
    /// A grant that is over is asserted, and asked for again without giving it back.
    KeepsWhatIsOver,
}

/// The lengths, and how often what may happen. What happens is taken off.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Rules {
    pub(super) lease: u8,
    pub(super) window: u8,
    /// Waits of each client.
    pub(super) rounds: [u8; N],
    /// Requests that a client has under way at most.
    pub(super) flights: usize,
    /// A waiter may be given up at any time, as if it had not been heard of for long.
    pub(super) impatient: bool,
    /// Messages that an inbox keeps; what comes beyond is lost.
    pub(super) inbox: usize,
    /// How old what is under way may be before time stands still until it comes; a stopped client's does not count.
    pub(super) delay: u8,
    pub(super) kills: u8,
    pub(super) stops: u8,
    /// Broken connections.
    pub(super) cuts: u8,
    /// What was under way on a broken connection may come late.
    pub(super) late: bool,
    /// Dropped futures.
    pub(super) leaves: u8,
    /// How far the server's clock runs ahead of the clients'.
    pub(super) drift: u8,
    pub(super) flushes: u8,
    /// `DEL state`
    pub(super) deletes: u8,
    /// Starts of the server with all it knew, and with nothing.
    pub(super) restarts: u8,
    pub(super) blanks: u8,
    /// Starts with what was written some time ago, and replicas that know as much and have run for long.
    pub(super) rollbacks: u8,
    pub(super) failovers: u8,
    pub(super) mutation: Mutation,
    /// A second one, for what is guarded twice.
    pub(super) also: Mutation,
}

impl Rules {
    pub(super) const fn new(rounds: [u8; N]) -> Self {
        Self {
            lease: 4,
            window: 2,
            rounds,
            flights: 2,
            impatient: false,
            inbox: 1,
            delay: 0,
            kills: 0,
            stops: 0,
            cuts: 0,
            late: false,
            leaves: 0,
            drift: 0,
            flushes: 0,
            deletes: 0,
            restarts: 0,
            blanks: 0,
            rollbacks: 0,
            failovers: 0,
            mutation: Mutation::None,
            also: Mutation::None,
        }
    }

    /// How much of a lease counts.
    pub(super) fn believed(&self, length: u8) -> u8 {
        match self.mutation {
            Mutation::LostAtEnd => length,
            _ => length - length.div_ceil(4),
        }
    }

    pub(super) fn breaks(&self, mutation: Mutation) -> bool {
        self.mutation == mutation || self.also == mutation
    }
}
