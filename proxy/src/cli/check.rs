//! `sluicegate check`: everything a start would do short of opening sockets.

use super::config::SourceArgs;
use super::output;
use super::report::{self, CONFIG, Format};
use super::surroundings;
use crate::config::{ModuleSource, quoted, render};
use crate::error::why;
use crate::generation::{Generation, Member};
use std::io::{self, Write};

#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    #[command(flatten)]
    sources: SourceArgs,
    /// How to print what was found
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

pub fn run(args: CheckArgs) -> u8 {
    let inputs = match args.sources.inputs() {
        Ok(inputs) => inputs,
        Err(error) => {
            return report::fail(format_args!("cannot read standard input: {}", why(&error)));
        }
    };
    let mut builder = match surroundings::builder(inputs) {
        Ok(builder) => builder,
        Err(error) => {
            return report::fail(format_args!(
                "cannot tell the working directory: {}",
                why(&error)
            ));
        }
    };
    let (sources, found, built) = match builder.build(None) {
        Ok(build) => (build.sources, build.warnings, Some(build.generation)),
        Err(error) => (error.sources, error.diagnostics, None),
    };
    let outcome = if args.output == Format::Text {
        report::diagnostics(&sources, &found);
        match &built {
            Some(generation) => summary(generation, &mut output::stdout()),
            None => Ok(()),
        }
    } else {
        let colour = render::Colour::Never;
        report::print(&mut output::stdout(), &sources, &found, args.output, colour)
    };
    match (report::written(outcome), built) {
        (0, None) => CONFIG,
        (code, _) => code,
    }
}

/// The modules, as pins are made of, and how much there is of everything.
fn summary(generation: &Generation, out: &mut impl Write) -> io::Result<()> {
    for member in &generation.members {
        let (kind, config, digest) = match member {
            Member::Filter(used) => {
                let filter = &used.filter;
                ("filter", filter.config(), filter.module().digest_hex())
            }
            Member::Middleware(middleware) => {
                let digest = middleware.handler().digest_hex();
                ("middleware", middleware.config(), digest)
            }
        };
        // The builtin ones are the program's.
        if let ModuleSource::File(path) = &config.module {
            let (name, path) = (quoted(&config.name), path.display());
            writeln!(out, "{kind} {name}: {path} sha256 {digest}")?;
        }
    }
    let config = &generation.config;
    writeln!(
        out,
        "the configuration is good: {}, {}, {}",
        report::count(config.listeners.len(), "listener"),
        report::count(config.filters.len(), "filter"),
        report::count(config.pools.len(), "pool"),
    )
}
