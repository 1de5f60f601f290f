//! Clients that mean harm, as tables: what each is answered, what the backend saw of it, and that everyone else is
//! served as if it had never come.

mod aborts;
mod chunks;
mod framing;
mod heads;
mod hello;
mod hosts_and_targets;
mod idle;
mod pipelines;
mod recorder;
mod slow;
mod slowhttptest;
mod tls;
mod tls_sessions;

use sluicegate_tests::client::Raw;

use self::recorder::{Recorder, Request, Seen};
use super::rig::{Plan, Rig};

/// Memory that a proxy may keep after a round of a table that was run before: allocators and statistics, not a leak.
const SLACK: u64 = 2 << 20;

/// One client: what it sends on a new connection, and everything that must follow.
struct Case {
    name: &'static str,
    sends: Vec<u8>,
    /// The statuses it is answered with, in order.
    answers: Vec<u16>,
    end: End,
    /// Target and body of every request that the backend sees of it.
    seen: Vec<(&'static str, &'static str)>,
    /// The backend may also see the beginning of one more, which is never made whole; else not a byte.
    beginning: bool,
}

/// What becomes of the client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The last answer says so, and then the connection ends in order.
    Closed,
    /// As `Closed`, but the client sent more than the proxy is willing to throw away, so that a reset may follow.
    Cut,
    /// It serves the next request.
    Open,
}

impl Case {
    /// Refused: answered, closed, and nothing of it forwarded.
    fn refused(name: &'static str, sends: impl Into<Vec<u8>>, status: u16) -> Self {
        Self {
            name,
            sends: sends.into(),
            answers: vec![status],
            end: End::Closed,
            seen: Vec::new(),
            beginning: false,
        }
    }

    /// Refused in the middle of its body, of which the beginning is on its way already.
    fn broken_off(name: &'static str, sends: impl Into<Vec<u8>>, status: u16) -> Self {
        Self::refused(name, sends, status).with_a_beginning()
    }

    /// Served: one 200 for each of `seen`, and the connection goes on.
    fn served(
        name: &'static str,
        sends: impl Into<Vec<u8>>,
        seen: &[(&'static str, &'static str)],
    ) -> Self {
        Self {
            name,
            sends: sends.into(),
            answers: vec![200; seen.len()],
            end: End::Open,
            seen: seen.to_vec(),
            beginning: false,
        }
    }

    /// Then one more answer, which ends the connection.
    fn then_refused(mut self, status: u16) -> Self {
        self.answers.push(status);
        self.end = End::Closed;
        self
    }

    fn with_a_beginning(self) -> Self {
        Self {
            beginning: true,
            ..self
        }
    }

    fn then(self, end: End) -> Self {
        Self { end, ..self }
    }

    /// Everything this case states, or what is different.
    fn check(&self, rig: &Rig, backend: &Recorder) -> Result<(), String> {
        let mut raw = rig.raw();
        // A refusal may come before everything is sent; what it says is what counts.
        let _ = raw.send(&self.sends);
        let last = self.answers.len().saturating_sub(1);
        for (at, status) in self.answers.iter().enumerate() {
            let answer = raw
                .response()
                .map_err(|why| format!("answer {at}: {why}"))?;
            same("status", *status, answer.status)
                .map_err(|why| format!("answer {at}: {why}: {}", answer.text()))?;
            if answer.status == 200 {
                // The backend answers with the target, so that an answer to someone else's request would be seen.
                let target = self.seen.get(at).map_or("?", |(target, _)| *target);
                same("whose answer", target.to_owned(), answer.text())?;
            } else if answer.field("proxy-status").is_none() {
                return Err(format!("no Proxy-Status: {}", answer.head));
            }
            let closes = self.end != End::Open && at == last;
            same(
                "Connection: close",
                closes,
                answer.field("connection") == Some("close"),
            )?;
        }
        self.check_end(&mut raw)?;
        served(rig)?;
        self.check_seen(&backend.take())
            .map_err(|why| format!("the backend: {why}"))
    }

    fn check_end(&self, raw: &mut Raw) -> Result<(), String> {
        match self.end {
            End::Open => {
                raw.send("GET /after HTTP/1.1\r\nHost: x\r\n\r\n")
                    .map_err(|why| format!("the same connection: {why}"))?;
                let after = raw
                    .response()
                    .map_err(|why| format!("the same connection: {why}"))?;
                same("the same connection", "/after".to_owned(), after.text())
            }
            End::Closed => match raw.to_end() {
                Ok(rest) if rest.is_empty() => Ok(()),
                other => Err(format!("no orderly end: {other:?}")),
            },
            End::Cut => match raw.to_end() {
                Ok(rest) if !rest.is_empty() => Err(format!("more than an answer: {rest:?}")),
                Err(why) if why.kind() != std::io::ErrorKind::ConnectionReset => {
                    Err(format!("no end: {why}"))
                }
                _ => Ok(()),
            },
        }
    }
    /// After the case itself came `/next`, and before it `/after` on a connection that stayed open.
    fn check_seen(&self, backend: &Seen) -> Result<(), String> {
        if let Some(complaint) = backend.complaints.first() {
            return Err(format!("{complaint} in {:?}", backend.requests));
        }
        let mut wanted = self.seen.clone();
        wanted.extend((self.end == End::Open).then_some(("/after", "")));
        wanted.push(("/next", ""));
        let bodies = |r: &Request| String::from_utf8_lossy(&r.body).into_owned();
        let got: Vec<(&str, String)> = backend
            .requests
            .iter()
            .map(|r| (r.target(), bodies(r)))
            .collect();
        let got: Vec<(&str, &str)> = got.iter().map(|(t, b)| (*t, b.as_str())).collect();
        same("requests", wanted, got)?;
        match self.beginning {
            true => Ok(()),
            false => same("bytes of no request", "", backend.fragments.as_str()),
        }
    }
}

/// Runs a table twice against one proxy: every case must hold both times, and the second time must leave nothing behind.
fn hold(cases: &[Case]) {
    hold_with(Plan::new(&[]), cases);
}

/// As [`hold`], with what `plan` says beside endpoints.
fn hold_with(plan: Plan, cases: &[Case]) {
    let backend = Recorder::start();
    // One worker: then the cases, which come one after the other, share one upstream connection.
    let rig = plan.endpoint(backend.address()).top("workers: 1").run();
    let (rig, backend) = (&rig, &backend);
    let round = |round| {
        cases.iter().filter_map(move |case| {
            let failed = case.check(rig, backend).err()?;
            Some(format!("{} ({round}): {failed}", case.name))
        })
    };
    let mut failures: Vec<String> = round("first round").collect();
    let before = rig.proxy.settled();
    failures.extend(round("second round"));
    report(&failures, cases.len());
    rig.proxy.assert_nothing_left(before, SLACK);
}

/// Panics with every failure of a table.
fn report(failures: &[String], cases: usize) {
    assert!(
        failures.is_empty(),
        "{} failures in {cases} cases:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

/// A well-behaved client is served on a connection of its own.
fn served(rig: &Rig) -> Result<(), String> {
    let next = sluicegate_tests::client::get(rig.bind, "/next")
        .map_err(|why| format!("the next connection: {why}"))?;
    same("the next connection", "/next".to_owned(), next.text())
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, wanted: T, got: T) -> Result<(), String> {
    match wanted == got {
        true => Ok(()),
        false => Err(format!("{what}: {wanted:?} wanted, {got:?} got")),
    }
}
