//! `sluicegate config schema|show|reference`, and where every verb's configuration comes from.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::config::{self, Environment, Input, ModuleSchema};

use super::{output, report};

/// What standard input may hold: more than the loader takes, so that it is the loader who says no.
const STDIN_MAX: u64 = 17 << 20;

/// Which configuration a verb is about.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct SourceArgs {
    /// A file, a directory of *.yaml files, or - for standard input; may be repeated.
    #[arg(
        short = 'c',
        long = "config",
        value_name = "FILE|DIR",
        env = "SLUICEGATE_CONFIG"
    )]
    pub config: Vec<PathBuf>,
}

impl SourceArgs {
    /// Reads standard input if it is named, once: a reload cannot read it again, but it can use what was read.
    pub fn inputs(&self) -> io::Result<Vec<Input>> {
        let mut inputs = Vec::with_capacity(self.config.len());
        for path in &self.config {
            if path == Path::new("-") {
                let mut text = String::new();
                io::stdin()
                    .lock()
                    .take(STDIN_MAX)
                    .read_to_string(&mut text)?;
                inputs.push(Input::Text {
                    name: "<stdin>".into(),
                    text,
                });
            } else {
                inputs.push(Input::Path(path.clone()));
            }
        }
        Ok(inputs)
    }
}

#[derive(Debug, clap::Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    verb: ConfigVerb,
}

impl ConfigArgs {
    /// Whether the settings of the builtin modules are printed, for which these have to be compiled.
    pub fn wants_modules(&self) -> bool {
        !matches!(self.verb, ConfigVerb::Show(_))
    }
}

#[derive(Debug, clap::Subcommand)]
enum ConfigVerb {
    /// Print the JSON Schema of the configuration, for editors.
    Schema,
    /// Print the reference of all keys in Markdown.
    Reference,
    /// Print the configuration in effect, with all defaults filled in.
    Show(SourceArgs),
}

/// Runs the verb. `modules` are the builtin modules with the schemas of their settings.
pub fn run(args: &ConfigArgs, env: &Environment<'_>, modules: &[ModuleSchema]) -> io::Result<u8> {
    let mut out = output::stdout();
    match &args.verb {
        ConfigVerb::Schema => writeln!(out, "{:#}", config::schema(modules))?,
        ConfigVerb::Reference => out.write_all(config::reference(modules).as_bytes())?,
        ConfigVerb::Show(sources) => match config::load(&sources.inputs()?, env) {
            Ok(loaded) => {
                let mut err = io::stderr().lock();
                let colour = report::colour(&err);
                report::print(
                    &mut err,
                    &loaded.sources,
                    &loaded.warnings,
                    report::Format::Text,
                    colour,
                )?;
                out.write_all(loaded.show().as_bytes())?;
            }
            Err(rejected) => return Ok(report::rejected(&rejected)),
        },
    }
    Ok(0)
}
