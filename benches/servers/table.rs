//! The table.

use super::plan::{Bench, Metric, Pick, Subject, Unit};
use crate::clock::median;

/// One line of the table: the results of each round of each subject.
pub(crate) struct Row<B: Bench> {
    job: &'static str,
    metric: &'static Metric,
    rounds: Vec<(B::Kind, f64)>,
}

impl<B: Bench> Row<B> {
    pub(crate) fn new(job: &'static str, metric: &'static Metric) -> Self {
        Self {
            job,
            metric,
            rounds: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, kind: B::Kind, value: f64) {
        self.rounds.push((kind, value));
    }

    fn value(&self, kind: B::Kind) -> Option<f64> {
        let own = self.rounds.iter().filter(|(own, _)| *own == kind);
        let own: Vec<_> = own.map(|(_, value)| *value).collect();
        match self.metric.pick {
            Pick::Median => median(&own),
            Pick::Worst => own.into_iter().reduce(f64::max),
        }
    }

    /// The figure, and its ratio to that of Stanchion where it means something.
    fn cell(&self, kind: B::Kind) -> String {
        let Some(value) = self.value(kind) else {
            return "–".to_owned();
        };
        let shown = show(self.metric.unit, value);
        let is_rate = matches!(self.metric.unit, Unit::Nanoseconds | Unit::PerSecond);
        match self.value(B::KINDS[0]) {
            Some(ours) if kind != B::KINDS[0] && is_rate && ours > 0.0 => {
                format!("{shown} ({} ×)", digits(value / ours))
            }
            _ => shown,
        }
    }

    fn cells(&self) -> Vec<String> {
        let mut cells = vec![self.job.to_owned(), self.metric.name.to_owned()];
        cells.extend(B::KINDS.iter().map(|kind| self.cell(*kind)));
        cells
    }
}

/// Formats a number.
fn show(unit: Unit, value: f64) -> String {
    match unit {
        Unit::Nanoseconds if value >= 1e9 => format!("{} s", digits(value / 1e9)),
        Unit::Nanoseconds if value >= 1e7 => format!("{} ms", digits(value / 1e6)),
        Unit::Nanoseconds => format!("{} µs", digits(value / 1e3)),
        Unit::PerSecond => format!("{} /s", digits(value)),
        Unit::Percent => format!("{value:.0} %"),
        Unit::Bytes => format!("{} KiB", digits(value / 1024.0)),
        Unit::Count => format!("{value:.0}"),
    }
}

fn digits(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

/// One round on one line, for the log.
pub(crate) fn show_all(metrics: &[Metric], values: &[f64]) -> String {
    let pairs = metrics.iter().zip(values);
    let shown: Vec<_> = pairs
        .map(|(metric, value)| format!("{} {}", metric.name, show(metric.unit, *value)))
        .collect();
    shown.join(", ")
}

pub(crate) fn publish<B: Bench>(facts: &[(&str, String)], rows: &[Row<B>]) {
    for (name, value) in facts {
        println!("- {name}: {value}");
    }
    let mut head = vec!["job".to_owned(), "what".to_owned()];
    head.extend(B::KINDS.iter().map(|kind| kind.name().to_owned()));
    let mut lines = vec![head];
    lines.extend(rows.iter().map(Row::cells));
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..lines[0].len()).map(width).collect();
    lines.insert(1, widths.iter().map(|width| "-".repeat(*width)).collect());
    println!();
    for line in &lines {
        let cells = line.iter().zip(&widths).map(|(cell, width)| {
            let fill = " ".repeat(width - cell.chars().count());
            format!(" {cell}{fill} |")
        });
        println!("|{}", cells.collect::<String>());
    }
    println!(
        "\nThe median of the rounds, the worst one for faults; in brackets the ratio to stanchion."
    );
}
