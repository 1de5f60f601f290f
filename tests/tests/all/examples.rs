//! Every example is a good configuration, and its README a transcript that can be followed.
//!
//! A README's ```console blocks are run in one shell, in order: lines that begin with `$ ` are commands, what follows is
//! what they print (both streams), in which `[..]` stands for any text of a line and `...` alone for any lines. A command
//! that ends with `&` is a server; the next one waits until its ports are open.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use sluicegate_tests::addresses::Addresses;
use sluicegate_tests::proxy::{binary, sluicegate};
use sluicegate_tests::wait::{DEADLINE, eventually};
use tempfile::TempDir;

/// The address that examples use, for which each run takes one of its own.
const LOOPBACK: &str = "127.0.0.1";
/// Printed by the shell after a command, with its exit code.
const DONE: &str = "@@done@@";

#[test]
fn sticky() {
    Example::open("sticky").follow();
}

#[test]
fn user_agent() {
    Example::open("user-agent").follow();
}

#[test]
fn tls() {
    Example::open("tls").follow();
}

#[test]
fn ssh() {
    Example::open("ssh").follow();
}

#[test]
fn auth_request() {
    Example::open("auth-request").follow();
}

#[test]
fn rate_limit() {
    Example::open("rate-limit").follow();
}

#[test]
fn handler() {
    Example::open("handler").follow();
}

#[test]
fn every_example_is_tested_and_good() {
    let mut names: Vec<_> = std::fs::read_dir(examples())
        .expect("examples")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.is_dir())
        .map(|path| {
            path.file_name()
                .expect("a name")
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    let all = [
        "auth-request",
        "handler",
        "rate-limit",
        "ssh",
        "sticky",
        "tls",
        "user-agent",
    ];
    assert_eq!(names, all);
    for name in names {
        let example = Example::open(&name);
        if name == "tls" {
            let into = example.path().display().to_string();
            let made = sluicegate(&["cert", "self-signed", "www.lab.test", "--out", &into]);
            assert_eq!(made.code, 0, "{}", made.stderr);
        }
        if name == "handler" {
            let built = Command::new("cargo")
                .current_dir(example.path())
                .args(["build", "--quiet", "--release", "--target", "wasm32-wasip2"])
                .status()
                .expect("cargo runs");
            assert!(built.success(), "the handler does not build");
        }
        let config = example.path().join("sluicegate.yaml").display().to_string();
        let checked = sluicegate(&["check", "-c", &config]);
        assert_eq!((checked.code, checked.stderr.as_str()), (0, ""), "{name}");
    }
}

#[test]
fn outputs_match_with_wildcards() {
    let check = |pattern: &str, text: &str, expected: bool| {
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(
            matches(&lines(pattern), &lines(text)),
            expected,
            "{pattern:?} {text:?}"
        );
    };
    check("a\nb", "a\nb", true);
    check("a\nb", "a", false);
    check("a", "a\nb", false);
    check("in [..] ms", "in 12 ms", true);
    check("in [..] ms[..]", "in 12 ms", true);
    check("in [..] ms", "in 12 s", false);
    check("[..]x[..]x", "xx", true);
    check("[..]x[..]x", "x", false);
    check("a\n...\nb", "a\nb", true);
    check("a\n...\nb", "a\n1\n2\nb", true);
    check("a\n...\nb", "a\n1\n2", false);
    check("...", "", true);
}

/// A copy of an example, and of what lies beside it, with addresses of its own.
struct Example {
    dir: TempDir,
    name: String,
    address: String,
}

struct Step {
    command: String,
    expected: Vec<String>,
}

impl Example {
    fn open(name: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let example = Self {
            dir,
            name: name.to_owned(),
            address: Addresses::new().ip().to_string(),
        };
        std::fs::create_dir(example.path()).expect("a directory");
        for folder in [examples(), examples().join(name)] {
            for entry in std::fs::read_dir(&folder).expect("an example") {
                let path = entry.expect("an entry").path();
                let to = example
                    .dir
                    .path()
                    .join(path.strip_prefix(examples()).expect("inside"));
                if path.is_file() {
                    let text = std::fs::read_to_string(&path).expect("text");
                    // Copied first, for the mode.
                    std::fs::copy(&path, &to).expect("copied");
                    std::fs::write(&to, text.replace(LOOPBACK, &example.address)).expect("written");
                }
            }
        }
        example
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join(&self.name)
    }

    /// Runs the README's commands; panics where the output is another.
    fn follow(&self) {
        let readme = std::fs::read_to_string(self.path().join("README.md")).expect("a README");
        let steps = steps(&readme);
        assert!(!steps.is_empty());
        let mut shell = Shell::start(&self.path());
        let mut transcript = String::new();
        for step in &steps {
            let (code, printed) = shell.run(&step.command);
            let plain = |line: &String| line.replace(&self.address, LOOPBACK);
            let printed: Vec<_> = printed.iter().map(plain).collect();
            let _ = writeln!(transcript, "$ {}\n{}", step.command, printed.join("\n"));
            let expected: Vec<_> = step.expected.iter().map(plain).collect();
            assert!(
                matches(&expected, &printed),
                "exit code {code}; expected:\n{}\n--- so far:\n{transcript}{}",
                step.expected.join("\n"),
                self.logs()
            );
            for address in self.served(&step.command) {
                let open = eventually(DEADLINE, || TcpStream::connect(address).is_ok());
                assert!(
                    open,
                    "{}: {address} is not open\n{}",
                    step.command,
                    self.logs()
                );
            }
        }
    }

    /// The addresses that a command in the background serves: those it names, or those of the configuration; of an
    /// SSH server, its port.
    fn served(&self, command: &str) -> Vec<SocketAddr> {
        let Some(command) = command.strip_suffix('&') else {
            return Vec::new();
        };
        let words = |text: &str| -> Vec<SocketAddr> {
            text.split(|c: char| c.is_whitespace() || c == '=')
                .filter_map(|word| word.parse().ok())
                .collect()
        };
        if let Some(arguments) = command.strip_prefix("./sshd.sh ") {
            let port = arguments.trim().rsplit(' ').next().unwrap_or_default();
            return words(&format!("{}:{port}", self.address));
        }
        if !command.starts_with("sluicegate run") {
            return words(command);
        }
        let config =
            std::fs::read_to_string(self.path().join("sluicegate.yaml")).expect("configuration");
        config
            .lines()
            .filter_map(|line| line.trim().strip_prefix("bind: ")?.parse().ok())
            .collect()
    }

    /// What the servers said.
    fn logs(&self) -> String {
        let mut all = String::new();
        for entry in std::fs::read_dir(self.path()).expect("the example") {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|e| e == "log") {
                let text = std::fs::read_to_string(&path).unwrap_or_default();
                let _ = write!(all, "--- {}\n{text}", path.display());
            }
        }
        all
    }
}

