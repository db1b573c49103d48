//! The table, on the terminal, as Markdown and as JSON.

use std::fmt::Write;
use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::clock::median;
use crate::plan::{Metric, Pick, Target, Unit};
use crate::plot::{self, Bar};
use crate::subject::Kind;

/// One line of the table, filled round by round.
pub(crate) struct Row {
    job: &'static str,
    ours: Kind,
    metric: Metric,
    values: Vec<(Kind, f64)>,
}

impl Row {
    pub(crate) fn new(job: &'static str, ours: Kind, metric: Metric) -> Self {
        let values = Vec::new();
        Self {
            job,
            ours,
            metric,
            values,
        }
    }

    pub(crate) fn add(&mut self, kind: Kind, value: f64) {
        if !value.is_nan() {
            self.values.push((kind, value));
        }
    }

    fn rounds(&self, kind: Kind) -> Vec<f64> {
        let mine = self.values.iter().filter(|(other, _)| *other == kind);
        mine.map(|(_, value)| *value).collect()
    }

    /// Returns the figure of a subject.
    fn value(&self, kind: Kind) -> Option<f64> {
        let rounds = self.rounds(kind);
        match self.metric.pick {
            Pick::Median => median(&rounds),
            Pick::Worst => rounds.into_iter().max_by(f64::total_cmp),
        }
    }

    fn ratio(&self) -> Option<f64> {
        let peer = self.value(self.metric.peer?)?;
        let ratio = self.value(self.ours)? / peer;
        ratio.is_finite().then_some(ratio)
    }

    /// Returns whether the target is reached; `None` if there is no target or no value to compare.
    fn met(&self) -> Option<bool> {
        let value = self.value(self.ours)?;
        match self.metric.target {
            Target::None => None,
            Target::AtMost(most) => Some(value <= most),
            Target::Zero => Some(value < 0.05),
            Target::AtMostTimesPeer(most) => Some(self.ratio()? <= most),
            Target::AtLeastTimesPeer(least) => Some(self.ratio()? >= least),
        }
    }

    fn target(&self) -> String {
        let unit = self.metric.unit;
        let peer = self.metric.peer.map_or("", Kind::name);
        match self.metric.target {
            Target::None => String::new(),
            Target::AtMost(most) => format!("≤ {}", show(unit, most)),
            Target::Zero => "0.0 %".to_owned(),
            Target::AtMostTimesPeer(most) => format!("≤ {most:.1} × {peer}"),
            Target::AtLeastTimesPeer(least) => format!("≥ {least:.1} × {peer}"),
        }
    }

    fn cells(&self, kinds: &[Kind]) -> Vec<String> {
        let shown = |kind| self.value(kind).map(|value| show(self.metric.unit, value));
        let mut cells = vec![self.job.to_owned(), self.metric.name.to_owned()];
        let kinds = kinds.iter().copied();
        cells.extend(kinds.map(|kind| shown(kind).unwrap_or_else(|| "–".to_owned())));
        let peer = self.metric.peer.map_or("", Kind::name);
        cells.push(
            self.ratio()
                .map_or_else(String::new, |ratio| format!("{ratio:.2} × {peer}")),
        );
        cells.push(self.target());
        let met = self.met().map(|met| if met { "yes" } else { "NO" });
        cells.push(met.unwrap_or("").to_owned());
        cells
    }

    fn json(&self) -> String {
        let subjects = Kind::ALL.into_iter().filter_map(|kind| {
            let rounds = self.rounds(kind);
            let value = self.value(kind)?;
            let name = kind.name();
            Some(format!(
                r#""{name}": {{"value": {value}, "rounds": {rounds:?}}}"#
            ))
        });
        let subjects: Vec<_> = subjects.collect();
        let or_null = |text: Option<String>| text.unwrap_or_else(|| "null".to_owned());
        format!(
            r#"{{"job": {}, "what": {}, "unit": {}, "subjects": {{{}}}, "peer": {}, "ratio": {}, "target": {}, "met": {}}}"#,
            quote(self.job),
            quote(self.metric.name),
            quote(&format!("{:?}", self.metric.unit)),
            subjects.join(", "),
            or_null(self.metric.peer.map(|peer| quote(peer.name()))),
            or_null(self.ratio().map(|ratio| ratio.to_string())),
            quote(&self.target()),
            or_null(self.met().map(|met| met.to_string())),
        )
    }
}

