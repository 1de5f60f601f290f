//! `sluicegate check`: everything a start would do short of opening sockets.

use super::report::{self, Output};
use super::{CONFIG, ConfigInputs};
use crate::config::{Severity, render};

#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    #[command(flatten)]
    inputs: ConfigInputs,
    /// How to print what was found
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub fn run(args: CheckArgs) -> u8 {
    let inputs = match args.inputs.resolve() {
        Ok(inputs) => inputs,
        Err(error) => return report::fail(format_args!("cannot read standard input: {error}")),
    };
    let mut builder = match super::builder(inputs) {
        Ok(builder) => builder,
        Err(error) => return report::fail(format_args!("cannot tell the working directory: {error}")),
    };
    let (sources, found, built) = match builder.build(None) {
        Ok(build) => (build.sources, build.warnings, Some(build.generation)),
        Err(error) => (error.sources, error.diagnostics, None),
    };
    match args.output {
        Output::Json => println!("{}", render::json(&sources, &found)),
        Output::Github => print!("{}", render::github(&sources, &found)),
        Output::Text if found.is_empty() => {}
        Output::Text => report::print(&sources, &found),
    }
    match built {
        Some(generation) => {
            if args.output == Output::Text {
                let config = &generation.config;
                println!(
                    "the configuration is good: {}, {}, {}",
                    report::count(config.listeners.len(), "listener"),
                    report::count(config.filters.len(), "filter"),
                    report::count(config.pools.len(), "pool"),
                );
            }
            debug_assert!(found.iter().all(|d| d.severity != Severity::Error));
            0
        }
        None => CONFIG,
    }
}
