//! Clients that leave in the middle of every phase, in each of the ways there are to leave: what is recorded, that the
//! upstream exchange ends with them, and that nothing of theirs stays.

use std::io::Read;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use sluicegate_tests::backend::{Backend, response};
use sluicegate_tests::client::Raw;
use sluicegate_tests::wait::{DEADLINE, eventually};

use super::{SLACK, report, same, served};
use crate::rig::{Plan, Rig, records};

/// How a client leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leave {
    /// With a FIN, and reads no more.
    Close,
    /// With a FIN of its side, and reads what comes.
    HalfClose,
    /// With a RST.
    Reset,
}

/// When a client leaves.
struct Phase {
    name: &'static str,
    /// What it has sent; `TARGET` is one of its own.
    sends: &'static str,
    /// It leaves when it has read this much of the answer.
    reads: &'static str,
    /// It leaves only once the backend has got the request.
    reached: bool,
    /// What is recorded of its exchange: status and reason. None: there was no exchange.
    record: Option<(u16, &'static str)>,
}

const PHASES: &[Phase] = &[
    Phase {
        name: "before a byte",
        sends: "",
        reads: "",
        reached: false,
        record: None,
    },
    Phase {
        name: "in the request line",
        sends: "GET TARGET",
        reads: "",
        reached: false,
        record: None,
    },
    Phase {
        name: "in the fields",
        sends: "GET TARGET HTTP/1.1\r\nHost: x\r\nX: ",
        reads: "",
        reached: false,
        record: None,
    },
    Phase {
        name: "in a body with a length",
        sends: "POST TARGET?hang HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhello",
        reads: "",
        reached: true,
        record: Some((499, "client-gone")),
    },
    Phase {
        name: "in a chunked body",
        sends: "POST TARGET?hang HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        reads: "",
        reached: true,
        record: Some((499, "client-gone")),
    },
    Phase {
        name: "in a body that may be sent again",
        sends: "PUT TARGET?hang HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhello",
        reads: "",
        reached: true,
        record: Some((499, "client-gone")),
    },
    Phase {
        name: "waiting for 100",
        sends: "POST TARGET?hang HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
        reads: "",
        reached: true,
        record: Some((499, "client-gone")),
    },
    Phase {
        name: "waiting for an answer",
        sends: "GET TARGET?hang HTTP/1.1\r\nHost: x\r\n\r\n",
        reads: "",
        reached: true,
        record: Some((499, "client-gone")),
    },
    Phase {
        name: "waiting for an answer to a body",
        sends: "POST TARGET?hang HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
        reads: "",
        reached: true,
        record: Some((499, "client-gone")),
    },
    Phase {
        name: "in an answer that pauses",
        sends: "GET TARGET?pause HTTP/1.1\r\nHost: x\r\n\r\n",
        reads: "HTTP/1.1 200",
        reached: true,
        record: Some((200, "client-gone")),
    },
    Phase {
        name: "in an answer that does not end",
        sends: "GET TARGET?flood HTTP/1.1\r\nHost: x\r\n\r\n",
        reads: "HTTP/1.1 200",
        reached: true,
        record: Some((200, "client-gone")),
    },
    Phase {
        name: "in both bodies at once",
        sends: "POST TARGET?flood HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhello",
        reads: "HTTP/1.1 200",
        reached: true,
        record: Some((200, "client-gone")),
    },
    Phase {
        name: "after an answer",
        sends: "GET TARGET HTTP/1.1\r\nHost: x\r\n\r\n",
        reads: "HTTP/1.1 200",
        reached: false,
        record: Some((200, "")),
    },
    Phase {
        name: "in the second request",
        sends: "GET TARGET HTTP/1.1\r\nHost: x\r\n\r\nGET /x",
        reads: "HTTP/1.1 200",
        reached: false,
        record: Some((200, "")),
    },
    Phase {
        name: "after a refusal",
        sends: "GET /x HTTP/1.1\r\n\r\n",
        reads: "HTTP/1.1 400",
        reached: false,
        record: None,
    },
    Phase {
        name: "in a tunnel",
        sends: "GET TARGET?tunnel HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        reads: "HTTP/1.1 101",
        reached: true,
        record: Some((101, "")),
    },
];

/// A backend that does what the query says, and how many of its exchanges run: those that do not end by themselves.
struct Origin {
    backend: Backend,
    running: Arc<AtomicUsize>,
}

impl Origin {
    fn start() -> Self {
        let running = Arc::new(AtomicUsize::new(0));
        let count = running.clone();
        let backend = Backend::raw(move |stream, _| {
            let mut raw = Raw::over(stream);
            while let Ok(head) = raw.head() {
                let target = head.split(' ').nth(1).unwrap_or_default();
                let Some((_, act)) = target.split_once('?') else {
                    if raw.send(response(200, target)).is_err() {
                        return;
                    }
                    continue;
                };
                count.fetch_add(1, Ordering::SeqCst);
                run(&mut raw, act);
                count.fetch_sub(1, Ordering::SeqCst);
                return;
            }
        });
        Self { backend, running }
    }

