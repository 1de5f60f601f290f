//! The real `sluicegate` process under test: started with a configuration, watched, signalled, and gone at the end.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use tempfile::TempDir;

use crate::wait::{DEADLINE, eventually, until};

/// A running proxy; killed when dropped. Its files live in a directory of its own.
#[derive(Debug)]
pub struct Proxy {
    child: Child,
    dir: TempDir,
}

/// What a finished command printed and how it ended.
#[derive(Debug, Clone)]
pub struct Output {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// How a proxy is started, for tests that need more than a configuration.
#[derive(Debug)]
pub struct Start {
    dir: TempDir,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    /// What a shell does to its own limits before it becomes the process.
    limits: Vec<String>,
}

/// What the process holds, from `/proc`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resources {
    pub resident_bytes: u64,
    pub descriptors: usize,
    pub threads: u64,
}

impl Start {
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self {
            dir: tempfile::tempdir().expect("a temporary directory"),
            arguments: Vec::new(),
            environment: Vec::new(),
            limits: Vec::new(),
        }
    }

    /// Where the configuration will be; files put here can be named relatively in it.
    pub fn directory(&self) -> &Path {
        self.dir.path()
    }

    pub fn file(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        std::fs::write(self.dir.path().join(name), content).expect("a file");
        self
    }

    /// A further argument of `sluicegate run`.
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.into());
        self
    }

    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// The soft limit of open files that the process starts with.
    pub fn descriptors(mut self, limit: u64) -> Self {
        self.limits.push(format!("ulimit -Sn {limit}"));
        self
    }

    /// How large a file may become, in units of 512 bytes: a disk that is full. [`Proxy::empty_the_disk`] lifts it.
    pub fn disk(mut self, blocks: u64) -> Self {
        self.limits
            .push(format!("trap '' XFSZ && ulimit -Sf {blocks}"));
        self
    }

    /// Starts and waits until the process is ready; panics with its output when it ends or is late.
    pub fn run(self, yaml: &str) -> Proxy {
        let mut proxy = self.spawn(yaml);
        let ready = until(DEADLINE, || {
            if let Some(status) = proxy.child.try_wait().expect("wait") {
                return Some(Err(status));
            }
            let answer = proxy.admin("GET", "/ready").ok()?;
            (answer.status == 200).then_some(Ok(()))
        });
        match ready {
            Some(Ok(())) => proxy,
            Some(Err(status)) => panic!(
                "sluicegate ended ({status}) with this configuration:\n{yaml}\n{}",
                proxy.stderr()
            ),
            None => panic!("sluicegate is not ready in time:\n{}", proxy.stderr()),
        }
    }

    /// Starts without waiting.
    pub fn spawn(self, yaml: &str) -> Proxy {
        let config = self.dir.path().join("sluicegate.yaml");
        std::fs::write(&config, with_admin(yaml, self.dir.path())).expect("configuration");
        let open = |name: &str| File::create(self.dir.path().join(name)).expect("an output file");
        let mut command = match self.limits.is_empty() {
            true => Command::new(binary()),
            false => {
                let mut shell = Command::new("sh");
                let script = format!("{} && exec \"$@\"", self.limits.join(" && "));
                shell.args(["-c", &script, "sh"]).arg(binary());
                shell
            }
        };
        let child = command
            .args(["run", "-c"])
            .arg(&config)
            .args(&self.arguments)
            .env_remove("SLUICEGATE_CONFIG")
            .env("XDG_CACHE_HOME", cache())
            .envs(self.environment.iter().map(|(k, v)| (k, v)))
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(open("stdout"))
            .stderr(open("stderr"))
            .spawn()
            .expect("sluicegate starts");
        Proxy {
            child,
            dir: self.dir,
        }
    }
}

impl Proxy {
    /// Starts with a configuration and waits until it is ready. An admin socket is added when `yaml` names none.
    pub fn start(yaml: &str) -> Self {
        Start::new().run(yaml)
    }

    pub fn directory(&self) -> &Path {
        self.dir.path()
    }

    pub fn admin_socket(&self) -> PathBuf {
        self.dir.path().join("admin.sock")
    }

    /// One request to the admin socket.
    pub fn admin(&self, method: &str, path: &str) -> std::io::Result<crate::client::Response> {
        let mut stream = UnixStream::connect(self.admin_socket())?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.write_all(
            format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
                .as_bytes(),
        )?;
        let mut raw = Vec::new();
        stream.read_to_end(&mut raw)?;
        let text = String::from_utf8_lossy(&raw);
        let (head, body) = text
            .split_once("\r\n\r\n")
            .ok_or(std::io::ErrorKind::UnexpectedEof)?;
        Ok(crate::client::Response {
            status: head
                .split(' ')
                .nth(1)
                .and_then(|s| s.parse().ok())
                .unwrap_or_default(),
            head: head.to_owned(),
            body: body.as_bytes().to_vec(),
        })
    }

    /// The value of one series of `/metrics`, given with its labels as the text has them; 0 when it is not there.
    pub fn metric(&self, series: &str) -> f64 {
        let text = self.admin("GET", "/metrics").expect("metrics").text();
        text.lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
            .unwrap_or(0.0)
    }

    /// Writes a new configuration without telling the process.
    pub fn configure(&self, yaml: &str) {
        // Moved into place, so that a watching process never reads half a file.
        let new = self.dir.path().join("sluicegate.yaml.new");
        std::fs::write(&new, with_admin(yaml, self.dir.path())).expect("configuration");
        std::fs::rename(&new, self.dir.path().join("sluicegate.yaml")).expect("rename");
    }

