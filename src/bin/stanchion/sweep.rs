//! `stanchion sweep`.

use stanchion::LockDir;

use crate::exit::{Answer, Ended, OWN, print, say};
use crate::lock::existing;
use crate::options::Sweep;
use crate::text::plain;

pub(crate) fn sweep(options: &Sweep) -> Answer {
    // Checked first, because `LockDir::open` creates the directory.
    existing(&options.directory)?;
    let swept = LockDir::open(&options.directory)?.sweep(options.older_than)?;
    let lists = [
        ("removed", &swept.removed),
        ("in use", &swept.in_use),
        ("recent", &swept.recent),
    ];
    let lines = lists.iter().flat_map(|(word, locks)| {
        let lines = locks.iter().map(|it| it.to_string_lossy());
        lines.map(move |it| format!("{word}: {}\n", plain(&it)))
    });
    print(lines.collect::<String>())?;
    swept.failed.iter().for_each(say);
    match swept.failed.is_empty() {
        true => Ok(Ended::WELL),
        false => Ok(Ended::Code(OWN)),
    }
}
