//! `sluicegate run`: the server, in the foreground.

use super::config::SourceArgs;
use super::report;
use super::report::{CONFIG, FAILED};
use super::surroundings;
use crate::app::{self, Builder, RunError, RunOptions};
use crate::error::why;
use crate::telemetry::log;

#[derive(Debug, clap::Args)]
pub struct RunArgs {
    #[command(flatten)]
    sources: SourceArgs,
    /// Reload when the configuration, a module or a certificate changes
    #[arg(long)]
    watch: bool,
}

pub fn run(args: RunArgs) -> u8 {
    let inputs = match args.sources.inputs() {
        Ok(inputs) => inputs,
        Err(error) => {
            return report::fail(format_args!("cannot read standard input: {}", why(&error)));
        }
    };
    match surroundings::builder(inputs) {
        Ok(builder) => serve(
            builder,
            RunOptions {
                watch: args.watch,
                on_ready: None,
                stop: None,
            },
        ),
        Err(error) => report::fail(format_args!(
            "cannot tell the working directory: {}",
            why(&error)
        )),
    }
}

/// Sets the log up, runs the server, and says why it did not run.
pub fn serve(builder: Builder, options: RunOptions) -> u8 {
    let guard = match log::LogOptions::from_env().and_then(|options| log::init(&options)) {
        Ok(guard) => guard,
        Err(error) => return report::usage(format_args!("{error}")),
    };
    raise_descriptors();
    let code = match app::run(builder, options) {
        Ok(()) => 0,
        Err(RunError::Config(error)) => {
            report::diagnostics(&error.sources, &error.diagnostics);
            CONFIG
        }
        Err(RunError::Placed(error)) => {
            report::diagnostics(&error.sources, &error.diagnostics);
            FAILED
        }
        Err(RunError::System(error)) => {
            report::error(format_args!("{error:#}"));
            FAILED
        }
    };
    guard.flush(std::time::Duration::from_secs(2));
    code
}

/// Descriptors bound how many connections there can be: the soft limit of the process goes up to the hard one, which is what
/// an administrator sets. What does not work is no worse than before, and the metrics tell the limit.
fn raise_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::debug!(%error, "the limit of open files stays as it is");
        }
    }
}
