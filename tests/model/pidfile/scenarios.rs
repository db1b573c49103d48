//! The searches, and what they must find.

use super::{ERROR, Mutation, Pc, TWO, World, world};
use crate::graph;

#[test]
fn pid_free_path() {
    graph::holds(world(0, [2, 1, 1], 0));
}

#[test]
fn pid_free_path_and_kill() {
    graph::holds(world(0, [1, 1, 1], 1));
}

#[test]
fn pid_stale_record() {
    graph::holds(world(1, [1, 1, 1], 0));
}

#[test]
fn pid_stale_record_and_cancel() {
    let cancels = 1;
    graph::holds(World {
        cancels,
        ..world(1, [1, 1, 1], 0)
    });
}

#[test]
fn pid_stale_record_and_kill() {
    graph::holds(world(1, [1, 1, 1], 1));
}

#[test]
fn pid_stale_record_and_two_kills() {
    graph::holds(world(1, [1, 1, 1], 2));
}

#[test]
fn pid_dead_heir() {
    graph::holds(world(2, [1, 1, 1], 0));
}

#[test]
fn pid_dead_heir_and_kill() {
    graph::holds(world(2, [1, 1, 1], 1));
}

#[test]
fn pid_dead_heir_of_heir() {
    graph::holds(world(3, [1, 1, 1], 0));
}

/// A process has seen a stale record long ago. The path does not have it any more, and its
/// heirs have died.
fn late() -> World {
    let mut world = world(1, [1, 1, 1], 0);
    (world.heirs[2], world.heirs[1]) = (Some(1), Some(3));
    world.processes[0].stale = vec![2, 1];
    world.processes[0].pc = Pc::Read;
    world
}

#[test]
fn pid_heir_that_comes_late() {
    graph::holds(late());
}

#[test]
fn pid_stranger() {
    let strangers = 1;
    graph::holds(World {
        strangers,
        ..world(1, [1, 1, 1], 1)
    });
}

#[test]
fn pid_an_heir_that_does_not_check_again_robs_a_holder() {
    let world = world(1, [1, 1, 1], 0);
    graph::finds(world.broken(Mutation::NoLastLook), &[TWO]);
}

#[test]
fn pid_deleting_living_heirs_robs_a_holder() {
    let world = world(1, [1, 1, 1], 0);
    graph::finds(world.broken(Mutation::DeletesHeirs), &[TWO]);
}

#[test]
fn pid_unlinking_dead_heirs_robs_a_holder() {
    let world = world(2, [1, 1, 1], 0);
    graph::finds(world.broken(Mutation::UnlinksDeadHeirs), &[TWO]);
}

#[test]
fn pid_unlinking_the_stale_record_robs_a_holder() {
    let world = world(1, [1, 1, 0], 0);
    graph::finds(world.broken(Mutation::UnlinksStale), &[TWO]);
}

#[test]
fn pid_releasing_without_a_check_robs_the_next_holder() {
    let world = World {
        strangers: 1,
        ..world(0, [1, 1, 0], 0)
    };
    graph::finds(world.broken(Mutation::NoLookAtRelease), &[TWO]);
}

#[test]
fn pid_sweeping_without_reading_takes_what_the_living_need() {
    let world = world(1, [1, 1, 1], 0);
    graph::finds(world.broken(Mutation::SweepsLiving), &[ERROR]);
}

#[test]
fn pid_a_name_that_was_swept_is_not_an_error() {
    graph::finds(late().broken(Mutation::MissingIsError), &[ERROR]);
}

#[test]
fn pid_judging_without_proof_robs_a_holder() {
    let world = world(0, [1, 1, 0], 0);
    graph::finds(world.broken(Mutation::JudgesLiving), &[TWO]);
}
