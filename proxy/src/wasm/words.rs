//! What modules and guests say of themselves, made fit for logs and terminals: as long as is worth reading, and without
//! control characters.

use std::fmt;

/// The beginning of a text of one line, such as a name: control characters are escaped.
pub fn tame(text: &str, bytes_max: usize) -> String {
    escaped(text, bytes_max, char::is_control)
}

/// The beginning of a text of several lines.
pub fn tame_lines(text: &str, bytes_max: usize) -> String {
    escaped(text, bytes_max, |c| c.is_control() && c != '\n')
}

fn escaped(text: &str, bytes_max: usize, is_escaped: impl Fn(char) -> bool) -> String {
    let cut = &text[..text.floor_char_boundary(bytes_max)];
    let mut tamed = String::with_capacity(cut.len());
    for c in cut.chars() {
        if is_escaped(c) {
            tamed.extend(c.escape_default());
        } else {
            tamed.push(c);
        }
    }
    if cut.len() < text.len() {
        tamed.push('…');
    }
    tamed
}

/// [`tame_lines`] of what is not text yet, which is never made whole.
pub(super) fn tamed(what: &dyn fmt::Display, bytes_max: usize) -> String {
    struct Cut {
        text: String,
        bytes_max: usize,
    }
    impl fmt::Write for Cut {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            let room = self.bytes_max + 1 - self.text.len().min(self.bytes_max + 1);
            let end = text.floor_char_boundary(room);
            self.text.push_str(&text[..end]);
            // An error ends the formatting.
            if end < text.len() {
                Err(fmt::Error)
            } else {
                Ok(())
            }
        }
    }
    // More than is shown tells that there was more; a character that begins there may be larger than a byte.
    let mut cut = Cut {
        text: String::new(),
        bytes_max: bytes_max + 3,
    };
    let _ = fmt::Write::write_fmt(&mut cut, format_args!("{what}"));
    tame_lines(&cut.text, bytes_max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(tame("whole", 5), "whole");
        assert_eq!(tamed(&"whole", 5), "whole");
        assert_eq!(tamed(&"écoute", 1), "…");
        assert_eq!(tamed(&format_args!("{}{}", "ab", "cdefghijk"), 4), "abcd…");
        assert_eq!(tamed(&format_args!("{}{}", "ab", "𝄞𝄞"), 4), "ab…");
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(tame("a\u{1b}[31m\nb", 99), "a\\u{1b}[31m\\nb");
        assert_eq!(tame_lines("a\u{1b}[31m\nb", 99), "a\\u{1b}[31m\nb");
    }
}