    fn runs(&self, n: usize) -> bool {
        eventually(DEADLINE, || self.running.load(Ordering::SeqCst) == n)
    }
}

/// Does what `act` says until the proxy ends the connection.
fn run(raw: &mut Raw, act: &str) {
    let head = match act {
        "pause" => "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello",
        "flood" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "tunnel" => "HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        _ => "",
    };
    let _ = raw.send(head);
    if act == "flood" {
        let piece = format!("8000\r\n{}\r\n", "x".repeat(0x8000));
        while raw.send(&piece).is_ok() {}
    }
    let _ = raw.to_end();
}

impl Phase {
    fn check(&self, rig: &Rig, origin: &Origin, leave: Leave, round: &str) -> Result<(), String> {
        let target = self.target(leave, round);
        let mut raw = rig.raw();
        raw.send(self.sends.replace("TARGET", &target))
            .map_err(|why| format!("send: {why}"))?;
        if self.reached && !origin.runs(1) {
            return Err("it does not reach the backend".into());
        }
        let mut got = vec![0; self.reads.len()];
        raw.stream()
            .read_exact(&mut got)
            .map_err(|why| format!("no answer: {why}"))?;
        same("answer", self.reads, &String::from_utf8_lossy(&got))?;
        depart(raw, leave)?;
        if !origin.runs(0) {
            return Err("the upstream exchange goes on".into());
        }
        served(rig)
    }

    /// Is the exchange recorded as it ended? The log is written now and then, so this is asked after all have left.
    fn check_record(&self, rig: &Rig, leave: Leave, round: &str) -> Result<(), String> {
        let Some((status, reason)) = self.record else {
            return Ok(());
        };
        let target = self.target(leave, round);
        let record = crate::rig::record(&rig.proxy, |r: &Value| {
            let recorded = r["target"].as_str().unwrap_or_default();
            recorded.split('?').next() == Some(&target)
        });
        let got = (record["status"].as_u64(), record["reason"].as_str());
        let reason = (!reason.is_empty()).then_some(reason);
        same("record", (Some(u64::from(status)), reason), got)
    }

    fn target(&self, leave: Leave, round: &str) -> String {
        format!("/{}/{leave:?}/{round}", self.name.replace(' ', "-"))
    }
}

/// Leaves; whoever only ends its own side wants the other to end, too.
fn depart(raw: Raw, leave: Leave) -> Result<(), String> {
    match leave {
        Leave::Close => drop(raw),
        Leave::HalfClose => {
            raw.stream()
                .shutdown(Shutdown::Write)
                .map_err(|why| format!("shutdown: {why}"))?;
            drain(raw.stream()).map_err(|why| format!("the proxy does not end its side: {why}"))?;
        }
        Leave::Reset => {
            let socket = socket2::SockRef::from(raw.stream());
            socket
                .set_linger(Some(std::time::Duration::ZERO))
                .map_err(|why| format!("linger: {why}"))?;
        }
    }
    Ok(())
}

/// Reads until the end or a reset.
fn drain(mut stream: &TcpStream) -> std::io::Result<()> {
    match std::io::copy(&mut stream, &mut std::io::sink()) {
        Err(why) if why.kind() != std::io::ErrorKind::ConnectionReset => Err(why),
        _ => Ok(()),
    }
}

#[test]
fn whoever_leaves_takes_everything_along() {
    let origin = Origin::start();
    let rig = Plan::new(&[origin.backend.address()])
        .top("workers: 1")
        .run();
    let leaves = [Leave::Close, Leave::HalfClose, Leave::Reset];
    let each = |check: &dyn Fn(&Phase, Leave) -> Result<(), String>| {
        let mut failures = Vec::new();
        for phase in PHASES {
            for leave in leaves {
                if let Err(failed) = check(phase, leave) {
                    failures.push(format!("{}, {leave:?}: {failed}", phase.name));
                }
            }
        }
        failures
    };
    let round = |round: &str| {
        let mut failures = each(&|phase, leave| phase.check(&rig, &origin, leave, round));
        failures.extend(each(&|phase, leave| phase.check_record(&rig, leave, round)));
        failures
    };
    let mut failures = round("first");
    let before = rig.proxy.settled();
    failures.extend(round("second"));
    report(&failures, PHASES.len() * 3);
    rig.proxy.assert_nothing_left(before, SLACK);
    // Heads that did not end have their records too, and refusals have one each.
    let count = |reason: &str| {
        records(&rig.proxy)
            .iter()
            .filter(|r| r["reason"] == reason)
            .count()
    };
    let gone = PHASES
        .iter()
        .filter(|p| p.record.is_some_and(|(_, r)| r == "client-gone"))
        .count();
    // In the request line, in the fields, and in the second request.
    assert_eq!(count("client-gone"), 2 * 3 * (gone + 3));
    assert_eq!(count("bad-request"), 2 * 3);
}
