//! Clients that leave, stream by stream or altogether, in each phase of an exchange.

use std::net::Shutdown;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sluicegate_tests::backend::Backend;
use sluicegate_tests::client::Raw;
use sluicegate_tests::wait::{DEADLINE, eventually};
use socket2::SockRef;

use super::{Answer, GET, POST, PROTOCOL_ERROR, answer, assert_works};
use crate::frames::{self, Client, END_STREAM, HEADERS, block, data, frame, headers, headers_open};
use crate::rig::{Plan, Rig};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// RST_STREAM; the connection goes on.
    Stream,
    /// GOAWAY, then the end of the connection.
    GoAway,
    /// An end of the connection in order.
    End,
    /// A reset of the connection.
    Reset,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// In the middle of a header block.
    Headers,
    /// In the middle of the request's body.
    Body,
    /// While the backend thinks.
    Waiting,
    /// In the middle of the response's body.
    Response,
}

/// What the backend sees: the targets it was asked for, and those whose connection ended under them.
#[derive(Default)]
struct Seen {
    requests: Mutex<Vec<String>>,
    broken: Mutex<Vec<String>>,
}

impl Seen {
    fn asked(&self, target: &str) -> bool {
        has(&self.requests, target)
    }

    fn broke(&self, target: &str) -> bool {
        has(&self.broken, target)
    }
}

fn has(targets: &Mutex<Vec<String>>, target: &str) -> bool {
    let targets = targets.lock().expect("targets");
    targets.iter().any(|t| t == target)
}

/// Answers `/Waiting…` and `/Body…` never, `/Response…` without end and everything else at once.
fn backend() -> (Backend, Arc<Seen>) {
    let seen = Arc::new(Seen::default());
    let of_backend = seen.clone();
    let backend = Backend::raw(move |stream, _| {
        let mut raw = Raw::over(stream);
        while let Ok(head) = raw.head() {
            let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
            let note = |list: &Mutex<Vec<String>>| list.lock().expect("list").push(target.clone());
            note(&of_backend.requests);
            match target.split('/').nth(1) {
                Some("Waiting" | "Body") => {
                    let _ = raw.to_end();
                }
                Some("Response") => {
                    let _ = raw.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
                    while raw.send("5\r\nabcde\r\n").is_ok() {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                }
                _ => {
                    let _ = raw.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                    continue;
                }
            }
            note(&of_backend.broken);
            return;
        }
    });
    (backend, seen)
}

#[test]
fn nothing_goes_on_for_a_client_that_left() {
    let (backend, seen) = backend();
    let rig = Plan::new(&[backend.address()]).run();
    let before = rig.proxy.settled();
    let differ: Vec<String> = std::thread::scope(|scope| {
        let mut running = Vec::new();
        for how in [How::Stream, How::GoAway, How::End, How::Reset] {
            for phase in [Phase::Headers, Phase::Body, Phase::Waiting, Phase::Response] {
                let (rig, seen) = (&rig, &seen);
                let run = move || {
                    let why = abort(rig, seen, how, phase).err()?;
                    Some(format!("{how:?} in {phase:?}: {why}"))
                };
                running.push(scope.spawn(run));
            }
        }
        let all = running.into_iter();
        all.filter_map(|r| r.join().expect("no panic")).collect()
    });
    assert!(differ.is_empty(), "{}", differ.join("\n"));
    assert_works(&rig);
    drop(backend);
    rig.proxy.assert_nothing_left(before, 8 << 20);
}

fn abort(rig: &Rig, seen: &Seen, how: How, phase: Phase) -> Result<(), String> {
    let target = format!("/{phase:?}/{how:?}");
    let mut client = Client::connect(rig.bind);
    let (mut get, mut post) = (GET, POST);
    (get[2].1, post[2].1) = (&target, &target);
    let begun = match phase {
        Phase::Headers => frame(HEADERS, END_STREAM, 1, &block(&get)),
        Phase::Body => [headers_open(1, &post), data(1, b"some")].concat(),
        Phase::Waiting | Phase::Response => headers(1, &get),
    };
    client.raw.send(begun).expect("send");
    match phase {
        Phase::Headers => {}
        Phase::Body | Phase::Waiting => {
            assert!(eventually(DEADLINE, || seen.asked(&target)), "{target}");
        }
        Phase::Response => {
            assert_eq!(answer(&mut client, 1), Answer::Status(200));
            client.next_of(&[frames::DATA]);
        }
    }
    match how {
        How::Stream => client.cancel(1),
        How::GoAway => {
            let goaway = frame(frames::GOAWAY, 0, 0, &[0; 8]);
            client.raw.send(goaway).expect("send");
            client.raw.stream().shutdown(Shutdown::Write).expect("end");
        }
        How::End => client.raw.stream().shutdown(Shutdown::Write).expect("end"),
        How::Reset => {
            let socket = SockRef::from(client.raw.stream());
            socket.set_linger(Some(Duration::ZERO)).expect("linger");
        }
    }
    if how == How::Stream && phase == Phase::Headers {
        // Amid a header block nothing else may come.
        return match answer(&mut client, 1) {
            Answer::GoAway(PROTOCOL_ERROR) => Ok(()),
            other => Err(format!("{other:?}")),
        };
    }
    if how == How::Stream {
        client.request(3, "/next");
        let next = answer(&mut client, 3);
        if next != Answer::Status(200) {
            return Err(format!("then the next stream gets {next:?}"));
        }
    }
    drop(client);
    if phase == Phase::Headers {
        return match seen.asked(&target) {
            true => Err("half a request reached the backend".into()),
            false => Ok(()),
        };
    }
    if !eventually(DEADLINE, || seen.broke(&target)) {
        return Err("the backend goes on".into());
    }
    let record = rig.record(&target);
    let status = if phase == Phase::Response { 200 } else { 499 };
    match record["status"] == status && record["reason"] == "client-gone" {
        true => Ok(()),
        false => Err(format!("recorded as {record}")),
    }
}
