//! The fields of a log line in text: behind the first line of the message, so that a message of several lines (the
//! mistakes of a configuration, a backtrace) does not carry them at its far end.

use std::fmt::{self, Write};

use tracing::field::{Field, Visit};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;

pub(super) struct AfterFirstLine;

impl<'writer> FormatFields<'writer> for AfterFirstLine {
    fn format_fields<R: RecordFields>(
        &self,
        mut writer: Writer<'writer>,
        fields: R,
    ) -> fmt::Result {
        let mut seen = Seen {
            message: String::new(),
            fields: String::new(),
            colour: writer.has_ansi_escapes(),
        };
        fields.record(&mut seen);
        let (first, rest) = match seen.message.split_once('\n') {
            Some((first, rest)) => (first, Some(rest)),
            None => (seen.message.as_str(), None),
        };
        writer.write_str(first)?;
        let gap = if first.is_empty() { 1 } else { 0 };
        writer.write_str(seen.fields.get(gap..).unwrap_or_default())?;
        match rest {
            Some(rest) => write!(writer, "\n{rest}"),
            None => Ok(()),
        }
    }
}

struct Seen {
    message: String,
    /// Each after a space.
    fields: String,
    colour: bool,
}

impl Visit for Seen {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.record_debug(field, &format_args!("{value}"));
        } else {
            self.record_debug(field, &value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        // Writing to a string does not fail.
        let _ = match (field.name(), self.colour) {
            ("message", _) => self.message.write_str(&tame(&text)),
            (name, false) => write!(self.fields, " {name}={}", tame(&text)),
            (name, true) => write!(
                self.fields,
                " \x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m{}",
                tame(&text)
            ),
        };
    }
}

/// Without escape sequences: the line may hold the formatter's own, which are let through.
fn tame(text: &str) -> std::borrow::Cow<'_, str> {
    match text.contains('\x1b') {
        true => text.replace('\x1b', "\\x1b").into(),
        false => text.into(),
    }
}
