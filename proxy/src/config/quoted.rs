//! What users wrote, in messages.

/// A name or a value inside a message: in double quotes, without control characters, at most 80 characters. Keys, and
/// what may be written, stand in backticks instead; a suggestion stands in the quotes of what it is to replace.
pub fn quoted(text: &str) -> String {
    between('"', text)
}

/// A key inside a message: in backticks, else as [`quoted`].
pub(super) fn ticked(text: &str) -> String {
    between('`', text)
}

fn between(quote: char, text: &str) -> String {
    let mut out = String::from(quote);
    for (i, c) in text.chars().enumerate() {
        if i == 80 {
            out.push('…');
            break;
        }
        match c {
            '\n' => out.push_str("\\n"),
            c if c.is_control() => out.push_str(&c.escape_default().to_string()),
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}
