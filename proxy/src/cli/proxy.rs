//! `sluicegate proxy`: a balancer from the command line alone.

use super::surroundings;
use super::{report, run};
use crate::app::{Builder, RunOptions};
use crate::config::Input;
use serde_json::json;

#[derive(Debug, clap::Args)]
pub struct ProxyArgs {
    /// Address to balance to, as HOST:PORT; may be repeated
    #[arg(long, required = true, value_name = "HOST:PORT")]
    to: Vec<String>,
    /// Address to listen on
    #[arg(long, default_value = ":8080", value_name = "ADDRESS")]
    listen: String,
    /// Relay bytes instead of speaking HTTP
    #[arg(long)]
    tcp: bool,
    /// How to balance: round-robin, random, least-request or hash
    #[arg(long, default_value = "round-robin")]
    balance: String,
    /// A filter: a .wasm file or builtin:NAME, with settings as JSON after an equals sign if it needs any; may be
    /// repeated
    #[arg(long, value_name = "MODULE[=JSON]")]
    filter: Vec<String>,
}

pub fn run(args: ProxyArgs) -> u8 {
    let text = match configuration(&args) {
        Ok(text) => text,
        Err(message) => return report::usage(format_args!("{message}")),
    };
    let inputs = vec![Input::Text {
        name: report::COMMAND_LINE.into(),
        text,
    }];
    match surroundings::builder(inputs) {
        Ok(builder) => serve(builder),
        Err(error) => report::fail(format_args!(
            "cannot tell the working directory: {}",
            crate::error::why(&error)
        )),
    }
}

fn serve(builder: Builder) -> u8 {
    run::serve(
        builder,
        RunOptions {
            watch: false,
            on_ready: None,
            stop: None,
        },
    )
}

/// The configuration the arguments stand for. JSON is YAML, so no quoting can go wrong.
fn configuration(args: &ProxyArgs) -> Result<String, String> {
    let mut filters = Vec::new();
    for filter in &args.filter {
        let (module, settings) = match filter.split_once('=') {
            None => (filter.as_str(), None),
            Some((module, settings)) => {
                let settings: serde_json::Value =
                    serde_json::from_str(settings).map_err(|error| {
                        format!("--filter {module}: the settings are not JSON: {error}")
                    })?;
                (module, Some(settings))
            }
        };
        let mut entry = json!({"module": module});
        if let Some(settings) = settings {
            entry["settings"] = settings;
        }
        filters.push(entry);
    }
    let config = json!({
        "admin": "off",
        "pools": {"to": {"endpoints": args.to, "balance": args.balance}},
        "listeners": [{
            "name": "proxy",
            "bind": args.listen,
            "protocol": if args.tcp { "tcp" } else { "http" },
            "filters": filters,
            "pool": "to",
        }],
    });
    Ok(config.to_string())
}
