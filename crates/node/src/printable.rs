//! Text that may come from a peer, in a form that a terminal only shows.
//!
//! A terminal acts on control characters: they clear it, move its cursor, change its title or write
//! to the clipboard. A line feed in a field begins what looks like another record. Characters that
//! set the direction of text (Unicode Standard Annex #9) make a text read as another one.

use std::fmt::{self, Write as _};

/// Returns `true` for control characters (C0, DEL and C1), for line and paragraph separators, and for
/// characters that set the direction of text.
fn is_escaped(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}'
        )
}

/// Writes `text` with each character that `is_escaped` names as `escape` writes it.
fn write_escaped(
    to: &mut dyn fmt::Write,
    text: &str,
    is_escaped: impl Fn(char) -> bool,
    escape: impl Fn(&mut dyn fmt::Write, char) -> fmt::Result,
) -> fmt::Result {
    let mut rest = text;
    while let Some(at) = rest.find(&is_escaped) {
        to.write_str(&rest[..at])?;
        let mut characters = rest[at..].chars();
        if let Some(character) = characters.next() {
            escape(to, character)?;
        }
        rest = characters.as_str();
    }
    to.write_str(rest)
}

fn in_braces(to: &mut dyn fmt::Write, character: char) -> fmt::Result {
    write!(to, "{}", character.escape_unicode())
}

/// A writer that replaces control characters, line feeds among them, by `\u{..}`.
pub(crate) struct Escaping<'a>(pub(crate) &'a mut dyn fmt::Write);

impl fmt::Write for Escaping<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        write_escaped(self.0, text, is_escaped, in_braces)
    }
}

/// Displays a value on one line, with control characters replaced by `\u{..}`.
pub(crate) struct Printable<T>(pub(crate) T);

impl<T: fmt::Display> fmt::Display for Printable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{}", self.0)
    }
}

/// Displays a value whose line feeds are its own, with all other control characters replaced by
/// `\u{..}`. Its fields that may come from a peer are [`Printable`].
pub(crate) struct PrintableLines<T>(pub(crate) T);

impl<T: fmt::Display> fmt::Display for PrintableLines<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        let is_escaped = |character| character != '\n' && is_escaped(character);
        write_escaped(f, &text, is_escaped, in_braces)
    }
}

/// One line of JSON that a terminal shows as it is. JSON itself escapes C0 alone. The characters
/// occur in strings alone, where `\uXXXX` stands for the same character.
pub(crate) fn json(line: Vec<u8>) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(&line) else {
        return line;
    };
    let is_escaped = |character| character != '\n' && is_escaped(character);
    if !text.contains(is_escaped) {
        return line;
    }
    let mut escaped = String::with_capacity(line.len() + 16);
    // All of these characters are below U+10000. Writing to a string does not fail.
    let _ = write_escaped(&mut escaped, text, is_escaped, |to, character| {
        write!(to, "\\u{:04x}", u32::from(character))
    });
    escaped.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_a_terminal_acts_on_are_escaped() {
        for character in (0..=0x1f).chain(0x7f..=0x9f).chain([
            0x61c, 0x200e, 0x200f, 0x2028, 0x2029, 0x202a, 0x202e, 0x2066, 0x2069,
        ]) {
            let text = format!("a{}b", char::from_u32(character).unwrap());
            assert_eq!(
                Printable(&text).to_string(),
                format!("a\\u{{{character:x}}}b")
            );
            let line = serde_json::to_vec(&text).unwrap();
            let line = json(line);
            assert!(!String::from_utf8_lossy(&line).contains(is_escaped));
            assert_eq!(serde_json::from_slice::<String>(&line).unwrap(), text);
        }
        let text = "ab \u{e4}\u{4e2d}\u{1f980}\\\"";
        assert_eq!(Printable(text).to_string(), text);
        assert_eq!(PrintableLines("a\n\u{1b}b").to_string(), "a\n\\u{1b}b");
    }
}
