//! Text cut to a length in bytes, never within a character.

use alloc::{borrow::ToOwned, format, string::String};

/// As much of `text` as fits in `max` bytes, in whole characters.
pub(crate) fn cut(text: &str, max: usize) -> &str {
    let end = (0..=max.min(text.len()))
        .rev()
        .find(|end| text.is_char_boundary(*end));
    end.and_then(|end| text.get(..end)).unwrap_or_default()
}

/// `text`, or its first `max` bytes and an ellipsis.
pub fn shorten(text: &str, max: usize) -> String {
    match cut(text, max) {
        whole if whole.len() == text.len() => whole.to_owned(),
        short => format!("{short}…"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_too_long_is_cut_and_in_whole_characters() {
        assert_eq!(shorten("größe", 7), "größe");
        assert_eq!(shorten("größe", 6), "größ…");
        assert_eq!(shorten("größe", 3), "gr…");
        assert_eq!(shorten("x", 0), "…");
    }
}
