//! `sluicegate completion` and `sluicegate man`: what packages install beside the binary. Both come from the same
//! definitions as the verbs themselves.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Command;

use super::{output, report};

#[derive(Debug, clap::Args)]
pub struct CompletionArgs {
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Shell {
    Bash,
    Fish,
    Zsh,
}

#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// The folder the pages go to, one for each verb; without it the main page is printed
    #[arg(value_name = "DIR")]
    folder: Option<PathBuf>,
}

/// What the main page says beyond the verbs.
const MAIN_PAGE_END: &str = r#".SH "EXIT STATUS"
.TP
0
done
.TP
1
failed at run time: an address is taken, a file cannot be written
.TP
2
the command line makes no sense
.TP
69
nobody answers at the admin address
.TP
78
the configuration is invalid; no restart mends it
.SH ENVIRONMENT
.TP
SLUICEGATE_CONFIG
the configuration, as \-\-config
.TP
SLUICEGATE_LOG
which log lines are written, such as info,sluicegate::upstream=debug
.TP
SLUICEGATE_LOG_FORMAT
text or json
.TP
NO_COLOR
no colours, if it is set to anything
.SH FILES
.TP
\&./sluicegate.yaml, else /etc/sluicegate/sluicegate.yaml and /etc/sluicegate/conf.d/*.yaml
the configuration, when none is named
.TP
/usr/lib/sluicegate/filters, /var/lib/sluicegate/filters
where modules with a relative path are looked for
.TP
/run/sluicegate/admin.sock
the admin interface of the running server
"#;

/// Writes the completions of `command`.
pub fn completion(args: &CompletionArgs, mut command: Command) -> u8 {
    use clap_complete::Shell as Known;
    let shell = match args.shell {
        Shell::Bash => Known::Bash,
        Shell::Fish => Known::Fish,
        Shell::Zsh => Known::Zsh,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "sluicegate", &mut script);
    report::written(output::stdout().write_all(&script))
}

/// Writes the manual pages of `command`.
pub fn man(args: &ManArgs, command: Command) -> u8 {
    let command = whole(command);
    match &args.folder {
        None => report::written(page(&command).and_then(|page| output::stdout().write_all(&page))),
        Some(folder) => match write_pages(&command, folder) {
            Ok(()) => 0,
            Err(error) => report::fail(format_args!(
                "cannot write to \"{}\": {}",
                folder.display(),
                crate::error::why(&error)
            )),
        },
    }
}

/// The command with everything that clap works out when it is run; a page for `help` says nothing.
fn whole(command: Command) -> Command {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    command
}

/// The page of `command`, and of every verb below it.
fn write_pages(command: &Command, folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let name = page_name(command);
    std::fs::write(folder.join(format!("{name}.1")), page(command)?)?;
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        write_pages(verb, folder)?;
    }
    Ok(())
}

fn page(command: &Command) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    let name = page_name(command);
    clap_mangen::Man::new(command.clone())
        .title(name.as_str())
        .render(&mut out)?;
    if name == "sluicegate" {
        out.extend_from_slice(MAIN_PAGE_END.as_bytes());
    }
    Ok(out)
}

/// `sluicegate-config-show`, as the page of a verb is called.
fn page_name(command: &Command) -> String {
    command
        .get_display_name()
        .unwrap_or(command.get_name())
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::CommandFactory;

    /// Every verb with the long flags it has.
    fn verbs(command: &Command) -> Vec<(String, Vec<String>)> {
        let flags = command
            .get_arguments()
            .filter(|argument| !argument.is_hide_set())
            .filter_map(|argument| argument.get_long().map(str::to_owned));
        let mut found = vec![(page_name(command), flags.collect())];
        found.extend(command.get_subcommands().flat_map(verbs));
        found
    }

    #[test]
    fn every_verb_and_flag_has_a_page() {
        let folder = tempfile::tempdir().expect("a folder");
        write_pages(&whole(Cli::command()), folder.path()).expect("pages");
        let verbs = verbs(&whole(Cli::command()));
        assert!(verbs.len() > 10, "{verbs:?}");
        for (verb, flags) in &verbs {
            let path = folder.path().join(format!("{verb}.1"));
            let page = std::fs::read_to_string(&path).unwrap_or_else(|why| panic!("{verb}: {why}"));
            assert!(page.contains(".SH NAME"), "{verb}: {page}");
            for flag in flags {
                let escaped = format!("\\-\\-{}", flag.replace('-', "\\-"));
                assert!(page.contains(&escaped), "{verb}: --{flag}: {page}");
            }
        }
        let pages = std::fs::read_dir(folder.path()).expect("a folder").count();
        assert_eq!(pages, verbs.len());
    }

    #[test]
    fn every_verb_and_flag_is_completed() {
        use clap_complete::Shell as Known;
        for shell in [Known::Bash, Known::Fish, Known::Zsh] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "sluicegate", &mut script);
            let script = String::from_utf8(script).expect("text");
            for (verb, flags) in verbs(&whole(Cli::command())) {
                let word = verb.split('-').next_back().expect("a word");
                assert!(script.contains(word), "{shell}: {verb}");
                for flag in flags {
                    let fish = shell == Known::Fish && script.contains(&format!("-l {flag}"));
                    assert!(
                        fish || script.contains(&format!("--{flag}")),
                        "{shell}: {verb} --{flag}"
                    );
                }
            }
        }
    }
}
