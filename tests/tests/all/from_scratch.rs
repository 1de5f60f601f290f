//! A filter written from nothing, as the SDK's README says: its texts are taken from there.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use sluicegate_tests::addresses::Addresses;
use sluicegate_tests::backend::Backend;
use sluicegate_tests::client::{Raw, get};
use sluicegate_tests::proxy::{Start, command, sluicegate};
use sluicegate_tests::wait::{DEADLINE, eventually};

/// Sends a request for a path and answers the status.
type Ask = Box<dyn FnMut(&str) -> std::io::Result<u16> + Send>;

const TARGET: &str = "wasm32-unknown-unknown";
const WASI_TARGET: &str = "wasm32-wasip2";

/// One test, because it is one story and builds are slow.
#[test]
fn the_readme_leads_from_nothing_to_a_filter_that_is_replaced_under_traffic() {
    let readme = std::fs::read_to_string(root().join("sdk/README.md")).expect("the README");
    let start = Start::new();
    let krate = Crate::new(start.directory(), &readme);

    // It passes its own tests and becomes a module.
    krate.cargo(&["test"]);
    krate.cargo(&["build", "--release", "--target", TARGET]);

    let web1 = Backend::http("web1");
    let bind = Addresses::new().free();
    let yaml = block(&readme, "yaml", "maintenance:")
        .replace("127.0.0.1:9000", &web1.address().to_string())
        .replace("127.0.0.1:8080", &bind.to_string());
    assert!(yaml.contains(&bind.to_string()) && yaml.contains(&web1.address().to_string()));

    // `check` knows its settings, by its schema and by its own words.
    let checked = check(start.directory(), &yaml);
    assert_eq!((checked.0, checked.1.as_str()), (0, ""));
    let (code, said) = check(start.directory(), &yaml.replace("[/shop]", "[shop]"));
    assert_eq!(code, 78);
    assert!(
        said.contains("`shop` is no path") && said.contains("help: did you mean `/shop`?"),
        "{said}"
    );
    let (code, said) = check(start.directory(), &yaml.replace("message:", "mesage:"));
    assert_eq!(code, 78);
    assert!(
        said.contains("did you mean `message`?") || said.contains("did you mean \"message\"?"),
        "{said}"
    );

    // It is loaded and answers.
    let mut proxy = start.argument("--watch").run(&yaml);
    let closed = get(bind, "/shop/cart").expect("an answer");
    assert_eq!(
        (closed.status, closed.text().as_str()),
        (503, "Back at noon.\n")
    );
    assert_eq!(closed.field("retry-after"), Some("60"));
    assert_eq!(get(bind, "/").expect("an answer").text(), "web1");

    // Built anew, it is taken up by itself, and nobody notices but by the answer.
    let traffic = Traffic::start(bind);
    krate.edit(
        ".field(\"retry-after\", \"60\")",
        ".field(\"retry-after\", \"120\")",
    );
    krate.cargo(&["build", "--release", "--target", TARGET]);
    let retry_after = |value: &str| {
        let seen = || get(bind, "/shop").expect("an answer").field("retry-after") == Some(value);
        assert!(
            eventually(DEADLINE, seen),
            "not {value}:\n{}",
            proxy.stderr()
        );
    };
    retry_after("120");

    // A module that is broken on its way changes nothing.
    let module = krate.module(TARGET);
    let good = std::fs::read(&module).expect("the module");
    std::fs::write(&module, &good[..good.len() / 2]).expect("written");
    proxy.wait_for_log("reload refused");
    retry_after("120");
    std::fs::write(&module, &good).expect("written");

    // `reload` does the same, and waits.
    krate.edit("\"120\"", "\"180\"");
    krate.cargo(&["build", "--release", "--target", TARGET]);
    let socket = proxy.admin_socket().display().to_string();
    let answer = sluicegate(&["reload", "--admin", &socket]);
    assert_eq!(answer.code, 0, "{}", answer.stderr);
    let now = get(bind, "/shop").expect("an answer");
    assert_eq!(now.field("retry-after"), Some("180"));

    // So does a component that knows WASI.
    if has_target(WASI_TARGET) {
        krate.cargo(&["build", "--release", "--target", WASI_TARGET]);
        let answer = proxy.reload(
            &yaml
                .replace(TARGET, WASI_TARGET)
                .replace("Back at noon", "Back at one"),
        );
        assert_eq!(answer.code, 0, "{}", answer.stderr);
        assert_eq!(
            get(bind, "/shop").expect("an answer").text(),
            "Back at one.\n"
        );
    } else {
        println!("skipped: this Rust has no {WASI_TARGET}");
    }
    traffic.stop();
    assert!(proxy.is_running());
}

/// The README's crate in a directory of its own, far from the workspace.
struct Crate {
    dir: PathBuf,
}

