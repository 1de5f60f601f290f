//! Backends that are real processes, killed with SIGKILL and started again while clients go on asking.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use sluicegate_tests::addresses::Addresses;
use sluicegate_tests::backend::Backend;
use sluicegate_tests::client::Raw;
use sluicegate_tests::wait::{DEADLINE, eventually};

use crate::rig::{Plan, Rig, records};

/// Where a backend process listens; set only in such a process.
const ADDRESS: &str = "SLUICEGATE_TEST_BACKEND";
const BACKENDS: usize = 8;
const CLIENTS: usize = 16;
const KILLS: usize = 4;

/// What a backend process runs: this test binary, told to be a backend by its environment.
#[test]
#[ignore = "a process of its own, started by the test below"]
fn be_a_backend() {
    let Ok(address) = std::env::var(ADDRESS) else {
        return;
    };
    let address: SocketAddr = address.parse().expect("an address");
    let _serving = Backend::http_at(address, "alive");
    loop {
        std::thread::park();
    }
}

pub(super) struct Process {
    child: Child,
    address: SocketAddr,
}

impl Process {
    pub(super) fn start(address: SocketAddr) -> Self {
        let child = Command::new(std::env::current_exe().expect("this binary"))
            .args(["--exact", "semantics::kill::be_a_backend", "--ignored"])
            .env(ADDRESS, address.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a backend process");
        let backend = Self { child, address };
        let listens = || std::net::TcpStream::connect(address).is_ok();
        assert!(eventually(DEADLINE, listens), "{address} does not listen");
        backend
    }

    pub(super) fn kill(&mut self) {
        // SIGKILL.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Asks again and again until told to stop; every answer must be a good one.
pub(super) fn ask(
    rig: &Rig,
    number: usize,
    stop: &AtomicBool,
    done: &AtomicUsize,
    failed: &Mutex<Vec<String>>,
) {
    let mut raw = rig.raw();
    let mut n = 0;
    while !stop.load(Ordering::SeqCst) {
        n += 1;
        let target = format!("/{number}/{n}");
        // A third of them with bodies that have to be kept.
        let request = match n % 3 {
            0 => format!("PUT {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody"),
            _ => format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"),
        };
        let answer = raw.send(request).and_then(|()| raw.response());
        match answer {
            Ok(answer) if answer.status == 200 && answer.text() == "alive" => {
                done.fetch_add(1, Ordering::SeqCst);
            }
            wrong => {
                let mut failed = failed.lock().expect("lock");
                failed.push(format!("{target}: {wrong:?}"));
                raw = Raw::connect(rig.bind);
            }
        }
    }
}

#[test]
fn a_kill_of_a_backend_under_load_loses_no_retryable_request() {
    let mut addresses = Addresses::new();
    let mut backends: Vec<Process> = (0..BACKENDS)
        .map(|_| Process::start(addresses.free()))
        .collect();
    let endpoints: Vec<_> = backends.iter().map(|b| b.address).collect();
    let rig = Plan::new(&endpoints)
        .pool("check: {tcp: {}, interval: 100ms}")
        .run();
    let (stop, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (rig, stop, done, failed) = (&rig, &stop, &done, &failed);
            scope.spawn(move || ask(rig, number, stop, done, failed));
        }
        let up = |address: SocketAddr| {
            let series = format!("sluicegate_endpoint_up{{pool=\"web\",endpoint=\"{address}\"}}");
            rig.proxy.metric(&series)
        };
        for round in 0..KILLS {
            let begun = done.load(Ordering::SeqCst);
            let busy = eventually(DEADLINE, || done.load(Ordering::SeqCst) > begun + 100);
            let backend = &mut backends[round % BACKENDS];
            let address = backend.address;
            backend.kill();
            let down = eventually(DEADLINE, || up(address) == 0.0);
            *backend = Process::start(address);
            let back = eventually(DEADLINE, || up(address) == 1.0);
            if !(busy && down && back) {
                stop.store(true, Ordering::SeqCst);
                panic!("round {round}: busy {busy}, seen down {down}, seen back {back}");
            }
        }
        stop.store(true, Ordering::SeqCst);
    });
    let failed = failed.into_inner().expect("lock");
    let done = done.load(Ordering::SeqCst);
    assert!(failed.is_empty(), "{} of {done}: {failed:#?}", failed.len());
    assert!(eventually(DEADLINE, || records(&rig.proxy).len() >= done));
    let retried = records(&rig.proxy)
        .iter()
        .filter(|r| r["tries"].as_u64() > Some(1))
        .count();
    assert!(retried > 0, "no kill met a request of {done}");
    rig.settles();
}
