//! What `sluicegate check` says: the texts that operators and their tools read, and the exit codes.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use sluicegate_tests::proxy::{command, sluicegate};
use tempfile::TempDir;

const GOOD: &str = "\
pools:
  web:
    endpoints: [\"127.0.0.1:9001\", \"127.0.0.1:9002\"]
filters:
  no-badcurl:
    module: builtin:ua-block
    settings: {deny: [badcurl], action: drop}
listeners:
  - name: www
    bind: 127.0.0.1:8080
    protocol: http
    filters: [no-badcurl]
    pool: web
";

#[test]
fn a_good_configuration() {
    let bench = Bench::new();
    bench.snapshot("good", GOOD);
    // A warning is no failure.
    let idle = GOOD.replace(
        "filters:\n  no",
        "  spare: {endpoints: [\"127.0.0.1:1\"]}\nfilters:\n  no",
    );
    assert_eq!(bench.check(&idle).code, 0);
}

#[test]
fn references_and_several_errors() {
    let bench = Bench::new();
    bench.snapshot("unknown_pool", &GOOD.replace("pool: web", "pool: wbe"));
    bench.snapshot(
        "several_errors",
        &GOOD
            .replace("action: drop", "action: dorp")
            .replace("pool: web", "pol: web")
            .replace("127.0.0.1:9002", "127.0.0.1"),
    );
}

#[test]
fn settings_that_the_module_refuses() {
    let bench = Bench::new();
    // By its schema, in flow and in block style.
    bench.snapshot(
        "settings_of_another_shape",
        &GOOD.replace("action: drop", "action: dorp, alow: [x]"),
    );
    // By its own words, for what no schema can say.
    let headers = GOOD
        .replace("module: builtin:ua-block", "module: builtin:headers")
        .replace(
            "settings: {deny: [badcurl], action: drop}",
            "\
settings:
      request:
        - {set: x-ok, value: \"1\"}
        - append: x-by
          value: \"${server.adress}\"
        - {remove: content-length}",
        );
    bench.snapshot("settings_with_wrong_values", &headers);
    // A pool that a filter names.
    let router = GOOD
        .replace("module: builtin:ua-block", "module: builtin:router")
        .replace(
            "settings: {deny: [badcurl], action: drop}",
            "settings: {rules: [{match: {path-prefix: /api}, pool: wbe}]}",
        );
    bench.snapshot("settings_that_name_an_unknown_pool", &router);
}

#[test]
fn modules_that_cannot_be_used() {
    let bench = Bench::new();
    bench.file("page.wasm", "<html>404 Not Found</html>");
    bench.file("empty.wasm", "");
    let whole = guest("0.1.0", "");
    bench.file("truncated.wasm", &whole[..whole.len() / 2]);
    bench.file(
        "alien.wasm",
        wat::parse_str("(module (func (export \"run\")))").expect("wat"),
    );
    bench.file(
        "component.wasm",
        wat::parse_str("(component)").expect("wat"),
    );
    bench.file("newer.wasm", guest("9.9.0", ""));
    bench.file(
        "logging.wasm",
        guest(
            "0.1.0",
            "(import \"sluicegate:filter/log@0.1.0\" \"log\" (func (param i32 i32 i32)))",
        ),
    );
    bench.file("good.wasm", &whole);
    let with = |module: &str| {
        let module = format!("module: {module}");
        GOOD.replace("module: builtin:ua-block", &module)
            .replace("    settings: {deny: [badcurl], action: drop}\n", "")
    };
    for name in [
        "page",
        "empty",
        "truncated",
        "alien",
        "component",
        "newer",
        "logging",
        "missing",
    ] {
        bench.snapshot(&format!("module_{name}"), &with(&format!("./{name}.wasm")));
    }
    bench.snapshot("module_unknown_builtin", &with("builtin:ua-blok"));
    assert_eq!(bench.check(&with("./good.wasm")).code, 0);
    let granted = with("./logging.wasm\n    capabilities: [log]");
    let granted = bench.check(&granted);
    assert_eq!(granted.code, 0, "{}", granted.text());
}

#[test]
fn a_module_that_is_pinned_is_that_one() {
    let bench = Bench::new();
    let module = guest("0.1.0", "");
    bench.file("good.wasm", &module);
    let with = |digest: &str| {
        GOOD.replace(
            "module: builtin:ua-block",
            &format!("module: ./good.wasm\n    sha256: {digest}"),
        )
        .replace("    settings: {deny: [badcurl], action: drop}\n", "")
    };
    let inspected = sluicegate(&["filter", "inspect", &format!("{}/good.wasm", bench.path())]);
    let digest = inspected
        .stdout
        .lines()
        .find_map(|line| line.strip_prefix("sha256"))
        .map(|digest| digest.trim().to_owned())
        .expect("a digest");
    let good = bench.check(&with(&digest));
    assert_eq!(good.code, 0, "{}", good.text());
    // It is shown, so that it can be copied.
    assert!(good.stdout.contains(&digest), "{}", good.stdout);
    assert_eq!(bench.check(&with(&digest.to_uppercase())).code, 0);
    let other = with(&format!("{:0>64}", "f"));
    let refused = bench.check(&other);
    assert_eq!(refused.code, 78);
    for text in ["digest-mismatch", digest.as_str(), "000f"] {
        assert!(refused.stderr.contains(text), "{text}: {}", refused.stderr);
    }
    assert!(
        refused.stderr.contains("sluicegate.yaml:7:13"),
        "{}",
        refused.stderr
    );
}

#[test]
fn certificates_that_cannot_be_used() {
    let bench = Bench::new();
    let made = sluicegate(&["cert", "self-signed", "a.test", "--out", &bench.path()]);
    assert_eq!(made.code, 0, "{}", made.stderr);
    bench.file("garbage.crt", "no PEM here\n");
    let with = |cert: &str, key: &str| {
        GOOD.replace(
            "    pool: web\n",
            &format!("    pool: web\n    tls: {{certificates: [{{cert: {cert}, key: {key}}}]}}\n"),
        )
    };
    bench.snapshot("certificate_missing", &with("none.crt", "a.test.key"));
    bench.snapshot("certificate_garbage", &with("garbage.crt", "a.test.key"));
    bench.snapshot("certificate_as_key", &with("a.test.crt", "a.test.crt"));
    let good = bench.check(&with("a.test.crt", "a.test.key"));
    assert_eq!(good.code, 0, "{}", good.text());
}

#[test]
fn for_programs() {
    let bench = Bench::new();
    let wrong = GOOD
        .replace("pool: web", "pool: wbe")
        .replace("127.0.0.1:9002", "127.0.0.1");
    bench.snapshot_with("as_json", &["-o", "json"], &wrong);
    bench.snapshot_with("as_github", &["-o", "github"], &wrong);
    let good = bench.run(&["check", "-c", "sluicegate.yaml", "-o", "json"], GOOD, "");
    assert_eq!(
        (good.code, good.stdout.trim(), good.stderr.as_str()),
        (0, "[]", "")
    );
    let json = bench.run(
        &["check", "-c", "sluicegate.yaml", "-o", "json"],
        &wrong,
        "",
    );
    let found: serde_json::Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!(found.as_array().map(Vec::len), Some(2), "{found}");
}

#[test]
fn where_the_text_comes_from() {
    let bench = Bench::new();
    let good = bench.run(&["check", "-c", "-"], "", GOOD);
    assert_eq!(good.code, 0, "{}", good.text());
    let wrong = GOOD.replace("pool: web", "pool: wbe");
    let wrong = bench.run(&["check", "-c", "-"], "", &wrong);
    assert_eq!(wrong.code, 78);
    assert!(
        wrong.stderr.contains("--> <stdin>:13:11"),
        "{}",
        wrong.stderr
    );
    // The file in the working directory, when nothing is named.
    assert_eq!(bench.run(&["check"], GOOD, "").code, 0);
    let none = bench.run(&["check", "-c", "none.yaml"], GOOD, "");
    assert_eq!(none.code, 78);
    assert!(none.stderr.contains("none.yaml"), "{}", none.stderr);
    // A command line that makes no sense is another matter.
    assert_eq!(bench.run(&["check", "--no-such"], GOOD, "").code, 2);
    assert_eq!(bench.run(&["check", "-o", "xml"], GOOD, "").code, 2);
    assert_eq!(bench.run(&["chekc"], GOOD, "").code, 2);
}

#[test]
fn text_that_is_hardly_a_configuration() {
    let bench = Bench::new();
    bench.snapshot("empty", "");
    bench.snapshot(
        "duplicate_keys",
        &GOOD.replace("    pool: web\n", "    pool: web\n    pool: web\n"),
    );
    let bomb: String = (0..30).fold("a0: &a0 [x, x, x, x, x, x, x, x, x]\n".into(), |text, n| {
        let row = vec![format!("*a{n}"); 9].join(", ");
        format!("{text}a{}: &a{} [{row}]\n", n + 1, n + 1)
    });
    bench.snapshot("alias_bomb", &bomb);
    let deep = format!("pools: {}{}\n", "[".repeat(100_000), "]".repeat(100_000));
    bench.snapshot("deep_nesting", &deep);
    let deep_blocks: String = (0..2_000)
        .map(|n| format!("{}a:\n", " ".repeat(n)))
        .collect();
    assert_eq!(bench.check(&deep_blocks).code, 78);
    let binary = bench.run(&["check", "-c", "."], "\u{0}\u{1}pools", "");
    assert_eq!(binary.code, 78, "{}", binary.text());
}

#[test]
fn settings_of_ten_megabytes_are_an_answer_and_not_a_crash() {
    let bench = Bench::new();
    let globs: Vec<_> = (0..1_000_000).map(|n| format!("\"x{n:07}\"")).collect();
    let huge = GOOD.replace("[badcurl]", &format!("[{}]", globs.join(",")));
    assert!(huge.len() > 10_000_000);
    let got = bench.check(&huge);
    assert!(got.code == 0 || got.code == 78, "{}", got.text());
    assert!(got.stderr.len() < 100_000, "{} bytes", got.stderr.len());
}

/// A directory to check configurations in.
struct Bench(TempDir);

struct Checked {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Bench {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn path(&self) -> String {
        self.0.path().display().to_string()
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.0.path().join(name), content).expect("a file");
    }

    fn check(&self, yaml: &str) -> Checked {
        self.run(&["check", "-c", "sluicegate.yaml"], yaml, "")
    }

    fn run(&self, arguments: &[&str], yaml: &str, stdin: &str) -> Checked {
        self.file("sluicegate.yaml", yaml);
        let mut child = command()
            .args(arguments)
            .current_dir(self.0.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("sluicegate starts");
        let mut input = child.stdin.take().expect("a pipe");
        // It may have gone already.
        let _ = input.write_all(stdin.as_bytes());
        drop(input);
        let output = child.wait_with_output().expect("it ends");
        Checked {
            // A signal is no exit code: a crash shows.
            code: output.status.code().unwrap_or(-1),
            stdout: self.settled(&output.stdout),
            stderr: self.settled(&output.stderr),
        }
    }

    fn snapshot(&self, name: &str, yaml: &str) {
        self.snapshot_with(name, &[], yaml);
    }

    fn snapshot_with(&self, name: &str, arguments: &[&str], yaml: &str) {
        let arguments = [&["check", "-c", "sluicegate.yaml"], arguments].concat();
        let text = self.run(&arguments, yaml, "").text();
        insta::with_settings!({omit_expression => true, prepend_module_to_snapshot => false}, {
            insta::assert_snapshot!(format!("check_{name}"), text);
        });
    }

    /// Text without what differs from machine to machine.
    fn settled(&self, bytes: &[u8]) -> String {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let real = Path::new(&self.path()).canonicalize().expect("a path");
        text.replace(&self.path(), "[DIR]")
            .replace(&real.display().to_string(), "[DIR]")
    }
}

impl Checked {
    fn text(&self) -> String {
        format!(
            "exit code {}\n--- stdout\n{}--- stderr\n{}",
            self.code, self.stdout, self.stderr
        )
    }
}

/// A filter by hand, for the contract's `version`, which takes any settings and does nothing.
fn guest(version: &str, import: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
          {import}
          (memory (export "memory") 4)
          (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 65536))
          (func (export "sluicegate:filter/configuration@{version}#configure")
            (param i32 i32) (result i32) (i32.const 1024))
          (func (export "sluicegate:filter/http-request@{version}#on-request")
            (param i32 i32) (result i32) (i32.const 2048))
          ;; result: ok; a plan that wants the request phase and nothing else
          (data (i32.const 1024) "\00\00\00\00\01"))"#
    );
    wat::parse_str(text).expect("valid text")
}
