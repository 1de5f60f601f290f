//! `sluicegate cert`: certificates for a start.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::tls::{SelfSigned, self_signed};

#[derive(Debug, clap::Args)]
pub struct Cert {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Make a self-signed certificate and its key
    SelfSigned(SelfSignedArgs),
}

#[derive(Debug, clap::Args)]
struct SelfSignedArgs {
    /// DNS names (`www.example.org`, `*.example.org`) and IP addresses; the first names the files
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Where the two files go
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// How long the certificate is valid
    #[arg(long, default_value_t = 397)]
    days: u32,
    /// Replace files that exist
    #[arg(long)]
    force: bool,
}

impl Cert {
    /// Writes the files and tells on `output` where they are and how to use them.
    pub fn run(&self, output: &mut impl Write) -> anyhow::Result<()> {
        let Verb::SelfSigned(args) = &self.verb;
        let made = self_signed(&args.names, args.days)?;
        let (cert, key) = write_files(args, &made)?;
        writeln!(output, "certificate  {}", cert.display())?;
        writeln!(output, "key          {}", key.display())?;
        writeln!(output, "\nIn a listener of sluicegate.yaml:\n")?;
        writeln!(output, "    tls:")?;
        writeln!(output, "      certificates:")?;
        let quoted = |path: &Path| serde_json::Value::from(path.to_string_lossy()).to_string();
        writeln!(output, "        - cert: {}", quoted(&cert))?;
        writeln!(output, "          key: {}", quoted(&key))?;
        Ok(())
    }
}

/// Both files or, if one of them exists and is not to be replaced, none.
fn write_files(args: &SelfSignedArgs, made: &SelfSigned) -> anyhow::Result<(PathBuf, PathBuf)> {
    std::fs::create_dir_all(&args.out)
        .with_context(|| format!("cannot make the folder {}", args.out.display()))?;
    let folder = std::path::absolute(&args.out)?;
    let stem = args.names.first().map_or("server", String::as_str);
    let stem = stem.replace('*', "wildcard").replace(':', "_");
    let cert = folder.join(format!("{stem}.crt"));
    let key = folder.join(format!("{stem}.key"));
    for path in [&cert, &key] {
        if !args.force && path.symlink_metadata().is_ok() {
            bail!("{} exists; --force replaces it", path.display());
        }
    }
    write_file(&key, &made.key_pem, 0o600, args.force)?;
    write_file(&cert, &made.cert_pem, 0o644, args.force)?;
    Ok((cert, key))
}

/// Writes a new file, with its mode from the start. What is replaced is removed first, so that neither its mode nor a
/// link decides where the key ends up.
fn write_file(path: &Path, content: &str, mode: u32, replace: bool) -> anyhow::Result<()> {
    let write = || {
        if replace && path.symlink_metadata().is_ok() {
            std::fs::remove_file(path)?;
        }
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(path)?
            .write_all(content.as_bytes())
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use std::os::unix::fs::PermissionsExt;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        cert: Cert,
    }

    fn run(line: &[&str]) -> anyhow::Result<String> {
        let line = Line::try_parse_from(["cert"].iter().chain(line))?;
        let mut output = Vec::new();
        line.cert.run(&mut output)?;
        Ok(String::from_utf8(output)?)
    }

    #[test]
    fn files_are_made_once_and_the_key_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("new");
        let line = [
            "self-signed",
            "*.lab.test",
            "10.0.0.1",
            "--out",
            out.to_str().unwrap(),
        ];
        let said = run(&line).unwrap();
        let key = out.join("wildcard.lab.test.key");
        assert!(
            said.contains(&format!("key: \"{}\"", key.display())),
            "{said}"
        );
        assert_eq!(key.metadata().unwrap().permissions().mode() & 0o777, 0o600);

        let before = std::fs::read(&key).unwrap();
        let error = run(&line).unwrap_err().to_string();
        assert!(error.contains("exists; --force replaces it"), "{error}");
        assert_eq!(std::fs::read(&key).unwrap(), before);

        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
        run(&[&line[..], &["--force"]].concat()).unwrap();
        assert_ne!(std::fs::read(&key).unwrap(), before);
        assert_eq!(key.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn what_is_printed_is_yaml() {
        let folder = tempfile::tempdir().unwrap();
        let said = run(&[
            "self-signed",
            "a.test",
            "--out",
            folder.path().to_str().unwrap(),
        ])
        .unwrap();
        let yaml = &said[said.find("    tls:").unwrap()..];
        let value: serde_json::Value = serde_yaml::from_str(yaml).unwrap();
        let cert = value
            .pointer("/tls/certificates/0/cert")
            .unwrap()
            .as_str()
            .unwrap();
        assert!(Path::new(cert).is_file());
    }

    #[test]
    fn a_bad_name_writes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("none");
        let line = ["self-signed", "../evil", "--out", out.to_str().unwrap()];
        assert!(run(&line).is_err());
        assert!(!out.exists());
    }
}
