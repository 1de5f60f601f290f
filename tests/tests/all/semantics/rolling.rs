//! Backends that are restarted one after the other, as a deployment does it, while clients go on asking.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sluicegate_tests::addresses::Addresses;

use super::kill::{Process, ask};
use crate::rig::Plan;

const CLIENTS: usize = 8;
/// From one restart to the next.
const APART: Duration = Duration::from_millis(3500);

#[test]
fn a_rolling_restart_loses_no_request() {
    let mut free = Addresses::new();
    let addresses: Vec<_> = (0..3).map(|_| free.free()).collect();
    let mut backends: Vec<_> = addresses.iter().map(|&a| Process::start(a)).collect();
    let rig = Plan::new(&addresses).pool("check: http").run();
    let (stop, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (rig, stop, done, failed) = (&rig, &stop, &done, &failed);
            scope.spawn(move || ask(rig, number, stop, done, failed));
        }
        for (backend, &address) in backends.iter_mut().zip(&addresses) {
            let began = Instant::now();
            backend.kill();
            // The time that it takes to start anew.
            std::thread::sleep(Duration::from_millis(500));
            *backend = Process::start(address);
            std::thread::sleep(APART.saturating_sub(began.elapsed()));
        }
        stop.store(true, Ordering::SeqCst);
    });
    let (failed, done) = (
        failed.into_inner().expect("lock"),
        done.load(Ordering::SeqCst),
    );
    println!("{done} answered, {} failed", failed.len());
    assert!(
        done > 0 && failed.is_empty(),
        "{} of {done}: {:#?}",
        failed.len(),
        &failed[..failed.len().min(20)]
    );
    rig.settles();
}
