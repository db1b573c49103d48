//! Foreign text for a terminal: without control characters, and cut to the available width.

use std::str::Chars;

/// Replaces the control characters of a foreign text: a label may contain any bytes.
pub(crate) fn plain(text: &str) -> String {
    let harmless = |it: char| if it.is_control() { '\u{fffd}' } else { it };
    text.chars().map(harmless).collect()
}

/// Cuts a text to this many columns, and replaces its control characters. A text that was cut ends
/// with `…`, so that a cut number is not read as a whole one.
pub(crate) fn cut(text: &str, columns: usize) -> String {
    let text = plain(text);
    if columns == 0 || fits_into(text.chars(), columns) {
        return text.chars().take_while(fit_into(columns)).collect();
    }
    let start = text.chars().take_while(fit_into(columns - 1));
    start.chain(std::iter::once('…')).collect()
}

/// The same for a text whose end matters more than its beginning, such as a path: cuts its
/// beginning.
pub(crate) fn cut_front(text: &str, columns: usize) -> String {
    let text = plain(text);
    if fits_into(text.chars(), columns) {
        return text;
    }
    let end: Vec<_> = text
        .chars()
        .rev()
        .take_while(fit_into(columns.saturating_sub(1)))
        .collect();
    std::iter::once('…').chain(end.into_iter().rev()).collect()
}

fn fits_into(mut text: Chars<'_>, columns: usize) -> bool {
    let mut fits = fit_into(columns);
    text.all(|it| fits(&it))
}

fn fit_into(columns: usize) -> impl FnMut(&char) -> bool {
    let mut left = columns;
    move |it| {
        // An approximation: from here on, characters are two columns wide.
        let width = if u32::from(*it) < 0x1100 { 1 } else { 2 };
        let fits = width <= left;
        left = left.saturating_sub(width);
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_fits_and_obeys_nobody() {
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdef", 4), "abc…");
        assert_eq!(cut("日本語", 5), "日本…");
        assert_eq!(cut("日本語", 4), "日…");
        assert_eq!(cut("abcdef", 0), "");
        assert_eq!(cut("a\x1b[2Jb", 80), "a\u{fffd}[2Jb");
        assert_eq!(cut_front("/srv/it.lock", 12), "/srv/it.lock");
        assert_eq!(cut_front("/srv/it.lock", 8), "…it.lock");
        assert_eq!(cut_front("/日本", 4), "…本");
    }
}