/// The commands of all console blocks, each with what it prints.
fn steps(readme: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for block in readme.split("```console\n").skip(1) {
        let block = block.split("```").next().unwrap_or_default();
        for line in block.lines() {
            match (line.strip_prefix("$ "), steps.last_mut()) {
                (Some(command), _) => steps.push(Step {
                    command: command.to_owned(),
                    expected: Vec::new(),
                }),
                (None, Some(step)) => step.expected.push(line.to_owned()),
                (None, None) => panic!("output before a command: {line}"),
            }
        }
    }
    steps
}

/// Whether `text` is what `pattern` says.
fn matches(pattern: &[String], text: &[String]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((first, rest)) if first == "..." => {
            (0..=text.len()).any(|n| matches(rest, &text[n..]))
        }
        Some((first, rest)) => text
            .split_first()
            .is_some_and(|(line, more)| line_matches(first, line) && matches(rest, more)),
    }
}

fn line_matches(pattern: &str, line: &str) -> bool {
    match pattern.split_once("[..]") {
        None => pattern == line,
        Some((before, after)) => line.strip_prefix(before).is_some_and(|rest| {
            (0..=rest.len()).any(|n| rest.is_char_boundary(n) && line_matches(after, &rest[n..]))
        }),
    }
}

/// A shell that runs commands one after another, and ends what they started.
struct Shell {
    child: Child,
    stdin: ChildStdin,
    lines: mpsc::Receiver<String>,
    servers: usize,
}

impl Shell {
    fn start(dir: &Path) -> Self {
        let path = std::env::var("PATH").unwrap_or_default();
        let bin = binary()
            .parent()
            .expect("a directory")
            .display()
            .to_string();
        let mut child = Command::new("bash")
            .args(["--noprofile", "--norc"])
            .current_dir(dir)
            .env("PATH", format!("{bin}:{path}"))
            .env("LC_ALL", "C.UTF-8")
            .env("XDG_CACHE_HOME", binary().with_file_name("test-cache"))
            .env("no_proxy", "*")
            .env_remove("SLUICEGATE_CONFIG")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("bash runs");
        let mut stdin = child.stdin.take().expect("a pipe");
        let stdout = child.stdout.take().expect("a pipe");
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        stdin.write_all(b"exec 2>&1\n").expect("written");
        Self {
            child,
            stdin,
            lines,
            servers: 0,
        }
    }

    /// The exit code of a command and the lines it printed. Servers write into files instead.
    fn run(&mut self, command: &str) -> (i32, Vec<String>) {
        let line = match command.strip_suffix('&') {
            Some(server) => {
                self.servers += 1;
                format!("{server} </dev/null >server-{}.log 2>&1 &", self.servers)
            }
            None => format!("{{ {command}\n}} </dev/null"),
        };
        writeln!(self.stdin, "{line}\necho \"{DONE} $?\"").expect("the shell listens");
        let mut printed = Vec::new();
        loop {
            let line = self
                .lines
                .recv_timeout(DEADLINE.max(Duration::from_secs(60)));
            let line =
                line.unwrap_or_else(|_| panic!("{command} does not end; so far: {printed:?}"));
            // What does not end with a line break stands before the mark.
            if let Some((before, code)) = line.split_once(DONE) {
                if !before.is_empty() {
                    printed.push(before.to_owned());
                }
                return (code.trim().parse().unwrap_or(-1), printed);
            }
            printed.push(line);
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self
            .stdin
            .write_all(b"kill $(jobs -p) 2>/dev/null; wait; exit\n");
        let gone = eventually(DEADLINE, || {
            self.child.try_wait().is_ok_and(|ended| ended.is_some())
        });
        if !gone {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn examples() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the workspace").join("examples")
}
