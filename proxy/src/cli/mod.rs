//! The command line, one file a verb.
//!
//! Exit codes: 0 done, 1 failed at run time, 2 usage, 69 admin interface unreachable, 78 configuration invalid.

mod cert;
mod check;
mod client;
mod config;
mod demo;
mod proxy;
mod reload;
mod report;
mod run;

use crate::config::Input;
use clap::{Parser, Subcommand};
use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

pub const FAILED: u8 = 1;
pub const USAGE: u8 = 2;
pub const CONFIG: u8 = 78;

/// A load-balancing proxy programmed with WebAssembly filters.
#[derive(Debug, Parser)]
#[command(name = "sluicegate", version, propagate_version = true, arg_required_else_help = true, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the server in the foreground
    Run(run::RunArgs),
    /// Check a configuration: load every module, configure every filter, resolve every file; print all that is wrong
    Check(check::CheckArgs),
    /// Make the running server read its configuration again, and wait for the outcome
    Reload(reload::ReloadArgs),
    /// Show what it does on loopback ports: backends, listeners and filters in one process
    Demo(demo::DemoArgs),
    /// Balance between addresses without a configuration file
    Proxy(proxy::ProxyArgs),
    /// Print the schema, the reference, or the configuration in effect
    Config(config::ConfigArgs),
    /// Make certificates
    Cert(cert::Cert),
    /// Print the version and what it was built with
    Version,
}

/// Which configuration a verb works on.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ConfigInputs {
    /// Configuration file, directory of *.yaml files, or - for standard input; may repeat.
    /// Without it: ./sluicegate.yaml, then /etc/sluicegate/sluicegate.yaml with /etc/sluicegate/conf.d/*.yaml
    #[arg(short, long = "config", value_name = "FILE|DIR", env = "SLUICEGATE_CONFIG")]
    pub config: Vec<PathBuf>,
}

impl ConfigInputs {
    /// The inputs as the configuration room takes them; reads standard input when it is named.
    pub fn resolve(&self) -> std::io::Result<Vec<Input>> {
        self.config
            .iter()
            .map(|path| {
                if path.as_os_str() != "-" {
                    return Ok(Input::Path(path.clone()));
                }
                let mut text = String::new();
                // One byte over the limit of a file is enough for it to be refused by its size.
                std::io::stdin().take(17 * 1024 * 1024).read_to_string(&mut text)?;
                Ok(Input::Text { name: "<stdin>".into(), text })
            })
            .collect()
    }
}

pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let code = match cli.verb {
        Verb::Run(args) => run::run(args),
        Verb::Check(args) => check::run(args),
        Verb::Reload(args) => reload::run(&args, &args.address(), &mut std::io::stdout(), &mut std::io::stderr()),
        Verb::Demo(args) => demo::run(args),
        Verb::Proxy(args) => proxy::run(args),
        Verb::Config(args) => config::run(args),
        Verb::Cert(args) => finish(args.run(&mut std::io::stdout())),
        Verb::Version => version(),
    };
    ExitCode::from(code)
}

/// The exit code of a verb that either did its work or says why not.
fn finish(outcome: anyhow::Result<()>) -> u8 {
    match outcome {
        Ok(()) => 0,
        Err(error) => report::fail(format_args!("{error:#}")),
    }
}

fn version() -> u8 {
    println!("sluicegate {}", env!("CARGO_PKG_VERSION"));
    println!("filter contract sluicegate:filter@{}", crate::wasm::CONTRACT_VERSION);
    println!("builtin filters {}", crate::builtin::names().join(", "));
    0
}

/// A builder for the configuration `inputs`, with the real environment.
fn builder(inputs: Vec<Input>) -> std::io::Result<crate::app::Builder> {
    let vars: crate::app::Vars = Box::new(|name| std::env::var(name).ok());
    Ok(crate::app::Builder::new(inputs, vars, std::env::current_dir()?))
}
