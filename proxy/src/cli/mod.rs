//! The command line, one file a verb.
//!
//! Exit codes: 0 done, 1 failed at run time, 2 usage, 69 admin interface unreachable, 78 configuration invalid.

mod cert;
mod check;
mod client;
mod config;
mod demo;
mod explain;
mod filter;
mod inspect;
mod manual;
mod output;
mod proxy;
mod reload;
mod report;
mod run;
mod surroundings;

use crate::error::why;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser, Subcommand};
use std::io::Write;
use std::process::ExitCode;

/// A load-balancing proxy programmed with WebAssembly filters.
#[derive(Debug, Parser)]
#[command(
    name = "sluicegate",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    max_term_width = 100
)]
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
    /// Tell what would become of a request: filter by filter, the pool, the endpoint; nothing is sent
    Explain(explain::ExplainArgs),
    /// Make the running server read its configuration again, and wait for the outcome
    Reload(reload::ReloadArgs),
    /// Show what it does on loopback ports: backends, listeners and filters in one process
    Demo(demo::DemoArgs),
    /// Balance between addresses without a configuration file
    Proxy(proxy::ProxyArgs),
    /// Print the schema, the reference, or the configuration in effect
    Config(config::ConfigArgs),
    /// Look at the modules of filters
    Filter(filter::Filter),
    /// Make certificates
    Cert(cert::Cert),
    /// Print the completion script for a shell
    Completion(manual::CompletionArgs),
    /// Write the manual pages
    Man(manual::ManArgs),
    /// Print the version and what it was built with
    Version,
}

pub fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|error| with_tip(error).exit());
    let code = match cli.verb {
        Verb::Run(args) => run::run(args),
        Verb::Check(args) => check::run(args),
        Verb::Explain(args) => explain::run(args),
        Verb::Reload(args) => reload_running(&args),
        Verb::Demo(args) => demo::run(args),
        Verb::Proxy(args) => proxy::run(args),
        Verb::Config(args) => print_config(&args),
        Verb::Filter(args) => args.run(),
        Verb::Cert(args) => report::finish(args.run(&mut output::stdout())),
        Verb::Completion(args) => manual::completion(&args, Cli::command()),
        Verb::Man(args) => manual::man(&args, Cli::command()),
        Verb::Version => version(),
    };
    ExitCode::from(code)
}

/// A configuration without its `-c` is a mistake that many make first.
fn with_tip(mut error: clap::Error) -> clap::Error {
    if error.kind() == ErrorKind::UnknownArgument
        && let Some(ContextValue::String(name)) = error.get(ContextKind::InvalidArg)
        && (name.ends_with(".yaml") || name.ends_with(".yml"))
    {
        let tip = format!("a configuration is named by '-c {name}'");
        error.insert(
            ContextKind::Suggested,
            ContextValue::StyledStrs(vec![tip.into()]),
        );
    }
    error
}

fn print_config(args: &config::ConfigArgs) -> u8 {
    let vars = |name: &str| std::env::var(name).ok();
    let outcome = surroundings::environment(&vars)
        .map_err(anyhow::Error::from)
        .and_then(|env| {
            let modules = if args.wants_modules() {
                builtin_schemas()?
            } else {
                Vec::new()
            };
            Ok(config::run(args, &env, &modules)?)
        });
    match outcome {
        Ok(code) => code,
        Err(error) => report::fail(format_args!("{error:#}")),
    }
}

/// The builtin filters with the schemas of their settings.
fn builtin_schemas() -> anyhow::Result<Vec<crate::config::ModuleSchema>> {
    let host = crate::wasm::Host::new(crate::wasm::HostOptions::default())?;
    let mut schemas = Vec::new();
    for name in crate::builtin::names() {
        let module = format!("builtin:{name}");
        let bytes = crate::builtin::builtin(name).unwrap_or_default();
        if let Some(schema) = crate::wasm::Module::load(&host, &module, bytes)?.schema()? {
            schemas.push((module, serde_json::from_str(&schema)?));
        }
    }
    Ok(schemas)
}

/// Where the running server is found: at `--admin`, else where its configuration says.
fn reload_running(args: &reload::ReloadArgs) -> u8 {
    let (mut out, mut err) = (output::stdout(), std::io::stderr());
    let default = crate::config::AdminBind::Unix("/run/sluicegate/admin.sock".into());
    if args.admin.is_some() {
        return reload::run(args, &default, &mut out, &mut err);
    }
    let vars = |name: &str| std::env::var(name).ok();
    let Ok(env) = surroundings::environment(&vars) else {
        return report::fail(format_args!("cannot tell the working directory"));
    };
    let inputs = match args.sources.inputs() {
        Ok(inputs) => inputs,
        Err(error) => {
            return report::fail(format_args!("cannot read standard input: {}", why(&error)));
        }
    };
    // A configuration with a mistake still has a server that runs on an earlier one: it is asked where the text says.
    let bind = match crate::config::load(&inputs, &env) {
        Ok(loaded) => match loaded.config.admin.bind {
            Some(bind) => bind,
            None => {
                return report::fail(format_args!(
                    "the configuration turns the admin interface off: send SIGHUP instead"
                ));
            }
        },
        Err(rejected) => written_admin(&rejected.sources).unwrap_or(default),
    };
    reload::run(args, &bind, &mut out, &mut err)
}

/// What a configuration that was rejected says about the admin interface.
fn written_admin(sources: &crate::config::Sources) -> Option<crate::config::AdminBind> {
    use crate::config::{AdminBind, ConfigPath};
    let at = ConfigPath("/admin/bind".to_owned());
    let text = sources.node(&at)?.to_json(true);
    match client::parse_address(text.as_str()?).ok()? {
        AdminBind::Unix(path) => Some(AdminBind::Unix(sources.dir(&at).join(path))),
        bind => Some(bind),
    }
}

fn version() -> u8 {
    let text = format!(
        "sluicegate {}\nfilter contract sluicegate:filter@{}\nbuiltin filters {}\n",
        env!("CARGO_PKG_VERSION"),
        crate::wasm::CONTRACT_VERSION,
        crate::builtin::names().join(", ")
    );
    report::written(output::stdout().write_all(text.as_bytes()))
}
