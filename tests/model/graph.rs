//! A search for the small models: first every state, breadth-first, then backwards, whether each
//! state can reach an end.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;

/// What happened: the process that acted or was affected, and a description.
pub(crate) type Act = (usize, &'static str);

/// A state of a small model.
pub(crate) trait State: Clone + Eq + Hash + Debug {
    /// All successors.
    fn next(&self, out: &mut Vec<(Act, Self)>);

    /// The fault of this state, if there is one.
    fn fault(&self) -> Option<&'static str>;

    /// Whether all processes are done, so nothing more needs to happen.
    fn is_end(&self) -> bool;
}

/// The result of a search. The trace leads to the fault.
pub(crate) struct Outcome {
    pub(crate) states: usize,
    pub(crate) fault: Option<&'static str>,
    pub(crate) trace: String,
}

/// A state from which no end can be reached.
pub(crate) const STUCK: &str = "stuck forever";

struct Graph<S> {
    states: Vec<S>,
    /// How each state was first reached.
    from: Vec<(u32, Act)>,
    edges: Vec<(u32, u32)>,
}

/// Searches everything that is reachable, up to the first fault.
pub(crate) fn explore<S: State>(start: S) -> Outcome {
    let mut numbers = HashMap::from([(start.clone(), 0_u32)]);
    let mut graph = Graph {
        states: vec![start],
        from: vec![(0, (0, "begin"))],
        edges: Vec::new(),
    };
    let mut moves = Vec::new();
    let mut at = 0;
    while let Some(state) = graph.states.get(at) {
        if let Some(fault) = state.fault() {
            return graph.outcome(Some((fault, at)));
        }
        state.next(&mut moves);
        for (act, state) in moves.drain(..) {
            let fresh = graph.states.len() as u32;
            let number = *numbers.entry(state.clone()).or_insert(fresh);
            if number == fresh {
                graph.states.push(state);
                graph.from.push((at as u32, act));
            }
            graph.edges.push((at as u32, number));
        }
        at += 1;
    }
    let stuck = graph.stuck();
    graph.outcome(stuck.map(|at| (STUCK, at)))
}

impl<S: State> Graph<S> {
    /// The first state from which no end can be reached.
    fn stuck(&mut self) -> Option<usize> {
        self.edges.sort_unstable_by_key(|(_, to)| *to);
        let mut ends: Vec<_> = self.states.iter().map(State::is_end).collect();
        let mut work: Vec<_> = (0..ends.len()).filter(|&it| ends[it]).collect();
        while let Some(to) = work.pop() {
            let first = self.edges.partition_point(|it| (it.1 as usize) < to);
            let into = self.edges[first..].iter();
            for &(from, _) in into.take_while(|it| it.1 as usize == to) {
                if !std::mem::replace(&mut ends[from as usize], true) {
                    work.push(from as usize);
                }
            }
        }
        ends.iter().position(|it| !it)
    }

    fn outcome(&self, fault: Option<(&'static str, usize)>) -> Outcome {
        let mut lines = Vec::new();
        if let Some((fault, mut at)) = fault {
            lines.push(fault.to_owned());
            while at > 0 {
                let (before, (process, what)) = self.from[at];
                lines.push(format!("{process} {what:24} {:?}", self.states[at]));
                at = before as usize;
            }
        }
        lines.reverse();
        Outcome {
            states: self.states.len(),
            fault: fault.map(|it| it.0),
            trace: lines.join("\n"),
        }
    }
}

/// Asserts that no reachable state has a fault.
pub(crate) fn holds<S: State>(start: S) {
    let begun = std::time::Instant::now();
    let outcome = explore(start);
    println!("{} states, {:.1?}", outcome.states, begun.elapsed());
    assert_eq!(outcome.fault, None, "\n{}", outcome.trace);
}

/// Asserts that the broken rule leads to one of these faults.
pub(crate) fn finds<S: State>(start: S, faults: &[&'static str]) {
    let outcome = explore(start);
    println!("{} states\n{}", outcome.states, outcome.trace);
    let fault = outcome.fault.expect("a counter-example");
    assert!(faults.contains(&fault), "{fault}\n{}", outcome.trace);
}
