//! `sluicegate filter`: what is done with modules outside of a running server.

use super::inspect;

#[derive(Debug, clap::Args)]
pub struct Filter {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Tell what a module is: digest, contract version, phases, capabilities, settings
    Inspect(inspect::InspectArgs),
}

impl Filter {
    pub fn run(&self) -> u8 {
        match &self.verb {
            Verb::Inspect(args) => inspect::run(args),
        }
    }
}
