//! The tool slowhttptest in each of its modes, all at once, against a proxy with short timeouts.

use std::process::Command;

use sluicegate_tests::wait::DEADLINE;

use super::slow::backend;
use super::{SLACK, report, same};
use crate::rig::{Plan, Rig};

/// What each mode needs: how it is slow, at what.
const MODES: &[(&str, &[&str])] = &[
    ("slow headers", &["-H", "-u", "/next"]),
    ("slow body", &["-B", "-s", "100000", "-u", "/next"]),
    (
        "slow read",
        &[
            "-X", "-k", "2", "-w", "10", "-y", "20", "-z", "32", "-u", "/flood",
        ],
    ),
    ("range", &["-R", "-a", "1", "-b", "3000", "-u", "/next"]),
];

/// Runs one mode to its end, at most four seconds and a bit.
fn run(rig: &Rig, arguments: &[&str]) -> Result<(), String> {
    let (last, arguments) = arguments.split_last().expect("a target");
    let output = Command::new("slowhttptest")
        .args(["-c", "40", "-r", "40", "-l", "3", "-i", "1", "-p", "10"])
        .args(arguments)
        .arg(rig.url(last))
        .output()
        .expect("slowhttptest runs (is it installed?)");
    let said = plain(&String::from_utf8_lossy(&output.stdout));
    if !output.status.success() {
        return Err(format!("{}: {said}", output.status));
    }
    // What its own probe found, in every report.
    let mut probes = said
        .lines()
        .filter_map(|l| l.trim().strip_prefix("service available:"))
        .map(str::trim)
        .peekable();
    match probes.peek().is_some() && probes.all(|found| found == "YES") {
        true => Ok(()),
        false => Err(format!("not available: {said}")),
    }
}

/// Without the colours of a terminal.
fn plain(text: &str) -> String {
    let mut parts = text.split('\x1b');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |plain, part| {
        let end = part.find(|c: char| c.is_ascii_alphabetic());
        plain + &part[end.map_or(0, |at| at + 1)..]
    })
}

#[test]
fn the_service_stays_available_and_nothing_is_left() {
    let backend = backend();
    let rig = Plan::new(&[backend.address()])
        .listener("timeouts: {head: 1s, body-idle: 1s, stream-idle: 1s, keep-alive: 1s}")
        .pool("keep-alive: {max: 1}")
        .top("workers: 1")
        .run();
    // Warm: a connection to the backend is kept, and buffers are there.
    assert_eq!(rig.get("/next").text(), "/next");
    let before = rig.proxy.settled();
    let mut failures = Vec::new();
    std::thread::scope(|scope| {
        let running: Vec<_> = MODES
            .iter()
            .map(|(name, arguments)| (name, scope.spawn(|| run(&rig, arguments))))
            .collect();
        while running.iter().any(|(_, mode)| !mode.is_finished()) {
            let began = std::time::Instant::now();
            let answer = rig.get("/next");
            failures.extend(same("meanwhile", "/next".to_owned(), answer.text()).err());
            assert!(began.elapsed() < DEADLINE / 2, "served, but late");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        for (name, mode) in running {
            let failed = mode.join().expect("a mode").err();
            failures.extend(failed.map(|why| format!("{name}: {why}")));
        }
    });
    report(&failures, MODES.len());
    // First use of many connections at once: more than the tables of one.
    rig.proxy.assert_nothing_left(before, 8 * SLACK);
}
