//! Model.
#[path = "model/canon.rs"]
mod canon;
#[path = "model/explore.rs"]
mod explore;
#[path = "model/faults.rs"]
mod faults;
#[path = "model/knock.rs"]
mod knock;
#[path = "model/leave.rs"]
mod leave;
#[path = "model/mutations.rs"]
mod mutations;
#[path = "model/rules.rs"]
mod rules;
#[path = "model/steps.rs"]
mod steps;
#[path = "model/window.rs"]
mod window;
#[path = "model/world.rs"]
mod world;

use explore::explore;
use rules::Rules;
use world::Fault;

/// The scenario holds.
fn holds(rules: &Rules) {
    let start = std::time::Instant::now();
    let outcome = explore(rules, None);
    println!("{} states, {} edges, depth {}, {:?}", outcome.states, outcome.edges, outcome.depth, start.elapsed());
    assert_eq!(outcome.fault, Fault::None, "\n{}", outcome.trace);
}


use world::Role;
use rules::Clock;
fn base() -> Rules { Rules::new([1,1,1]) }


fn rm() -> Rules { Rules { roles:[Role::Locker, Role::Locker, Role::Remover], wall: true, ..base() } }
fn sl() -> Rules { Rules { windows: true, tmpfile: true, ..base() } }
#[test] fn a_two_rounds() { holds(&Rules::new([2, 2, 1])); }
#[test] fn a_two_rounds_tmp() { holds(&Rules{tmpfile:true, ..Rules::new([2, 2, 2])}); }
#[test] fn b_kill2_tmp() { holds(&Rules { kills: 2, tmpfile:true, ..base() }); }
#[test] fn b_kill2() { holds(&Rules { kills: 2, ..base() }); }
#[test] fn c_cancel2() { holds(&Rules { cancels: 2, ..base() }); }
#[test] fn c_cancel_kill_tmp() { holds(&Rules { cancels: 1, kills:1, tmpfile:true, ..base() }); }
#[test] fn d_fast() { holds(&Rules { fast: true, ..Rules::new([1,1,2]) }); }
#[test] fn d_fast_kill() { holds(&Rules { fast: true, kills:1, ..base() }); }
#[test] fn d_fast_cancel() { holds(&Rules { fast: true, cancels:1, ..base() }); }
#[test] fn e_coarse() { holds(&Rules { clock: Clock::Coarse, ..Rules::new([1,1,1]) }); }
#[test] fn e_coarse_tmp() { holds(&Rules { clock: Clock::Coarse, kills:1, tmpfile: true, ..Rules::new([1,1,1]) }); }
#[test] fn e_behind() { holds(&Rules { clock: Clock::Behind, ..Rules::new([1,1,1]) }); }
#[test] fn e_behind_kill_tmp() { holds(&Rules { clock: Clock::Behind, kills:1, tmpfile: true,  ..Rules::new([1,1,1]) }); }
#[test] fn e_behind_tmp() { holds(&Rules { clock: Clock::Behind, tmpfile: true,  ..Rules::new([1,1,2]) }); }
#[test] fn f_jitter() { holds(&Rules { jitter:true, stops:1, ..sl() }); }
#[test] fn f_stop_created() { holds(&Rules { stops:1, tmpfile: false, ..sl() }); }
#[test] fn f_stop_r2() { holds(&Rules { stops:1, rounds: [1,1,2], ..sl() }); }
#[test] fn f_stop2_inline() { holds(&Rules { stops:2, stops_in_line:true, ..sl() }); }
#[test] fn f_stop_kill_inline() { holds(&Rules { stops:1, kills:1, stops_in_line:true, ..sl() }); }
#[test] fn f_stop_cancel_inline() { holds(&Rules { stops:1, cancels:1, stops_in_line:true, ..sl() }); }
#[test] fn f_unclaimed_inline() { holds(&Rules { stops:1, unclaimed:1, stops_in_line:true, ..sl() }); }
#[test] fn f_unclaimed() { holds(&Rules { unclaimed:1, ..sl() }); }
#[test] fn f_unclaimed_kill() { holds(&Rules { unclaimed:1,kills:1, ..sl() }); }
#[test] fn f_stop_fast() { holds(&Rules { stops:1, fast:true, ..sl() }); }
#[test] fn g_remove() { holds(&Rules { fast: true, ..rm() }); }
#[test] fn g_remove_r2() { holds(&Rules { fast: true, rounds:[2,1,1], ..rm() }); }
#[test] fn g_remove_kill() { holds(&Rules { kills: 1, fast: true, ..rm() }); }
#[test] fn g_remove_cancel() { holds(&Rules { cancels: 1, ..rm() }); }
#[test] fn g_remove2() { holds(&Rules { roles:[Role::Locker, Role::Remover, Role::Remover], kills:1, wall: true, fast:true, ..Rules::new([2,1,1]) }); }
#[test] fn h_intrude() { holds(&Rules { intrusions: 1, ..base() }); }
#[test] fn h_intrude_fast() { holds(&Rules { intrusions: 1, fast:true, rounds:[2,1,1], ..base() }); }
#[test] fn h_intrude_kill() { holds(&Rules { intrusions: 1, kills:1, tmpfile: true, ..base() }); }
#[test] fn h_intrude_remove() { holds(&Rules { intrusions: 1, tmpfile:true, fast: true,  ..rm() }); }
