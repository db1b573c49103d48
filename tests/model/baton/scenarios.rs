//! The searches, and what they must find.

use super::{LOCKED, Mutation, ROBBED, TOKEN, TWO, World, world};
use crate::graph::{STUCK, finds, holds};

const LOCKERS: [bool; 3] = [false; 3];
const ONE_REMOVES: [bool; 3] = [false, false, true];

/// Nothing exists yet.
fn missing(world: World) -> World {
    World {
        outer: false,
        inner: false,
        batons: Vec::new(),
        ..world
    }
}

#[test]
fn baton_is_handed_on() {
    holds(world([1, 1, 1], LOCKERS));
}

#[test]
fn baton_is_made() {
    holds(missing(world([1, 1, 1], LOCKERS)));
}

#[test]
fn baton_twice() {
    holds(world([2, 1, 0], LOCKERS));
}

#[test]
fn baton_and_kill() {
    let kills = 1;
    holds(World {
        kills,
        ..world([1, 1, 1], LOCKERS)
    });
}

#[test]
fn baton_is_made_and_kill() {
    let kills = 1;
    holds(missing(World {
        kills,
        ..world([1, 1, 1], LOCKERS)
    }));
}

#[test]
fn baton_and_cancel() {
    let cancels = 1;
    holds(World {
        cancels,
        ..world([1, 1, 1], LOCKERS)
    });
}

#[test]
fn baton_and_expiry() {
    let (expires, stops) = (true, 1);
    holds(World {
        expires,
        stops,
        ..world([1, 1, 1], LOCKERS)
    });
}

#[test]
fn baton_and_expiry_and_kill() {
    let (expires, stops, kills) = (true, 1, 1);
    holds(World {
        expires,
        stops,
        kills,
        ..world([1, 1, 1], LOCKERS)
    });
}

#[test]
fn baton_is_removed() {
    holds(world([1, 1, 1], ONE_REMOVES));
}

#[test]
fn baton_is_removed_and_kill() {
    let kills = 1;
    holds(World {
        kills,
        ..world([1, 1, 1], ONE_REMOVES)
    });
}

#[test]
fn baton_is_removed_by_one_that_expires() {
    let (expires, stops) = (true, 1);
    holds(World {
        expires,
        stops,
        ..world([1, 1, 1], ONE_REMOVES)
    });
}

/// Two listings that miss the baton make the sweeper delete the record of a holder. When the holder
/// dies, no process can notice it.
#[test]
fn baton_beside_records_is_lost_by_the_sweep() {
    let world = World {
        kills: 1,
        ..world([1, 1, 1], ONE_REMOVES)
    };
    finds(world.broken(Mutation::RecordsWithBaton), &[LOCKED, STUCK]);
}

#[test]
fn baton_beside_records_is_robbed_after_the_sweep() {
    let world = World {
        expires: true,
        ..world([1, 1, 1], ONE_REMOVES)
    };
    finds(world.broken(Mutation::RecordsWithBaton), &[ROBBED]);
}

#[test]
fn baton_that_is_replaced_though_it_is_there_is_robbed() {
    finds(
        world([1, 1, 1], LOCKERS).broken(Mutation::HealsFull),
        &[ROBBED, TWO],
    );
}

#[test]
fn baton_with_an_old_name_repeats_a_token() {
    finds(
        world([1, 1, 1], LOCKERS).broken(Mutation::OldFreeName),
        &[TOKEN],
    );
}

#[test]
fn baton_freed_by_an_expired_holder_is_robbed() {
    let world = World {
        expires: true,
        stops: 1,
        ..world([1, 1, 1], LOCKERS)
    };
    finds(world.broken(Mutation::FreesAny), &[ROBBED]);
}

#[test]
fn baton_removed_after_its_record_locks_out_when_the_remover_dies() {
    let world = World {
        kills: 1,
        ..world([1, 1, 1], ONE_REMOVES)
    };
    finds(world.broken(Mutation::RecordFirst), &[LOCKED, STUCK]);
}

/// One process has made a directory, and puts it in place after another process has acquired and
/// released.
#[test]
fn baton_of_old_brings_tokens_back() {
    let world = missing(world([1, 1, 1], ONE_REMOVES));
    finds(world.broken(Mutation::NoTime), &[TOKEN]);
}

#[test]
fn baton_judging_without_proof_robs_a_holder() {
    finds(
        world([1, 1, 1], LOCKERS).broken(Mutation::JudgesLiving),
        &[ROBBED],
    );
}
