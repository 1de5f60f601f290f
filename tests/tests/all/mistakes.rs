//! Mistakes that operators make, and what they are told: the exact text, for it is read at night. Each says where it is, what is
//! wrong, and what to do.

use std::fs::Permissions;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use sluicegate_tests::proxy::{command, sluicegate};
use tempfile::TempDir;

const GOOD: &str = "\
admin: off
pools:
  web:
    endpoints: [127.0.0.1:9001]
filters:
  gate:
    module: builtin:ua-block
    settings: {deny: [badcurl]}
listeners:
  - name: www
    bind: 127.0.0.1:0
    protocol: http
    filters: [gate]
    pool: web
";

const NOBODY: u32 = 65534;

/// What is wrong with [`GOOD`], as the text that is replaced and what stands there instead.
struct Case {
    name: &'static str,
    verb: &'static str,
    from: &'static str,
    to: &'static str,
    code: i32,
}

const fn case(name: &'static str, from: &'static str, to: &'static str) -> Case {
    Case {
        name,
        verb: "check",
        from,
        to,
        code: 78,
    }
}

/// Only a start finds it.
const fn start(name: &'static str, from: &'static str, to: &'static str) -> Case {
    Case {
        verb: "run",
        code: 1,
        ..case(name, from, to)
    }
}

const CASES: &[Case] = &[
    case("indentation", "    bind:", "   bind:"),
    case("tab", "    endpoints:", "\tendpoints:"),
    case(
        "two keys in a line",
        "protocol: http",
        "protocol: http pool: web",
    ),
    case("unclosed quote", "[badcurl]", "[\"badcurl]"),
    case("star without quotes", "[badcurl]", "[*bad]"),
    case("at sign without quotes", "[badcurl]", "[@bad]"),
    case("unclosed bracket", "[badcurl]", "[badcurl"),
    case("missing space after a colon", "pool: web", "pool:web"),
    case("unknown key", "    endpoints:", "    endpoint:"),
    case(
        "key of another proxy",
        "    bind:",
        "    listen: x\n    bind:",
    ),
    case(
        "certificate beside the list of them",
        "    pool: web",
        "    tls: {cert: a.pem, key: a.key}\n    pool: web",
    ),
    case(
        "path beside the kind of check",
        "    endpoints:",
        "    check: {path: /healthz}\n    endpoints:",
    ),
    case(
        "endpoints by another name",
        "    endpoints:",
        "    servers:",
    ),
    case("a port alone", "bind: 127.0.0.1:0", "bind: 8080"),
    case(
        "balance of another proxy",
        "    endpoints:",
        "    balance: leastconn\n    endpoints:",
    ),
    case("wrong type", "[127.0.0.1:9001]", "127.0.0.1:9001"),
    case("unknown word", "protocol: http", "protocol: https"),
    case(
        "bad duration",
        "    endpoints:",
        "    connect-timeout: 10\n    endpoints:",
    ),
    case(
        "duration too short",
        "    endpoints:",
        "    resolve-interval: 1ms\n    endpoints:",
    ),
    case(
        "bad size",
        "    pool: web",
        "    limits: {header-bytes: 64k}\n    pool: web",
    ),
    case(
        "size out of range",
        "    pool: web",
        "    limits: {header-bytes: 1MiB, target-bytes: 1}\n    pool: web",
    ),
    case("bad address", "127.0.0.1:9001", "127.0.0.256:9001"),
    case("address without port", "127.0.0.1:9001", "127.0.0.1"),
    case(
        "URL as an endpoint",
        "127.0.0.1:9001",
        "\"http://127.0.0.1:9001/\"",
    ),
    case(
        "IPv6 without brackets",
        "bind: 127.0.0.1:0",
        "bind: ::1:8080",
    ),
    case(
        "host name as a bind address",
        "bind: 127.0.0.1:0",
        "bind: localhost:8080",
    ),
    case("empty endpoints", "[127.0.0.1:9001]", "[]"),
    case(
        "duplicate listener",
        "listeners:\n",
        "listeners:\n  - {name: www, bind: \":81\", protocol: tcp, pool: web}\n",
    ),
    case(
        "duplicate address",
        "listeners:\n  - name: www\n    bind: 127.0.0.1:0",
        "listeners:\n  - {name: a, bind: \":81\", protocol: tcp, pool: web}\n  - name: www\n    bind: :81",
    ),
    case("unknown pool", "pool: web", "pool: wbe"),
    case("unknown filter", "[gate]", "[gaet]"),
    case("module in place of a name", "[gate]", "[builtin:sticky]"),
    case(
        "unknown filter setting",
        "deny: [badcurl]",
        "deny: [badcurl], actoin: drop",
    ),
    case(
        "wrong filter setting",
        "deny: [badcurl]",
        "deny: [badcurl], action: dorp",
    ),
    case(
        "missing filter setting",
        "settings: {deny: [badcurl]}",
        "settings: {}",
    ),
    case(
        "unknown variable in a filter",
        "builtin:ua-block\n    settings: {deny: [badcurl]}",
        "builtin:headers\n    settings: {request: [{set: x-a, value: \"${client.adress}\"}]}",
    ),
    case(
        "header that is not the filter's",
        "builtin:ua-block\n    settings: {deny: [badcurl]}",
        "builtin:headers\n    settings: {request: [{set: host, value: x}, {set: \"a b\", value: x}]}",
    ),
    case("missing module", "builtin:ua-block", "gate.wasm"),
    case("module that is none", "builtin:ua-block", "page.wasm"),
    case(
        "capability that does not exist",
        "    settings:",
        "    capabilities: [http]\n    settings:",
    ),
    case(
        "missing certificate",
        "    pool: web",
        "    pool: web\n    tls: {certificates: [{cert: none.crt, key: a.test.key}]}",
    ),
    case(
        "key of another certificate",
        "    pool: web",
        "    pool: web\n    tls: {certificates: [{cert: a.test.crt, key: b.test.key}]}",
    ),
    case(
        "certificate and key swapped",
        "    pool: web",
        "    pool: web\n    tls: {certificates: [{cert: a.test.key, key: a.test.crt}]}",
    ),
    case(
        "unknown cipher suite",
        "    pool: web",
        "    pool: web\n    tls: {suites: [TLS_AES_128_GCM_SHA265], certificates: [{cert: a.test.crt, key: a.test.key}]}",
    ),
    case("unset variable", "127.0.0.1:9001", "\"${BACKEND}\""),
    case("missing secret", "[badcurl]", "[\"${file:none}\"]"),
    case(
        "admin on the network",
        "admin: off",
        "admin: {bind: 0.0.0.0:9901}",
    ),
    case(
        "HTTP settings of a TCP listener",
        "protocol: http\n    filters: [gate]",
        "protocol: tcp\n    http2: false",
    ),
    case(
        "HTTP filter on a TCP listener",
        "protocol: http",
        "protocol: tcp",
    ),
    start(
        "port in use",
        "bind: 127.0.0.1:0",
        "bind: [127.0.0.1:0, 127.0.0.1:PORT]",
    ),
    start(
        "address of another machine",
        "bind: 127.0.0.1:0",
        "bind: 192.0.2.1:8080",
    ),
    start(
        "admin socket in a file's place",
        "admin: off",
        "admin: {bind: \"unix:page.wasm/admin.sock\"}",
    ),
    start(
        "access log in a directory that is none",
        "admin: off",
        "admin: off\ntelemetry: {access-log: {to: ./none/access.log}}",
    ),
];

