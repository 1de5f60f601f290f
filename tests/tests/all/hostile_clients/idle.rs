//! Ten thousand connections that say nothing, or nothing more.

use std::net::{IpAddr, Ipv4Addr};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sluicegate_tests::backend::Backend;
use sluicegate_tests::client::Raw;
use sluicegate_tests::wait::{DEADLINE, eventually};

use super::SLACK;
use crate::rig::{Plan, Rig};

const CLIENTS: usize = 10_000;

/// Descriptors beside those of the clients: of everything else that runs in this process.
const OTHERS: u64 = 4000;

/// Memory of one idle connection, the kernel's aside, in an unoptimised program.
const BYTES_EACH: u64 = 4096;

#[test]
fn ten_thousand_idle_connections_cost_little_and_keep_nobody_out() {
    if !raise_descriptors(CLIENTS as u64 + OTHERS) {
        eprintln!(
            "skipped: the hard limit of descriptors (ulimit -Hn) is too low for {CLIENTS} connections"
        );
        return;
    }
    let backend = Backend::http("web1");
    let rig = Plan::new(&[backend.address()])
        .listener("timeouts: {head: 60s, keep-alive: 60s}")
        .pool("keep-alive: {max: 1, timeout: 500ms}")
        .run();
    drop(connect(&rig, CLIENTS / 100));
    let fresh = rig.proxy.settled();
    let clients = connect(&rig, CLIENTS);
    let open = || {
        rig.proxy
            .metric("sluicegate_connections_active{listener=\"web\"}")
    };
    assert!(
        eventually(DEADLINE, || open() == CLIENTS as f64),
        "{} of {CLIENTS} are open",
        open()
    );
    let grown = rig.proxy.resources().resident_bytes - fresh.resident_bytes;
    let each = grown / CLIENTS as u64;
    assert!(each <= BYTES_EACH, "{each} bytes for each idle connection");
    for _ in 0..100 {
        assert_eq!(rig.get("/").text(), "web1");
    }
    drop(clients);
    // The next ten thousand live in what the first have left.
    let before = rig.proxy.settled();
    drop(connect(&rig, CLIENTS));
    assert_eq!(rig.get("/").text(), "web1");
    rig.proxy.assert_nothing_left(before, 2 * SLACK);
}

/// Connects from many addresses, for a kernel looks long for a free port where few are left; every other client has had
/// one answer.
fn connect(rig: &Rig, clients: usize) -> Vec<Raw> {
    let connect = |n: usize| {
        let source = IpAddr::V4(Ipv4Addr::new(127, 0, 1, 1 + (n % 200) as u8));
        let mut raw = Raw::connect_from(source, rig.bind);
        if n.is_multiple_of(2) {
            raw.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("send");
            assert_eq!(raw.response().expect("an answer").text(), "web1");
        }
        raw
    };
    (0..clients).map(connect).collect()
}

/// Makes sure that this process, and the proxies it starts, may have `wanted` descriptors; false when it cannot be.
fn raise_descriptors(wanted: u64) -> bool {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= wanted) {
        return true;
    }
    let raised = Rlimit {
        current: Some(maximum.map_or(wanted, |maximum| maximum.min(wanted))),
        maximum,
    };
    setrlimit(Resource::Nofile, raised).is_ok() && maximum.is_none_or(|m| m >= wanted)
}