impl Crate {
    fn new(dir: &Path, readme: &str) -> Self {
        let sdk = root().join("sdk");
        let manifest = block(readme, "toml", "[package]");
        assert!(manifest.contains("path = \"…/sdk\""), "{manifest}");
        let manifest = manifest.replace("…/sdk", &sdk.to_string_lossy());
        let write = |name: &str, text: &str| std::fs::write(dir.join(name), text).expect("a file");
        write("Cargo.toml", &manifest);
        // The versions the workspace is tested with, which are there already.
        std::fs::copy(root().join("Cargo.lock"), dir.join("Cargo.lock")).expect("Cargo.lock");
        std::fs::create_dir(dir.join("src")).expect("src");
        write("src/lib.rs", &block(readme, "rust", "impl Filter for"));
        // What it builds is kept from run to run.
        let kept = target().join("from-scratch");
        std::fs::create_dir_all(&kept).expect("a target directory");
        std::os::unix::fs::symlink(kept, dir.join("target")).expect("a link");
        Self {
            dir: dir.to_owned(),
        }
    }

    fn cargo(&self, arguments: &[&str]) {
        let output = Command::new(env!("CARGO"))
            .args(arguments)
            .current_dir(&self.dir)
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_TARGET_DIR")
            .output()
            .expect("cargo runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "cargo {arguments:?}:\n{said}{}",
            String::from_utf8_lossy(&output.stdout)
        );
    }

    fn edit(&self, from: &str, to: &str) {
        let path = self.dir.join("src/lib.rs");
        let text = std::fs::read_to_string(&path).expect("the source");
        assert!(text.contains(from), "{from} is not in:\n{text}");
        std::fs::write(path, text.replace(from, to)).expect("written");
    }

    fn module(&self, target: &str) -> PathBuf {
        self.dir
            .join("target")
            .join(target)
            .join("release/maintenance.wasm")
    }
}

/// Two clients who ask all the time, one on one connection and one on ever new ones.
struct Traffic {
    stopping: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Result<(), String>>>,
}

impl Traffic {
    fn start(bind: SocketAddr) -> Self {
        let (stopping, asked) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let ask = |mut exchange: Ask| {
            let (stopping, asked) = (stopping.clone(), asked.clone());
            std::thread::spawn(move || {
                while !stopping.load(Ordering::Relaxed) {
                    for (target, expected) in [("/", 200), ("/shop", 503)] {
                        match exchange(target) {
                            Ok(status) if status == expected => {
                                asked.fetch_add(1, Ordering::Relaxed)
                            }
                            Ok(status) => return Err(format!("{target}: {status}")),
                            Err(why) => return Err(format!("{target}: {why}")),
                        };
                    }
                }
                Ok(())
            })
        };
        let mut kept = Raw::connect(bind);
        let threads = vec![
            ask(Box::new(move |target| Ok(get(bind, target)?.status))),
            ask(Box::new(move |target| {
                kept.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"))?;
                Ok(kept.response()?.status)
            })),
        ];
        Self {
            stopping,
            asked,
            threads,
        }
    }

    /// Panics unless every request was answered as it should.
    fn stop(self) {
        self.stopping.store(true, Ordering::Relaxed);
        for thread in self.threads {
            assert_eq!(thread.join().expect("a client"), Ok(()));
        }
        let asked = self.asked.load(Ordering::Relaxed);
        assert!(asked > 100, "{asked} requests");
    }
}

/// The exit code of `sluicegate check` and what it says on standard error.
fn check(dir: &Path, yaml: &str) -> (i32, String) {
    let path = dir.join("checked.yaml");
    std::fs::write(&path, yaml).expect("written");
    let output = command()
        .args(["check", "-c"])
        .arg(&path)
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().unwrap_or(-1), said)
}

/// The fenced block of `language` in which `containing` is.
fn block(readme: &str, language: &str, containing: &str) -> String {
    let fence = format!("```{language}\n");
    let found = readme
        .split(&fence)
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .find(|text| text.contains(containing));
    found
        .unwrap_or_else(|| panic!("the README has no {language} with {containing}"))
        .to_owned()
}

fn has_target(name: &str) -> bool {
    let output = Command::new("rustc")
        .args(["--print", "sysroot"])
        .output()
        .expect("rustc runs");
    let sysroot = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    Path::new(&sysroot)
        .join("lib/rustlib")
        .join(name)
        .join("lib")
        .is_dir()
}

fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the workspace").to_owned()
}

/// The workspace's target directory.
fn target() -> PathBuf {
    let binary = sluicegate_tests::proxy::binary();
    let target = binary
        .parent()
        .and_then(Path::parent)
        .expect("target/PROFILE");
    target.to_owned()
}