#[test]
fn what_operators_are_told() {
    let bench = Bench::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let mut told = String::new();
    let mut wrong = Vec::new();
    for case in CASES {
        let yaml = GOOD.replacen(case.from, &case.to.replace("PORT", &port), 1);
        if yaml == GOOD {
            wrong.push(format!("{}: nothing is replaced", case.name));
        }
        bench.file("sluicegate.yaml", &yaml);
        let got = bench.run(&[case.verb, "-c", "sluicegate.yaml"], &[]);
        if got.code != case.code {
            wrong.push(format!(
                "{}: exit code {}\n{}",
                case.name, got.code, got.text
            ));
        }
        let text = got.text.replace(&port, "[PORT]");
        told.push_str(&format!("# {}\n{text}\n", case.name));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    bench.shown("mistakes", &told);
}

#[test]
fn what_has_to_do_with_files_and_servers() {
    let bench = Bench::new();
    let mut told = String::new();
    let mut tell = |name: &str, code: i32, got: Got| {
        assert_eq!(got.code, code, "{name}: {}", got.text);
        told.push_str(&format!("# {name}\n{}\n", got.text));
    };
    tell("no configuration", 78, bench.run(&["check"], &[]));
    tell(
        "no such configuration",
        78,
        bench.run(&["check", "-c", "none.yaml"], &[]),
    );
    std::fs::create_dir(bench.0.path().join("empty.d")).expect("a directory");
    tell(
        "empty directory",
        78,
        bench.run(&["check", "-c", "empty.d"], &[]),
    );
    bench.file("one.yaml", GOOD);
    let two = GOOD.replace("admin: off\n", "");
    bench.file("two.yaml", &two);
    tell(
        "the same names in two files",
        78,
        bench.run(&["check", "-c", "one.yaml", "-c", "two.yaml"], &[]),
    );
    bench.file("empty.yaml", "# nothing yet\n");
    tell(
        "empty file",
        78,
        bench.run(&["check", "-c", "empty.yaml"], &[]),
    );
    bench.file("latin1.yaml", b"pools: {gr\xf6sse: {}}\n");
    tell(
        "not UTF-8",
        78,
        bench.run(&["check", "-c", "latin1.yaml"], &[]),
    );
    tell(
        "nobody at the admin socket",
        69,
        bench.run(&["reload", "--admin", "./none.sock"], &[]),
    );
    tell(
        "admin address that is none",
        2,
        bench.run(&["reload", "--admin", "none"], &[]),
    );
    let off = bench.run(&["reload", "-c", "one.yaml"], &[]);
    tell("admin interface turned off", 1, off);
    tell(
        "log filter that is none",
        2,
        bench.run(&["run", "-c", "one.yaml"], &[("SLUICEGATE_LOG", "info,[")]),
    );
    tell(
        "log format that is none",
        2,
        bench.run(
            &["run", "-c", "one.yaml"],
            &[("SLUICEGATE_LOG_FORMAT", "xml")],
        ),
    );
    tell(
        "address that is none for proxy",
        78,
        bench.run(&["proxy", "--to", "localhost", "--listen", ":0"], &[]),
    );
    tell("misspelt verb", 2, bench.run(&["relaod"], &[]));
    bench.shown("mistakes_around", &told);
}

/// As a user who is not root, so that a file can be closed to it.
#[test]
fn a_file_that_may_not_be_read() {
    let bench = Bench::new();
    let folder = bench.0.path();
    let yaml = GOOD.replace(
        "    pool: web",
        "    pool: web\n    tls: {certificates: [{cert: a.test.crt, key: a.test.key}]}",
    );
    bench.file("sluicegate.yaml", &yaml);
    let set = |path: &Path, mode| {
        std::fs::set_permissions(path, Permissions::from_mode(mode)).expect("a mode")
    };
    set(folder, 0o755);
    set(&folder.join("a.test.key"), 0o000);
    let mut check = command();
    check
        .args(["check", "-c", "sluicegate.yaml"])
        .current_dir(folder);
    if rustix::process::geteuid().is_root() {
        check.uid(NOBODY).gid(NOBODY);
    }
    let output = check.output().expect("sluicegate runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("error[unreadable-file]"), "{said}");
    assert!(said.contains("a.test.key\": permission denied\n"), "{said}");
    assert!(said.contains("help: let the user with the id "), "{said}");
}

/// Whatever a test has seen is documented.
#[test]
fn every_code_is_in_the_documentation() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace");
    let operations = std::fs::read_to_string(root.join("docs/operations.md")).expect("a file");
    let mut missing = Vec::new();
    for folder in ["tests/tests/all/snapshots", "proxy/src/config/snapshots"] {
        for entry in std::fs::read_dir(root.join(folder)).expect("snapshots") {
            let text = std::fs::read_to_string(entry.expect("an entry").path()).expect("text");
            for line in text.lines() {
                let finding = line
                    .strip_prefix("error[")
                    .or_else(|| line.strip_prefix("warning["));
                let code = finding.and_then(|rest| rest.split(']').next());
                if let Some(code) = code.filter(|code| !operations.contains(&format!("`{code}`"))) {
                    missing.push(code.to_owned());
                }
            }
        }
    }
    missing.sort();
    missing.dedup();
    assert!(missing.is_empty(), "{missing:?}");
}

struct Bench(TempDir);

struct Got {
    code: i32,
    text: String,
}

impl Bench {
    fn new() -> Self {
        let bench = Self(tempfile::tempdir().expect("a directory"));
        let out = bench.0.path().to_string_lossy().into_owned();
        for name in ["a.test", "b.test"] {
            let made = sluicegate(&["cert", "self-signed", name, "--out", &out]);
            assert_eq!(made.code, 0, "{}", made.stderr);
        }
        bench.file("page.wasm", "<html>404 Not Found</html>");
        bench
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.0.path().join(name), content).expect("a file");
    }

    fn run(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Got {
        let mut child = command()
            .args(arguments)
            .envs(environment.iter().copied())
            .current_dir(self.0.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("sluicegate starts");
        // A server that starts after all would never end.
        let ended = sluicegate_tests::wait::until(Duration::from_secs(30), || {
            child.try_wait().expect("wait").map(|_| ())
        });
        if ended.is_none() {
            let _ = child.kill();
        }
        let output = child.wait_with_output().expect("it ends");
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        let directory = self.0.path().display().to_string();
        Got {
            code: output.status.code().unwrap_or(-1),
            text: text.replace(&directory, "[DIR]"),
        }
    }

    fn shown(&self, name: &str, text: &str) {
        insta::with_settings!({omit_expression => true, prepend_module_to_snapshot => false}, {
            insta::assert_snapshot!(name, text);
        });
    }
}
