//! Diagnostics as text for people, as JSON for programs, and as annotations for code reviews.

use std::fmt::Write;

use annotate_snippets::{
    AnnotationKind, Group, Level, Origin, Renderer, Snippet, normalize_untrusted_str,
};
use serde_json::json;

use super::diagnostic::{Diagnostic, Severity};
use super::node::Location;
use super::source::Sources;

/// Longest part of a line that is shown; a line that is longer is cut around the caret.
const LINE_MAX: usize = 16 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    Never,
    Always,
}

/// The look of rustc: a title, the line with a caret, help. Diagnostics come out in the order they have, which puts
/// errors last, next to the prompt.
pub fn text(sources: &Sources, diagnostics: &[Diagnostic], colour: Colour) -> String {
    let renderer = match colour {
        Colour::Never => Renderer::plain(),
        Colour::Always => Renderer::styled(),
    };
    let mut out = String::new();
    for diagnostic in diagnostics {
        out.push_str(&one(sources, diagnostic, &renderer));
        out.push_str("\n\n");
    }
    let _ = writeln!(out, "{}", summary(diagnostics));
    out
}

/// `2 errors, 1 warning`.
pub fn summary(diagnostics: &[Diagnostic]) -> String {
    let errors = diagnostics
        .iter()
        .filter(|d| d.severity == Severity::Error)
        .count();
    let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    match (errors, diagnostics.len() - errors) {
        (0, warnings) => count(warnings, "warning"),
        (errors, 0) => count(errors, "error"),
        (errors, warnings) => format!("{}, {}", count(errors, "error"), count(warnings, "warning")),
    }
}

/// A JSON list: severity, file, line, column, end, code, path, message, help.
pub fn json(sources: &Sources, diagnostics: &[Diagnostic]) -> serde_json::Value {
    diagnostics
        .iter()
        .map(|d| {
            json!({
                "severity": word(d.severity),
                "file": d.at.map(|at| sources.file_name(at.file)),
                "line": d.at.map(|at| at.line),
                "column": d.at.map(|at| at.column),
                "end": d.at.map(|at| json!({"line": at.end_line, "column": at.end_column})),
                "code": d.code,
                "path": d.path.0,
                "message": d.message,
                "help": d.help,
            })
        })
        .collect()
}

/// Workflow commands that GitHub shows beside the lines of a pull request.
pub fn github(sources: &Sources, diagnostics: &[Diagnostic]) -> String {
    let mut out = String::new();
    for d in diagnostics {
        let _ = write!(out, "::{} ", word(d.severity));
        if let Some(at) = d.at {
            let file = escape(sources.file_name(at.file))
                .replace(':', "%3A")
                .replace(',', "%2C");
            let _ = write!(out, "file={file},line={},col={},", at.line, at.column);
        }
        let help = d
            .help
            .as_deref()
            .map(|help| format!("\nhelp: {help}"))
            .unwrap_or_default();
        let _ = writeln!(
            out,
            "title={}::{}",
            d.code,
            escape(&format!("{}{help}", d.message))
        );
    }
    out
}

fn escape(text: &str) -> String {
    text.replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

fn one(sources: &Sources, diagnostic: &Diagnostic, renderer: &Renderer) -> String {
    let level = match diagnostic.severity {
        Severity::Warning => Level::WARNING,
        Severity::Error => Level::ERROR,
    };
    let title = level
        .primary_title(diagnostic.message.as_str())
        .id(diagnostic.code);
    let mut group = Group::with_title(title);
    let mut excerpts: Vec<Excerpt> = Vec::new();
    if let Some(at) = diagnostic.at {
        excerpts.push(Excerpt::new(sources, at));
        excerpts.extend(
            diagnostic
                .labels
                .iter()
                .map(|(at, _)| Excerpt::new(sources, *at)),
        );
    }
    for (i, excerpt) in excerpts.iter().enumerate() {
        let (kind, label) = match i.checked_sub(1).and_then(|i| diagnostic.labels.get(i)) {
            Some((_, label)) => (AnnotationKind::Context, Some(label.as_str())),
            None => (AnnotationKind::Primary, None),
        };
        let mut annotation = kind.span(excerpt.span.clone());
        if let Some(label) = label {
            annotation = annotation.label(label);
        }
        let mut snippet = Snippet::source(excerpt.line.as_str())
            .line_start(excerpt.number)
            .fold(false);
        match excerpt.cut_column {
            // The header of a cut line cannot be computed from what is shown.
            Some(column) => {
                let origin = Origin::path(excerpt.file.as_str())
                    .line(excerpt.number)
                    .char_column(column);
                group = group.element(origin);
            }
            None => snippet = snippet.path(excerpt.file.as_str()),
        }
        group = group.element(snippet.annotation(annotation));
    }
    let mut report = vec![group];
    if let Some(help) = &diagnostic.help {
        let help = help
            .lines()
            .map(normalize_untrusted_str)
            .collect::<Vec<_>>()
            .join("\n");
        report.push(Group::with_title(Level::HELP.secondary_title(help)));
    }
    // The help belongs to the finding: no blank rail between them.
    renderer.render(&report)
}

/// The one line a caret points into. Handing over the whole file would cost its length for every diagnostic.
/// What stands for a line that has a part of a private key.
const REDACTED: &str = "<redacted>";

struct Excerpt {
    file: String,
    line: String,
    number: usize,
    span: std::ops::Range<usize>,
    /// The true column, when only a part of the line is shown.
    cut_column: Option<usize>,
}

impl Excerpt {
    fn new(sources: &Sources, at: Location) -> Excerpt {
        let line = sources.line(at.file, at.line);
        if sources.has_key(at.file, at.line) {
            return Excerpt {
                file: sources.file_name(at.file).to_owned(),
                line: REDACTED.to_owned(),
                number: at.line as usize,
                span: 0..REDACTED.len(),
                cut_column: Some(at.column as usize),
            };
        }
        let byte = |column: u32| {
            let chars = (column as usize).saturating_sub(1);
            line.char_indices()
                .nth(chars)
                .map_or(line.len(), |(i, _)| i)
        };
        let start = byte(at.column);
        let end = if at.end_line > at.line {
            line.trim_end().len()
        } else {
            byte(at.end_column)
        };
        let (mut from, mut to) = (0, line.len());
        if line.len() > LINE_MAX {
            from = line.floor_char_boundary(start.saturating_sub(60));
            to = line.floor_char_boundary(from + LINE_MAX);
        }
        Excerpt {
            file: sources.file_name(at.file).to_owned(),
            line: line[from..to].to_owned(),
            number: at.line as usize,
            span: start - from..end.clamp(start, to) - from,
            cut_column: (line.len() > LINE_MAX).then_some(at.column as usize),
        }
    }
}
