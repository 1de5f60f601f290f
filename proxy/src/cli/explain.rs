//! `sluicegate explain`: what would become of a request, without sending it.

use super::surroundings;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::config::SourceArgs;
use super::report::CONFIG;
use super::{output, report};
use crate::config::Severity;
use crate::error::why;
use crate::explain::{self, Asked, Explanation, Scheme, Url};
use crate::telemetry::log;

/// The port a client is said to come from when none is given: one of those that systems hand out.
const CLIENT_PORT: u16 = 49152;

#[derive(Debug, clap::Args)]
#[command(allow_missing_positional = true)]
pub struct ExplainArgs {
    /// The method of the request; GET if left out
    method: Option<String>,
    /// What is asked for: an http or https URL, a path alone, or tcp://HOST:PORT
    url: String,
    #[command(flatten)]
    sources: SourceArgs,
    /// The listener, when the URL does not tell which
    #[arg(short, long, value_name = "NAME")]
    listener: Option<String>,
    /// The address the client connects from
    #[arg(long, value_name = "IP[:PORT]", default_value = "127.0.0.1", value_parser = client)]
    client: SocketAddr,
    /// A header line; may be repeated
    #[arg(short = 'H', long, value_name = "NAME: VALUE", value_parser = header)]
    header: Vec<(String, String)>,
    /// The server name of the client's TLS handshake
    #[arg(long, value_name = "NAME")]
    sni: Option<String>,
    /// What the client of a tcp listener sends first
    #[arg(long, value_name = "TEXT")]
    first_bytes: Option<String>,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people
    Text,
    /// One object
    Json,
}

pub fn run(args: ExplainArgs) -> u8 {
    let asked = match asked(&args) {
        Ok(asked) => asked,
        Err(message) => return report::usage(format_args!("{message}")),
    };
    // What filters log, and why one failed, is told on standard error.
    let guard = match log::LogOptions::from_env().and_then(|options| log::init(&options)) {
        Ok(guard) => guard,
        Err(error) => return report::usage(format_args!("{error}")),
    };
    let code = explained(&args, &asked);
    guard.flush(std::time::Duration::from_secs(2));
    code
}

fn explained(args: &ExplainArgs, asked: &Asked) -> u8 {
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
    let generation = match builder.build(None) {
        Ok(build) => build.generation,
        Err(error) => {
            let mut found = error.diagnostics;
            found.retain(|d| d.severity == Severity::Error);
            report::diagnostics(&error.sources, &found);
            return CONFIG;
        }
    };
    let choice = match explain::choose(&generation, &asked.url, args.listener.as_deref()) {
        Ok(choice) => choice,
        Err(error) => return report::usage(format_args!("{error}")),
    };
    let explanation = match asked.url.scheme {
        Some(Scheme::Tcp) => explain::explain_session(&generation, &choice, asked),
        _ => explain::explain_request(&generation, &choice, asked),
    };
    match print(&explanation, args.output) {
        Ok(()) => 0,
        Err(error) => report::fail(format_args!("cannot write: {}", why(&error))),
    }
}

fn print(explanation: &Explanation, format: Format) -> std::io::Result<()> {
    let mut out = output::stdout();
    match format {
        Format::Text => write!(out, "{explanation}"),
        Format::Json => {
            serde_json::to_writer_pretty(&mut out, explanation)?;
            writeln!(out)
        }
    }
}

fn asked(args: &ExplainArgs) -> Result<Asked, String> {
    let method = args.method.as_ref();
    let url: Url = args.url.parse().map_err(|error| format!("{error}"))?;
    let is_tcp = url.scheme == Some(Scheme::Tcp);
    if is_tcp && (method.is_some() || !args.header.is_empty()) {
        return Err(format!(
            "{url} is a connection and no HTTP request: leave METHOD and --header out"
        ));
    }
    if !is_tcp && args.first_bytes.is_some() {
        return Err("--first-bytes is for tcp://HOST:PORT".to_owned());
    }
    Ok(Asked {
        method: method.map_or("GET", String::as_str).to_owned(),
        url,
        fields: args.header.clone(),
        client: args.client,
        sni: args.sni.as_deref().map(str::to_ascii_lowercase),
        first_bytes: args.first_bytes.clone().map(String::into_bytes),
    })
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once(':')
        .ok_or("a header line is \"NAME: VALUE\"")?;
    if !crate::head::is_token(name.as_bytes()) {
        return Err(format!(
            "\"{}\" is not a header name",
            name.escape_default()
        ));
    }
    Ok((name.to_owned(), value.trim().to_owned()))
}

fn client(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address);
    }
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text);
    let ip: IpAddr = bare
        .parse()
        .map_err(|_| format!("write an IP address such as {}", Ipv4Addr::LOCALHOST))?;
    Ok(SocketAddr::new(ip, CLIENT_PORT))
}
