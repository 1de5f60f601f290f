//! Texts in, configurations or diagnostics out.

mod accepted;
mod hostile;
mod rejected;
mod settings;

use std::path::Path;

use super::*;

/// A directory with certificate files, and what a text loads to with it as the working directory.
pub(super) struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    pub fn new() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        for name in ["www-ssl.crt", "www-ssl.key", "my.wasm", "secret.txt"] {
            std::fs::write(dir.path().join(name), "s3cret\n").unwrap();
        }
        Bench { dir }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub fn load_inputs(&self, inputs: &[Input]) -> Result<Loaded, Box<Rejected>> {
        let vars = |name: &str| match name {
            "PORT" => Some("8080".to_owned()),
            "HOME" => Some("/home/user".to_owned()),
            _ => None,
        };
        let builtins = ["ua-block", "headers", "sticky", "router"];
        let env = Environment {
            vars: &vars,
            builtins: builtins.iter().map(|name| (*name).to_owned()).collect(),
            cwd: self.path().to_owned(),
            processors: 4,
        };
        load(inputs, &env)
    }

    pub fn load(&self, text: &str) -> Result<Loaded, Box<Rejected>> {
        self.load_inputs(&[Input::Text {
            name: "sluicegate.yaml".into(),
            text: text.into(),
        }])
    }

    /// What is said about a text, with the bench's directory made nameless.
    pub fn report(&self, text: &str) -> String {
        let said = match self.load(text) {
            Ok(loaded) => render::text(&loaded.sources, &loaded.warnings, render::Colour::Never),
            Err(rejected) => render::text(
                &rejected.sources,
                &rejected.diagnostics,
                render::Colour::Never,
            ),
        };
        said.replace(self.path().to_str().unwrap(), "[dir]")
    }
}

pub(super) fn codes(result: &Result<Loaded, Box<Rejected>>) -> Vec<&'static str> {
    match result {
        Ok(loaded) => loaded.warnings.iter().map(|d| d.code).collect(),
        Err(rejected) => rejected.diagnostics.iter().map(|d| d.code).collect(),
    }
}

/// A configuration that is right, to put mistakes next to.
pub(super) const SMALL: &str = "\
pools:
  web: {endpoints: ['127.0.0.1:80']}
listeners:
  - {name: www, bind: ':80', protocol: http, pool: web}
";
