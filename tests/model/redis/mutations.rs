//! The model of the locks on a server can fail: each test breaks one rule and expects the fault
//! that it prevents.

use super::rules::{Mutation, Rules};
use super::server::ORDER;
use super::steps::{REVIVED, SUPERSEDED, TOKEN, TWO};
use super::world::World;
use super::{NARROW, THREE, holds};
use crate::graph::{self, STUCK};

fn finds(rules: Rules, mutation: Mutation, fault: &'static str) {
    graph::finds(World::new(Rules { mutation, ..rules }), &[fault]);
}

const STOP: Rules = Rules { stops: 1, ..NARROW };
const DRIFT: Rules = Rules { drift: 1, ..NARROW };
const KILL: Rules = Rules { kills: 1, ..NARROW };
const LATE: Rules = Rules {
    cuts: 1,
    late: true,
    ..NARROW
};
const FLUSH: Rules = Rules {
    flushes: 1,
    ..NARROW
};

#[test]
fn redis_an_offer_that_counts_from_its_arrival_meets_the_next() {
    finds(NARROW, Mutation::OfferFromArrival, TWO);
}

#[test]
fn redis_an_offer_older_than_the_last_answer_meets_the_next() {
    finds(NARROW, Mutation::NoTurnCheck, TWO);
}

#[test]
fn redis_a_lease_that_counts_from_the_answer_meets_the_next() {
    finds(STOP, Mutation::LeaseFromReply, TWO);
}

/// The last quarter is for clocks of different speed, and for nothing else.
#[test]
fn redis_a_hold_lost_at_the_end_of_its_lease_meets_the_next_where_clocks_differ() {
    finds(DRIFT, Mutation::LostAtEnd, TWO);
}

#[test]
fn redis_a_hold_may_be_lost_at_the_end_of_its_lease_where_clocks_agree() {
    let mutation = Mutation::LostAtEnd;
    holds(Rules { mutation, ..NARROW });
}

#[test]
fn redis_a_late_renewal_brings_back_what_was_over() {
    finds(STOP, Mutation::RevivesLeases, REVIVED);
}

#[test]
fn redis_a_release_of_anothers_hold_allows_two_holders() {
    let rounds = [2, 1, 0];
    finds(Rules { rounds, ..NARROW }, Mutation::ReleasesAnother, TWO);
}

#[test]
fn redis_a_bypassed_waiter_without_its_number_is_overtaken() {
    finds(THREE, Mutation::PassLosesNumber, ORDER);
}

#[test]
fn redis_an_offer_that_is_kept_for_the_dead_stops_the_queue() {
    finds(KILL, Mutation::KeepsOffers, STUCK);
}

/// An offer that no process receives costs a claim window, and no more.
#[test]
fn redis_an_offer_without_a_listener_is_bypassed_later() {
    let mutation = Mutation::PublishesBlindly;
    holds(Rules { mutation, ..KILL });
}

#[test]
fn redis_a_message_that_came_too_early_is_lost_without_heartbeats() {
    finds(NARROW, Mutation::NoBeats, STUCK);
}

#[test]
fn redis_without_quarantine_a_restart_allows_two_holders() {
    let rules = Rules {
        blanks: 1,
        ..NARROW
    };
    finds(rules, Mutation::NoQuarantine, TWO);
}

#[test]
fn redis_a_replica_is_no_older_than_its_state() {
    let rules = Rules {
        failovers: 1,
        ..NARROW
    };
    finds(rules, Mutation::FromBorn, TWO);
}

#[test]
fn redis_without_witness_a_flush_allows_two_holders() {
    finds(FLUSH, Mutation::NoWitness, TWO);
}

#[test]
fn redis_without_the_fence_a_deleted_state_allows_two_holders() {
    let rules = Rules {
        deletes: 1,
        ..NARROW
    };
    finds(rules, Mutation::NoFence, TWO);
}

/// A client asserts no hold that is over, and the server restores no hold after a later grant. The
/// second rule shows only where the first one fails.
#[test]
fn redis_a_hold_asserted_blindly_comes_back_after_another() {
    let rules = Rules {
        deletes: 1,
        also: Mutation::KeepsWhatIsOver,
        ..STOP
    };
    let world = World::new(Rules {
        mutation: Mutation::ReassertsBlindly,
        ..rules
    });
    graph::finds(world, &[TWO, TOKEN, SUPERSEDED]);
}

/// A single client, whose heartbeat does not include a waiter that asks.
#[test]
fn redis_an_answer_that_came_too_late_is_the_last_if_it_is_not_asked_for_again() {
    let rounds = [1, 0, 0];
    finds(Rules { rounds, ..STOP }, Mutation::NoSecondAsk, STUCK);
}

/// The same id asks again on the new connection, and the pass arrives later.
#[test]
fn redis_a_late_pass_that_names_no_turn_ends_the_next() {
    finds(LATE, Mutation::PassesAnyTurn, TWO);
}

/// The answer has that turn, and the pass arrives later.
#[test]
fn redis_a_request_that_names_no_returned_turn_is_granted_by_it() {
    finds(LATE, Mutation::AsksUnnamed, TWO);
}

/// The holder at the time of the copy gets an answer with that turn, although it has released it
/// and another client holds the lock.
#[test]
fn redis_older_records_allow_two_holders() {
    let rules = Rules {
        rollbacks: 1,
        ..NARROW
    };
    finds(rules, Mutation::TrustsRecords, TWO);
}

/// The same on a replica.
#[test]
fn redis_records_of_a_replica_allow_two_holders() {
    let rules = Rules {
        failovers: 1,
        ..NARROW
    };
    finds(rules, Mutation::TrustsRecords, TWO);
}

/// The server is flushed, together with the token of a later holder. Either half of the rule would
/// be enough here: not to assert the grant, or to return it.
#[test]
fn redis_a_grant_that_is_over_and_kept_comes_back_beside_another() {
    let rules = Rules { flushes: 1, ..STOP };
    finds(rules, Mutation::KeepsWhatIsOver, TWO);
}
