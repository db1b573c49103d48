//! The hand-over between processes as a picture: a bar from zero to the median, and a line to the
//! 99th percentile. The scale is logarithmic, because a backoff is ten times as slow as a wake-up.

use std::fmt::Write;

/// One bar, in nanoseconds.
pub(crate) struct Bar {
    pub(crate) name: &'static str,
    pub(crate) median: f64,
    pub(crate) late: f64,
    /// Whether this is Stanchion's bar.
    pub(crate) ours: bool,
}

const WIDTH: f64 = 720.0;
const LEFT: f64 = 130.0;
const RIGHT: f64 = 70.0;
const STEP: f64 = 38.0;
const TOP: f64 = 52.0;

/// The picture, readable on light and dark pages.
pub(crate) fn svg(bars: &[Bar], caption: &str) -> String {
    let lowest = 10_000_f64;
    let highest = bars.iter().map(|bar| bar.late).fold(100_000.0, f64::max) * 1.5;
    let span = (highest / lowest).log10();
    let x = |ns: f64| LEFT + (ns.max(lowest) / lowest).log10() / span * (WIDTH - LEFT - RIGHT);
    let foot = TOP + STEP * bars.len() as f64;
    let height = foot + 48.0;
    let mut text = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" font-family="system-ui, sans-serif" font-size="13">
<style>text {{ fill: #24292f }} .quiet {{ fill: #57606a }} .grid {{ stroke: #d0d7de }} .ours {{ fill: #0969da }} .peer {{ fill: #8c959f }} .late {{ stroke: #57606a }}
@media (prefers-color-scheme: dark) {{ text {{ fill: #e6edf3 }} .quiet {{ fill: #9198a1 }} .grid {{ stroke: #30363d }} .ours {{ fill: #4493f8 }} .peer {{ fill: #656c76 }} .late {{ stroke: #9198a1 }} }}</style>
<text x="{LEFT}" y="20" font-weight="600">From a release until the task of the next process holds</text>
<text x="{LEFT}" y="38" class="quiet">bar: median, line: 99th percentile; logarithmic</text>
"##
    );
    for (at, label) in [
        (10_000.0, "10 µs"),
        (100_000.0, "100 µs"),
        (1_000_000.0, "1 ms"),
        (10_000_000.0, "10 ms"),
    ] {
        if at <= highest {
            let x = x(at);
            let _ = writeln!(
                text,
                r#"<line x1="{x:.1}" x2="{x:.1}" y1="{TOP}" y2="{foot}" class="grid"/><text x="{x:.1}" y="{:.1}" text-anchor="middle" class="quiet">{label}</text>"#,
                foot + 16.0
            );
        }
    }
    for (index, bar) in bars.iter().enumerate() {
        let y = TOP + STEP * index as f64;
        let middle = y + STEP / 2.0;
        let (median, late) = (x(bar.median), x(bar.late));
        let class = if bar.ours { "ours" } else { "peer" };
        let _ = writeln!(
            text,
            r#"<text x="{:.1}" y="{:.1}" text-anchor="end">{}</text><rect x="{LEFT}" y="{:.1}" width="{:.1}" height="{:.1}" rx="2" class="{class}"/><line x1="{median:.1}" x2="{late:.1}" y1="{middle:.1}" y2="{middle:.1}" class="late" stroke-width="2"/><text x="{:.1}" y="{:.1}" class="quiet">{:.0} µs</text>"#,
            LEFT - 10.0,
            middle + 4.0,
            bar.name,
            y + 8.0,
            median - LEFT,
            STEP - 16.0,
            late + 8.0,
            middle + 4.0,
            bar.median / 1000.0
        );
    }
    let _ = writeln!(
        text,
        r#"<text x="{LEFT}" y="{:.1}" class="quiet" font-size="11">{caption}</text>
</svg>"#,
        foot + 38.0
    );
    text
}