/// Formats a number.
fn show(unit: Unit, value: f64) -> String {
    match unit {
        Unit::Nanoseconds if value >= 10_000_000.0 => format!("{} ms", digits(value / 1e6)),
        Unit::Nanoseconds if value >= 1_000.0 => format!("{} µs", digits(value / 1e3)),
        Unit::Nanoseconds => format!("{value:.0} ns"),
        Unit::PerSecond => format!("{} /s", digits(value)),
        Unit::Count => format!("{value:.0}"),
        Unit::Bytes => format!("{value:.0} B"),
        Unit::Percent if value > 0.0 && value < 0.05 => format!("{value:.3} %"),
        Unit::Percent => format!("{value:.1} %"),
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
    let pairs = metrics.iter().zip(values).filter(|(_, v)| !v.is_nan());
    let shown: Vec<_> = pairs
        .map(|(metric, value)| format!("{} {}", metric.name, show(metric.unit, *value)))
        .collect();
    shown.join(", ")
}

/// Prints the table, and writes `bench/peers.md`, `bench/peers.json` and `bench/handover.svg` in
/// the target directory.
pub(crate) fn publish(rows: &[Row], quick: bool, load: &str) -> io::Result<()> {
    let facts = facts(quick, load);
    let table = tables(rows);
    println!("{table}");
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench");
    std::fs::create_dir_all(&directory)?;
    std::fs::write(directory.join("peers.md"), markdown(&facts, &table))?;
    std::fs::write(directory.join("peers.json"), json(&facts, rows))?;
    if let Some(picture) = picture(&facts, rows) {
        std::fs::write(directory.join("handover.svg"), picture)?;
    }
    eprintln!("written to {}", directory.join("peers.{md,json}").display());
    Ok(())
}

/// The hand-over between processes, if it was measured.
fn picture(facts: &[(&str, String)], rows: &[Row]) -> Option<String> {
    let mut handover = rows.iter().filter(|row| row.job == "handover");
    let (median, late) = (handover.next()?, handover.next()?);
    let bars = Kind::FILES.into_iter().filter_map(|kind| {
        Some(Bar {
            name: kind.name(),
            median: median.value(kind)?,
            late: late.value(kind)?,
            ours: kind == Kind::Stanchion,
        })
    });
    let fact = |wanted| facts.iter().find(|(name, _)| *name == wanted);
    let fact = |wanted| fact(wanted).map_or("", |(_, value)| value);
    let caption = format!(
        "{}, Linux {}, {} cores, {}",
        fact("date"),
        fact("kernel"),
        fact("cores"),
        fact("command")
    );
    Some(plot::svg(&bars.collect::<Vec<_>>(), &caption))
}

/// The fair lock and the plain one, each beside its peers.
fn tables(rows: &[Row]) -> String {
    let of = |kinds: &'static [Kind]| {
        let rows = rows.iter().filter(|row| kinds.contains(&row.ours));
        (rows.collect::<Vec<_>>(), kinds)
    };
    let tables = [
        of(&Kind::FAIR),
        of(&Kind::FLOOR),
        of(&Kind::SHARED),
        of(&Kind::PLAIN),
    ];
    let tables = tables.iter().filter(|(rows, _)| !rows.is_empty());
    let tables: Vec<_> = tables.map(|(rows, kinds)| table(rows, kinds)).collect();
    tables.join("\n")
}

fn table(rows: &[&Row], kinds: &[Kind]) -> String {
    let mut head = vec!["job", "what"];
    head.extend(kinds.iter().map(|kind| kind.name()));
    head.extend(["ratio", "target", "met"]);
    let mut lines = vec![head.iter().map(|word| word.to_string()).collect()];
    lines.extend(rows.iter().map(|row| row.cells(kinds)));
    let width = |column: usize| {
        let cells = lines
            .iter()
            .filter_map(|line: &Vec<String>| line.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..head.len()).map(width).collect();
    let rule = widths.iter().map(|width| "-".repeat(*width)).collect();
    lines.insert(1, rule);
    let mut text = String::new();
    for line in &lines {
        text.push('|');
        for (cell, width) in line.iter().zip(&widths) {
            let fill = width - cell.chars().count();
            text.extend([" ", cell, &" ".repeat(fill), " |"]);
        }
        text.push('\n');
    }
    text
}

/// When, where and how it was measured.
fn facts(quick: bool, load: &str) -> Vec<(&'static str, String)> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|l| l.strip_prefix("model name"));
    let model = model
        .unwrap_or("unknown")
        .trim_start_matches([' ', '\t', ':']);
    let arguments: Vec<_> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    let command = format!("cargo bench --bench peers -- {}", arguments.join(" "));
    let command = command.trim_end_matches([' ', '-']);
    vec![
        ("date", date()),
        (
            "kernel",
            read("/proc/sys/kernel/osrelease").trim().to_owned(),
        ),
        ("cores", format!("{cores}")),
        ("processor", model.to_owned()),
        (
            "load before and after",
            format!("{load} and {}", self::load()),
        ),
        ("command", command.to_owned()),
        ("samples", if quick { "few" } else { "all" }.to_owned()),
    ]
}

/// The load of the last minute.
pub(crate) fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

fn markdown(facts: &[(&str, String)], table: &str) -> String {
    let mut text = "# Stanchion and its peers\n\n".to_owned();
    for (name, value) in facts {
        let _ = writeln!(text, "- {name}: {value}");
    }
    let note = "Each figure is the median of its rounds, those of faults and order the worst; the subjects took turns, \
        round by round. A target of 0.0 % is met below 0.05 %. What is measured, how, and what it does not say: the head of `benches/peers/main.rs`.";
    let _ = write!(text, "\n{table}\n{note}\n");
    text
}

fn json(facts: &[(&str, String)], rows: &[Row]) -> String {
    let facts: Vec<_> = facts
        .iter()
        .map(|(name, value)| format!("  {}: {}", quote(name), quote(value)))
        .collect();
    let rows: Vec<_> = rows
        .iter()
        .map(|row| format!("    {}", row.json()))
        .collect();
    let (facts, rows) = (facts.join(",\n"), rows.join(",\n"));
    format!("{{\n{facts},\n  \"rows\": [\n{rows}\n  ]\n}}\n")
}

fn quote(text: &str) -> String {
    let mut quoted = String::from('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            letter if letter.is_control() => quoted.push(' '),
            letter => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}

/// Today, in UTC, as `2031-05-17 09:30 UTC`.
fn date() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let seconds = since.map_or(0, |since| since.as_secs());
    let (days, minutes) = (seconds / 86_400, seconds / 60 % 1_440);
    // Counts in eras of 400 years from 1 March of the year 0, so that leap days come last in their
    // years.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let march = (5 * of_year + 2) / 153;
    let date = of_year - (153 * march + 2) / 5 + 1;
    let month = if march < 10 { march + 3 } else { march - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute) = (minutes / 60, minutes % 60);
    format!("{year}-{month:02}-{date:02} {hour:02}:{minute:02} UTC")
}
