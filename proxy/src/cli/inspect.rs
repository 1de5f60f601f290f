//! `sluicegate filter inspect`: what a module is, without a configuration. It is compiled, and of what is in it only
//! the function that answers the schema of its settings is called.

use std::borrow::Cow;
use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, bail};
use serde_json::{Value as Json, json};

use super::output;
use super::report::finish;
use crate::wasm::{Form, Host, HostOptions, MODULE_BYTES_MAX, Module, Phase, tame_lines};

/// Bytes of the words that a module gives its settings and that are shown.
const WORDS_MAX: usize = 1024;

#[derive(Debug, clap::Args)]
pub struct InspectArgs {
    /// A `.wasm` file, or `builtin:NAME`
    #[arg(value_name = "FILE")]
    module: String,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
enum Format {
    /// For people
    #[default]
    Text,
    /// One object
    Json,
}

pub fn run(args: &InspectArgs) -> u8 {
    finish(inspect(args, &mut output::stdout()))
}

fn inspect(args: &InspectArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let found = look(&args.module)?;
    let written = match args.output {
        Format::Json => writeln!(out, "{found:#}"),
        Format::Text => out.write_all(text(&found).as_bytes()),
    };
    written.context("cannot write")
}

/// What is told of a module, as an object.
fn look(name: &str) -> anyhow::Result<Json> {
    let bytes = read(name)?;
    let host = Host::new(HostOptions::default())?;
    let module =
        Module::load(&host, name, &bytes).with_context(|| format!("\"{name}\" is not a filter"))?;
    let schema = match module.schema() {
        Ok(None) => Json::Null,
        Ok(Some(text)) => serde_json::from_str(&text)
            .with_context(|| format!("the settings schema of \"{name}\" is no JSON"))?,
        Err(fault) => bail!("the settings schema of \"{name}\" cannot be read: {fault}"),
    };
    Ok(json!({
        "module": name,
        "sha256": module.digest_hex(),
        "size": module.size(),
        "contract": module.contract(),
        "phases": phases(&module),
        "capabilities": module.wanted_capabilities(),
        "wasi": module.uses_wasi(),
        "settings": schema,
    }))
}

fn read(name: &str) -> anyhow::Result<Cow<'static, [u8]>> {
    if let Some(builtin) = name.strip_prefix("builtin:") {
        return match crate::builtin::builtin(builtin) {
            Some(bytes) => Ok(bytes.into()),
            None => bail!(
                "there is no builtin filter \"{builtin}\"; there are {}",
                crate::builtin::names().join(", ")
            ),
        };
    }
    let mut bytes = Vec::new();
    std::fs::File::open(Path::new(name))
        .and_then(|file| {
            file.take(MODULE_BYTES_MAX as u64 + 1)
                .read_to_end(&mut bytes)
        })
        .map_err(|error| {
            let why = crate::error::why(&error);
            anyhow::anyhow!("cannot read \"{name}\": {why}")
        })?;
    Ok(bytes.into())
}

fn phases(module: &Module) -> Vec<Json> {
    let form = |form| match form {
        Form::Packed => "packed",
        Form::Readable => "readable",
    };
    Phase::ALL
        .into_iter()
        .filter_map(|phase| Some((phase, module.phase(phase)?)))
        .map(|(phase, found)| json!({"name": phase.as_str(), "form": form(found)}))
        .collect()
}

fn text(found: &Json) -> String {
    let word = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
    let size = found["size"].as_u64().unwrap_or_default();
    let list = |words: Vec<String>| match words.is_empty() {
        true => "none".to_owned(),
        false => words.join(", "),
    };
    let each = |key: &str| found[key].as_array().into_iter().flatten();
    let phases = each("phases").map(|phase| {
        let name = phase["name"].as_str().unwrap_or_default();
        match phase["form"].as_str() {
            Some("packed") => name.to_owned(),
            form => format!("{name} ({})", form.unwrap_or_default()),
        }
    });
    let mut capabilities: Vec<String> = each("capabilities")
        .filter_map(|name| name.as_str().map(str::to_owned))
        .collect();
    if found["wasi"] == true {
        capabilities.push("wasi (which refuses nearly everything)".to_owned());
    }
    let settings = &found["settings"];
    let mut rows = vec![
        ("module", word("module")),
        ("sha256", word("sha256")),
        ("size", format!("{size} bytes")),
        (
            "contract",
            format!("sluicegate:filter@{}", word("contract")),
        ),
        ("phases", list(phases.collect())),
        ("imports", list(capabilities)),
    ];
    if settings.is_null() {
        rows.push(("settings", "no schema".to_owned()));
    } else {
        let described = settings["description"].as_str().unwrap_or("see below");
        rows.push(("settings", tame_lines(described, WORDS_MAX)));
    }
    let mut text: String = rows
        .iter()
        .map(|(key, value)| format!("{key:10}{}\n", value.replace('\n', "\n          ")))
        .collect();
    let properties = settings["properties"].as_object();
    for (name, property) in properties.into_iter().flatten() {
        let described = property["description"].as_str().unwrap_or_default();
        let described = tame_lines(described, WORDS_MAX).replace('\n', " ");
        let name = tame_lines(name, WORDS_MAX);
        text.push_str(&format!("  {name:14}  {described}\n"));
    }
    text
}
