//! What operators meet: a disk that is full, readers that leave, limits that are too small, what is said on the way.

use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use sluicegate_tests::backend::Backend;
use sluicegate_tests::proxy::{Start, command, sluicegate};
use sluicegate_tests::wait::{DEADLINE, eventually};

use super::rig::{Plan, Rig};

/// Requests until the log says that records are lost.
fn fill(rig: &Rig) {
    let full = || {
        for n in 0..20 {
            rig.get(&format!("/fill/{n}"));
        }
        rig.proxy.stderr().contains("cannot write the access log")
    };
    assert!(eventually(DEADLINE, full), "the disk does not fill");
}

/// The records of a file; panics at a line that is none.
fn whole_records(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).expect("a log");
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|_| panic!("cut: {line}"));
    text.lines().map(parse).collect()
}

fn has(file: &Path, target: &str) -> bool {
    std::fs::read_to_string(file)
        .unwrap_or_default()
        .contains(&format!("\"target\":\"{target}\""))
}

#[test]
fn on_a_full_disk_a_record_is_written_whole_or_not_at_all() {
    let backend = Backend::http("web1");
    let rig = Plan::new(&[backend.address()])
        .top("telemetry: {access-log: {to: ./access.log, format: json}}")
        .run_with(Start::new().disk(64));
    fill(&rig);
    let file = rig.proxy.directory().join("access.log");
    let text = std::fs::read_to_string(&file).expect("a log");
    assert!(text.ends_with('\n'), "the last record is cut");
    assert!(whole_records(&file).len() > 20);
    rig.get("/lost");
    let lost = "sluicegate_access_log_dropped_total";
    assert!(eventually(DEADLINE, || rig.proxy.metric(lost) > 0.0));
    rig.proxy.empty_the_disk();
    let written = || {
        rig.get("/again");
        has(&file, "/again")
    };
    assert!(eventually(DEADLINE, written));
    rig.proxy.wait_for_log("the access log is written again");
    let records = whole_records(&file);
    assert!(records.iter().any(|record| record["target"] == "/again"));
    // Each is there or counted.
    let said = rig
        .proxy
        .stderr()
        .matches("the access log is written again")
        .count();
    assert_eq!(said, 1);
}

