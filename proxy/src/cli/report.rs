//! How verbs tell what is wrong with a configuration.

use std::io::{self, IsTerminal, Write};

use crate::config::{Diagnostic, Rejected, Sources, render};

/// Exit codes that verbs share.
pub const FAILED: u8 = 1;
pub const USAGE: u8 = 2;
pub const CONFIG: u8 = 78;

/// The exit code for a configuration that is invalid (`EX_CONFIG`): no restart mends it.
pub const EXIT_CONFIG: u8 = 78;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// A list of objects.
    Json,
    /// Annotations for GitHub's reviews.
    Github,
}

/// Writes the diagnostics; nothing when there are none, except the empty list of JSON.
pub fn print(
    out: &mut dyn Write,
    sources: &Sources,
    diagnostics: &[Diagnostic],
    format: Format,
    colour: render::Colour,
) -> io::Result<()> {
    match format {
        Format::Text if diagnostics.is_empty() => Ok(()),
        Format::Text => out.write_all(render::text(sources, diagnostics, colour).as_bytes()),
        Format::Json => writeln!(out, "{:#}", render::json(sources, diagnostics)),
        Format::Github => out.write_all(render::github(sources, diagnostics).as_bytes()),
    }
}

/// Tells on standard error why a configuration was rejected. Answers the exit code.
pub fn rejected(rejected: &Rejected) -> u8 {
    let mut err = io::stderr().lock();
    let colour = colour(&err);
    // Nobody is left to tell when standard error is gone.
    let _ = print(
        &mut err,
        &rejected.sources,
        &rejected.diagnostics,
        Format::Text,
        colour,
    );
    EXIT_CONFIG
}

/// The name of a configuration that is made of arguments.
pub const COMMAND_LINE: &str = "<command line>";

/// Diagnostics on standard error, for people.
pub fn diagnostics(sources: &Sources, diagnostics: &[Diagnostic]) {
    let mut diagnostics = diagnostics.to_vec();
    for found in &mut diagnostics {
        // Nobody wrote that text: the message and its help must do.
        if found
            .at
            .is_some_and(|at| sources.file_name(at.file) == COMMAND_LINE)
        {
            found.at = None;
            found.labels.clear();
            if let Some(flag) = flag(&found.path.0) {
                found.message = format!("{flag}: {}", found.message);
            }
        }
    }
    let diagnostics = &diagnostics;
    let mut err = io::stderr().lock();
    let colour = colour(&err);
    // Nobody is left to tell when standard error is gone.
    let _ = print(&mut err, sources, diagnostics, Format::Text, colour);
}

/// The flag of `sluicegate proxy` that stands for this part of the configuration it makes.
fn flag(path: &str) -> Option<&'static str> {
    const FLAGS: [(&str, &str); 4] = [
        ("/pools/to/endpoints", "--to"),
        ("/pools/to/balance", "--balance"),
        ("/listeners/0/bind", "--listen"),
        ("/listeners/0/filters", "--filter"),
    ];
    let of = |(begin, _): &&(&str, &str)| path.starts_with(begin);
    FLAGS.iter().find(of).map(|(_, flag)| *flag)
}

/// `1 pool`, `2 pools`.
pub fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// Says what went wrong on standard error.
pub fn error(message: std::fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "error: {message}");
}

/// The exit code of a verb that either did its work or says why not.
pub fn finish(outcome: anyhow::Result<()>) -> u8 {
    match outcome {
        Ok(()) => 0,
        Err(error) => fail(format_args!("{error:#}")),
    }
}

/// The exit code of something that failed at run time, which is told.
pub fn fail(message: std::fmt::Arguments<'_>) -> u8 {
    error(message);
    FAILED
}

/// The exit code of a verb whose output was written, or could not be, which is told.
pub fn written(outcome: io::Result<()>) -> u8 {
    match outcome {
        Ok(()) => 0,
        Err(error) => fail(format_args!("cannot write: {}", crate::error::why(&error))),
    }
}

/// The exit code of a command line that makes no sense, which is told.
pub fn usage(message: std::fmt::Arguments<'_>) -> u8 {
    error(message);
    USAGE
}

/// Colour on a terminal, unless `NO_COLOR` is set to something.
pub fn colour(stream: &impl IsTerminal) -> render::Colour {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if stream.is_terminal() && !refused {
        render::Colour::Always
    } else {
        render::Colour::Never
    }
}