    /// Writes a new configuration and runs `sluicegate reload`.
    pub fn reload(&self, yaml: &str) -> Output {
        self.configure(yaml);
        let socket = self.admin_socket();
        sluicegate(&["reload", "--admin", &socket.to_string_lossy()])
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a pid"), signal).expect("the process is there");
    }

    /// Waits for the process to end; panics when it does not.
    pub fn wait(&mut self) -> ExitStatus {
        until(DEADLINE, || self.child.try_wait().expect("wait"))
            .unwrap_or_else(|| panic!("sluicegate does not end:\n{}", self.stderr()))
    }

    /// Files may be as large as they like again.
    pub fn empty_the_disk(&self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let no_limit = Rlimit {
            current: None,
            maximum: None,
        };
        prlimit(pid, Resource::Fsize, no_limit).expect("a limit");
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("wait").is_none()
    }

    /// Everything it wrote to standard error so far.
    pub fn stderr(&self) -> String {
        self.output("stderr")
    }

    pub fn stdout(&self) -> String {
        self.output("stdout")
    }

    /// Waits until a line of standard output (where the access log goes by default) contains `text`; gives the line.
    pub fn stdout_line(&self, text: &str) -> String {
        let find = || {
            let all = self.stdout();
            all.lines().find(|l| l.contains(text)).map(str::to_owned)
        };
        until(DEADLINE, find)
            .unwrap_or_else(|| panic!("no line with {text:?} in:\n{}", self.stdout()))
    }

    /// Waits until standard error contains `text`.
    pub fn wait_for_log(&self, text: &str) {
        let found = eventually(DEADLINE, || self.stderr().contains(text));
        assert!(found, "{text:?} is not in the log:\n{}", self.stderr());
    }

    pub fn resources(&self) -> Resources {
        let proc = PathBuf::from(format!("/proc/{}", self.child.id()));
        let status = std::fs::read_to_string(proc.join("status")).expect("the process is there");
        let number = |key: &str| -> u64 {
            let line = status.lines().find_map(|l| l.strip_prefix(key));
            let word = line.and_then(|l| l.split_ascii_whitespace().next());
            word.and_then(|w| w.parse().ok()).unwrap_or_default()
        };
        Resources {
            resident_bytes: number("VmRSS:") * 1024,
            descriptors: std::fs::read_dir(proc.join("fd"))
                .expect("descriptors")
                .count(),
            threads: number("Threads:"),
        }
    }

    /// What it holds once nothing runs any more: no connection, exchange or session of a client.
    pub fn settled(&self) -> Resources {
        let quiet = || self.running().is_empty();
        assert!(
            eventually(DEADLINE, quiet),
            "these do not end: {:?}",
            self.running()
        );
        self.resources()
    }

    /// Panics unless the process gets back to what it held `before`: nothing running, no descriptor and no thread more,
    /// and not more than `slack` bytes of memory more (allocators keep some; a leak grows with the number of cases).
    pub fn assert_nothing_left(&self, before: Resources, slack: u64) {
        let back = || {
            let now = self.resources();
            self.running().is_empty()
                && now.descriptors <= before.descriptors
                && now.threads <= before.threads
                && now.resident_bytes <= before.resident_bytes + slack
        };
        assert!(
            eventually(DEADLINE, back),
            "left behind: {:?} before, {:?} now; running: {:?}",
            before,
            self.resources(),
            self.running()
        );
    }

    /// The gauges of running things that are not 0.
    fn running(&self) -> Vec<String> {
        let text = self.admin("GET", "/metrics").expect("metrics").text();
        let gauges = ["connections", "exchanges", "sessions", "endpoint"];
        text.lines()
            .filter(|line| {
                gauges
                    .iter()
                    .any(|g| line.starts_with(&format!("sluicegate_{g}_active")))
                    && !line.ends_with(" 0.0")
            })
            .map(str::to_owned)
            .collect()
    }

    fn output(&self, name: &str) -> String {
        let bytes = std::fs::read(self.dir.path().join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- sluicegate's standard error:\n{}", self.stderr());
        }
    }
}

/// Runs `sluicegate` with `arguments` to its end.
pub fn sluicegate(arguments: &[&str]) -> Output {
    let output = command()
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("sluicegate starts");
    Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// `sluicegate` in a settled environment, for tests that need more than [`sluicegate`].
pub fn command() -> Command {
    let mut command = Command::new(binary());
    command
        .env_remove("SLUICEGATE_CONFIG")
        .env_remove("SLUICEGATE_LOG")
        .env_remove("SLUICEGATE_LOG_FORMAT")
        .env("XDG_CACHE_HOME", cache());
    command
}

/// Where all proxies of the tests keep compiled modules: beside the binary, so that each is compiled once.
fn cache() -> PathBuf {
    binary().with_file_name("test-cache")
}

/// The binary under test: `SLUICEGATE_BIN`, else `sluicegate` beside the directory of the test executable, where
/// building the workspace puts it.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("SLUICEGATE_BIN") {
        return path.into();
    }
    let exe = std::env::current_exe().expect("the test executable");
    // target/PROFILE/deps/all-HASH
    let profile = exe.parent().and_then(Path::parent).expect("target/PROFILE");
    let path = profile.join("sluicegate");
    assert!(
        path.exists(),
        "{} is not built: run `cargo build -p sluicegate`, or set SLUICEGATE_BIN",
        path.display()
    );
    path
}

fn with_admin(yaml: &str, directory: &Path) -> String {
    match yaml.lines().any(|line| line.starts_with("admin:")) {
        true => yaml.to_owned(),
        false => format!(
            "{}\nadmin: {{bind: \"unix:{}/admin.sock\"}}\n",
            yaml.trim_end(),
            directory.display()
        ),
    }
}