#[test]
fn standard_output_on_a_full_disk_gets_whole_records_too() {
    let backend = Backend::http("web1");
    let rig = Plan::new(&[backend.address()]).run_with(Start::new().disk(64));
    fill(&rig);
    rig.proxy.empty_the_disk();
    let file = rig.proxy.directory().join("stdout");
    let written = || {
        rig.get("/again");
        has(&file, "/again")
    };
    assert!(eventually(DEADLINE, written));
    rig.proxy.wait_for_log("the access log is written again");
    whole_records(&file);
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("sluicegate.yaml");
    std::fs::write(
        &config,
        "pools: {web: {endpoints: [\"127.0.0.1:9001\"]}}\n\
         listeners: [{name: web, bind: \"127.0.0.1:8080\", protocol: http, pool: web}]\n",
    )
    .expect("a file");
    let config = config.display().to_string();
    let verbs: &[&[&str]] = &[
        &["version"],
        &["config", "schema"],
        &["config", "reference"],
        &["config", "show", "-c", &config],
        &["check", "-c", &config],
        &["check", "-c", &config, "-o", "json"],
        &["explain", "-c", &config, "http://127.0.0.1:8080/"],
        &[
            "explain",
            "-c",
            &config,
            "-o",
            "json",
            "http://127.0.0.1:8080/",
        ],
        &["completion", "bash"],
        &["man"],
        &["--help"],
    ];
    for arguments in verbs {
        let mut child = command()
            .args(*arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("sluicegate starts");
        // Closed before anything was written.
        drop(child.stdout.take());
        let ended = child.wait_with_output().expect("an end");
        let errors = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(
            (ended.status.code(), &*errors),
            (Some(0), ""),
            "{arguments:?}"
        );
        // A disk that is full is one, and said in words.
        let full = std::fs::File::options()
            .write(true)
            .open("/dev/full")
            .expect("/dev/full");
        let ended = command()
            .args(*arguments)
            .stdout(full)
            .output()
            .expect("sluicegate ends");
        let errors = String::from_utf8_lossy(&ended.stderr);
        assert!(!errors.contains("panicked"), "{arguments:?}: {errors}");
    }
}

#[test]
fn too_few_open_files_are_a_warning_at_the_start() {
    const WARNING: &str = "is too small for `limits.connections`";
    let backend = Backend::http("web1");
    for (connections, warns) in [(10_000_000, true), (10, false)] {
        let rig = Plan::new(&[backend.address()])
            .listener(&format!("limits: {{connections: {connections}}}"))
            .run();
        rig.proxy.wait_for_log("serving");
        assert_eq!(rig.proxy.stderr().contains(WARNING), warns, "{connections}");
        if warns {
            continue;
        }
        // And when a reload asks for more.
        let more = Plan::new(&[backend.address()]).listener("limits: {connections: 10000000}");
        assert_eq!(rig.proxy.reload(&more.yaml(rig.bind)).code, 0);
        rig.proxy.wait_for_log(WARNING);
    }
}

#[test]
fn a_reload_shows_the_warnings_that_check_shows() {
    let backend = Backend::http("web1");
    let rig = Plan::new(&[backend.address()]).run();
    let odd = Plan::new(&[backend.address()])
        .top("filters: {idle: {module: \"builtin:headers\", settings: {request: []}}}")
        .yaml(rig.bind);
    let done = rig.proxy.reload(&odd);
    assert_eq!(done.code, 0, "{}", done.stderr);
    let config = rig.proxy.directory().join("sluicegate.yaml");
    let checked = sluicegate(&["check", "-c", &config.display().to_string()]);
    let shown = |text: &str| {
        let lines = text.lines().filter(|line| line.starts_with("warning["));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(shown(&checked.stderr).len(), 1, "{}", checked.stderr);
    assert_eq!(
        shown(&done.stderr),
        shown(&checked.stderr),
        "{}",
        done.stderr
    );
    assert!(
        done.stdout.starts_with("generation 1 → 2 "),
        "{}",
        done.stdout
    );
    rig.proxy.wait_for_log("warning[unused-filter]");
    let answer = rig
        .proxy
        .admin("POST", "/reload")
        .expect("an answer")
        .text();
    let answer: Value = serde_json::from_str(&answer).expect("JSON");
    assert_eq!(answer["warnings"][0]["code"], "unused-filter", "{answer}");
}

#[test]
fn a_reload_says_what_changed_when_only_a_section_did() {
    let backend = Backend::http("web1");
    let rig = Plan::new(&[backend.address()]).run();
    for (top, changed) in [
        ("telemetry: {access-log: {format: text}}", "telemetry"),
        ("telemetry: {access-log: off}", "telemetry"),
        ("telemetry: {access-log: off}", "nothing"),
        (
            "telemetry: {access-log: off}\ndrain: {timeout: 3s}",
            "drain",
        ),
        ("drain: {timeout: 4s}", "telemetry, drain"),
    ] {
        let done = rig
            .proxy
            .reload(&Plan::new(&[backend.address()]).top(top).yaml(rig.bind));
        let said = format!("({changed} changed)");
        assert!(done.stdout.contains(&said), "{top}: {}", done.stdout);
    }
}

#[test]
fn watching_says_what_is_watched() {
    let backend = Backend::http("web1");
    let rig = Plan::new(&[backend.address()]).run_with(Start::new().argument("--watch"));
    rig.proxy.wait_for_log("watching");
    let log = rig.proxy.stderr();
    let line = log
        .lines()
        .find(|line| line.contains("watching"))
        .expect("a line");
    assert!(line.contains("sluicegate.yaml"), "{line}");
    // Without it nothing is said.
    let rig = Plan::new(&[backend.address()]).run();
    rig.proxy.wait_for_log("serving");
    assert!(!rig.proxy.stderr().contains("watching"));
}

#[test]
fn paths_are_shown_without_detours() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::create_dir_all(dir.path().join("x/y")).expect("directories");
    std::fs::write(
        dir.path().join("bad.yaml"),
        "pools: {web: {endpoints: [\"127.0.0.1:9001\"]}}\nlisteners:\n  - name: web\n    bind: \"127.0.0.1:8080\"\n    \
         protocol: http\n    pool: web\n    tls: {certificates: [{cert: ./x/../c.pem, key: x/y/../../k.pem}]}\n",
    )
    .expect("a file");
    let ended = command()
        .args(["check", "-c", "./x/../bad.yaml"])
        .current_dir(dir.path())
        .output()
        .expect("sluicegate ends");
    let errors = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(78), "{errors}");
    assert!(errors.contains("--> bad.yaml:7:"), "{errors}");
    assert!(
        errors.contains("/c.pem\"") && !errors.contains("/../c.pem\""),
        "{errors}"
    );
}
