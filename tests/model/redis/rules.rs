//! What a scenario allows, and the rules that a mutation breaks.

use super::world::N;

/// A broken rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Mutation {
    #[default]
    None,
    /// An offer's lease begins when the message arrives.
    OfferFromArrival,
    /// An offer counts as newer than the last answer, whatever its turn is.
    NoTurnCheck,
    /// A lease begins when the answer arrives.
    LeaseFromReply,
    /// A hold is lost at the end of its lease, not after three quarters.
    LostAtEnd,
    /// A renewal revives a lease that was over.
    RevivesLeases,
    /// A release ends the hold of any holder.
    ReleasesAnother,
    /// A bypassed waiter goes to the end of the queue.
    PassLosesNumber,
    /// An unclaimed offer is not taken back.
    KeepsOffers,
    /// An offer is made although no process listens.
    PublishesBlindly,
    /// No heartbeats of waiters.
    NoBeats,
    /// Every request is granted, whatever was forgotten.
    NoQuarantine,
    /// The quarantine counts from the start of the server, also if the state is from another one.
    FromBorn,
    /// A flushed server counts as a new one.
    NoWitness,
    /// A missing state is a new lock, whatever the fence is.
    NoFence,
    /// A forgotten hold is restored although another client was granted since.
    ReassertsBlindly,
    /// An answer that arrives too late is not asked for again.
    NoSecondAsk,
    /// A pass ends any turn.
    PassesAnyTurn,
    /// A request does not name the turn that was returned before.
    AsksUnnamed,
    /// A recorded holder counts as a holder on another server too.
    TrustsRecords,
    /// A grant that is over is asserted, and requested again without returning it.
    KeepsWhatIsOver,
}

/// The durations, and how often each event may happen. Events that happened are subtracted.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Rules {
    pub(super) lease: u8,
    pub(super) window: u8,
    /// How many waits each client has.
    pub(super) rounds: [u8; N],
    /// How many requests a client may have under way.
    pub(super) flights: usize,
    /// A waiter may be given up at any time, as if the server had not heard from it for long.
    pub(super) impatient: bool,
    /// How many messages an inbox keeps. Others are lost.
    pub(super) inbox: usize,
    /// The age at which a message or answer under way must arrive before time passes. That of a
    /// stopped client does not count.
    pub(super) delay: u8,
    pub(super) kills: u8,
    pub(super) stops: u8,
    /// Broken connections.
    pub(super) cuts: u8,
    /// Requests on a broken connection may arrive late.
    pub(super) late: bool,
    /// Dropped futures.
    pub(super) leaves: u8,
    /// How far the server's clock runs ahead of the clients'.
    pub(super) drift: u8,
    pub(super) flushes: u8,
    /// `DEL state`
    pub(super) deletes: u8,
    /// Restarts of the server with all its data, and without any.
    pub(super) restarts: u8,
    pub(super) blanks: u8,
    /// Restarts with older data, and replicas with older data that have run for long.
    pub(super) rollbacks: u8,
    pub(super) failovers: u8,
    pub(super) mutation: Mutation,
    /// A second mutation, for what two rules protect.
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

    /// Returns how much of a lease counts.
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
