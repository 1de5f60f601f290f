//! What is no handshake, or none that ends.

use std::io::Read;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use sluicegate_tests::client::curl;
use sluicegate_tests::proxy::Start;
use sluicegate_tests::wait::{DEADLINE, eventually};

use super::hello::{Hello, record};
use super::recorder::Recorder;
use super::{SLACK, report, same};
use crate::rig::{Plan, Rig, TLS, with_certificate};

/// Long enough for a handshake on a busy machine, short enough to wait for.
const HANDSHAKE: Duration = Duration::from_millis(1500);

const HANDSHAKE_FAILURE: u8 = 40;
const ILLEGAL_PARAMETER: u8 = 47;
const DECODE_ERROR: u8 = 50;
const PROTOCOL_VERSION: u8 = 70;
const UNEXPECTED_MESSAGE: u8 = 10;
const NO_APPLICATION_PROTOCOL: u8 = 120;

/// A client that never gets as far as a request.
struct Case {
    name: &'static str,
    sends: Vec<u8>,
    end: End,
}

/// How it is got rid of. Never with a word of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// At once, with one of these fatal alerts.
    Alert(&'static [u8]),
    /// At once, with an alert that only the keys they have agreed on could open.
    SecretAlert,
    /// At once, without a word.
    Silence,
    /// At once, after it has ended its own side.
    Hangup,
    /// By itself: it has reset the connection.
    Reset,
    /// When the time for the handshake is over, and not before.
    Timeout,
}

#[rustfmt::skip]
fn cases() -> Vec<Case> {
    let hello = || Hello::default().record();
    let alert = |name, sends: Vec<u8>, alerts| Case { name, sends, end: End::Alert(alerts) };
    let secret = |name, sends: Vec<u8>| Case { name, sends, end: End::SecretAlert };
    let silence = |name, sends: Vec<u8>| Case { name, sends, end: End::Silence };
    let stalls = |name, sends: Vec<u8>| Case { name, sends, end: End::Timeout };
    let resets = |name, sends: Vec<u8>| Case { name, sends, end: End::Reset };
    let leaves = |name, sends: Vec<u8>| Case { name, sends, end: End::Hangup };
    let old = |version| Hello { legacy_version: version, versions: vec![], ..Hello::default() }.record();
    let changed = |at: usize, byte: u8| { let mut bytes = hello(); bytes[at] = byte; bytes };
    let garbage = &[UNEXPECTED_MESSAGE, DECODE_ERROR, ILLEGAL_PARAMETER, PROTOCOL_VERSION][..];
    vec![
        alert("plain HTTP", b"GET /evil HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), garbage),
        alert("plain HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec(), garbage),
        alert("the greeting of SSH", b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), garbage),
        alert("a record of no known kind", changed(0, 99), garbage),
        alert("a record of an unknown version", changed(1, 9), garbage),
        alert("application data", record(23, b"GET /evil HTTP/1.1\r\nHost: x\r\n\r\n"), garbage),
        alert("an oversized record", [&[22, 3, 1, 0xff, 0xff][..], &[0; 70_000]].concat(), garbage),
        alert("a record of 16 KiB and a bit", record(22, &[1; 18_433 + 100]), garbage),
        silence("the head of an oversized message", record(22, &[1, 0xff, 0xff, 0xff, 3, 3])),
        silence("an oversized message", [record(22, &[1, 0xff, 0xff, 0xff]), record(22, &[3; 16_000]).repeat(20)].concat()),
        alert("a message that is no ClientHello", record(22, &[2, 0, 0, 2, 3, 3]), garbage),
        alert("a ClientHello of one byte", record(22, &[1, 0, 0, 1, 3]), garbage),
        alert("a ClientHello with its lengths askew", changed(44, 0xff), garbage),
        alert("a change of cipher before anything", record(20, &[1]), garbage),
        alert("empty records without end", record(22, &[]).repeat(2000), garbage),
        alert("SSL 2", vec![0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10, 1, 0, 0x80, 2, 0, 0x80], garbage),
        alert("SSL 3", old(0x0300), &[PROTOCOL_VERSION]),
        alert("TLS 1.0", old(0x0301), &[PROTOCOL_VERSION]),
        alert("TLS 1.1", old(0x0302), &[PROTOCOL_VERSION]),
        alert("versions of the future alone", Hello { versions: vec![0x0305, 0x7f7f], ..Hello::default() }.record(), &[PROTOCOL_VERSION]),
        alert("suites that are too weak", Hello { suites: vec![0x000a, 0x002f, 0x0005], ..Hello::default() }.record(), &[HANDSHAKE_FAILURE]),
        alert("no suite", Hello { suites: vec![], ..Hello::default() }.record(), &[HANDSHAKE_FAILURE, DECODE_ERROR, ILLEGAL_PARAMETER]),
        alert("ALPN of another protocol", Hello { alpn: Some("smtp"), versions: vec![0x0303], ..Hello::default() }.record(), &[NO_APPLICATION_PROTOCOL]),
        secret("ALPN of another protocol in TLS 1.3", Hello { alpn: Some("smtp"), ..Hello::default() }.record()),
        alert("ALPN of nothing", Hello { alpn: Some(""), ..Hello::default() }.record(), garbage),
        alert("a server name of 10,000 bytes", Hello { server_name: vec![b'a'; 10_000], ..Hello::default() }.record(), garbage),
        alert("a server name of no letters", Hello { server_name: b"\0\xff\r\n".to_vec(), ..Hello::default() }.record(), garbage),
        alert("a server name that is empty", Hello { server_name: vec![], ..Hello::default() }.record(), garbage),
        secret("a hello and then plain HTTP", [hello(), b"GET /evil HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()].concat()),
        secret("a hello and then plain application data", [hello(), record(23, &[b'x'; 100])].concat()),
        secret("two hellos", [hello(), hello()].concat()),
        leaves("nothing, and leaves", vec![]),
        leaves("one byte, and leaves", vec![22]),
        leaves("half a hello, and leaves", hello()[..60].to_vec()),
        leaves("a hello, and leaves", hello()),
        resets("one byte, and resets", vec![22]),
        resets("half a hello, and resets", hello()[..60].to_vec()),
        resets("a hello, and resets", hello()),
        stalls("nothing", vec![]),
        stalls("one byte", vec![22]),
        stalls("the head of a record", vec![22, 3, 1, 2, 0]),
        stalls("half a hello", hello()[..60].to_vec()),
        stalls("a hello, and no answer to the server's", hello()),
        stalls("a hello in a record for each byte, the last one missing", {
            let message = Hello::default().message();
            message[..message.len() - 1].iter().flat_map(|&byte| record(22, &[byte])).collect()
        }),
    ]
}

impl Case {
    fn check(&self, rig: &Rig) -> Result<(), String> {
        let began = Instant::now();
        let mut raw = rig.raw();
        let _ = raw.send(&self.sends);
        if self.end == End::Hangup {
            let _ = raw.stream().shutdown(Shutdown::Write);
        }
        if self.end == End::Reset {
            let socket = socket2::SockRef::from(raw.stream());
            let reset = socket.set_linger(Some(Duration::ZERO));
            return reset.map_err(|why| why.to_string());
        }
        let mut got = Vec::new();
        match raw.stream().read_to_end(&mut got) {
            Ok(_) => {}
            // What it still sent may be met by a reset; whatever was said before is there.
            Err(why) if why.kind() == std::io::ErrorKind::ConnectionReset => {}
            Err(why) => return Err(format!("it stays open: {why}")),
        }
        let got = &got[..];
        let took = began.elapsed();
        if got.windows(5).any(|w| w == b"HTTP/") {
            return Err("it was answered in HTTP".into());
        }
        let alert = fatal_alert(got);
        match self.end {
            End::Alert(wanted) if !alert.is_some_and(|a| wanted.contains(&a)) => Err(format!(
                "one of {wanted:?} wanted, {alert:?} got in {got:?}"
            )),
            End::SecretAlert if last_record(got) != Some((23, 19)) => {
                Err(format!("an alert wanted, {got:?} got"))
            }
            End::Silence if !got.is_empty() => Err(format!("it was told {got:?}")),
            End::Timeout if took < HANDSHAKE - Duration::from_millis(100) => {
                Err(format!("ended after {took:?}"))
            }
            // Who is told off at once does not wait for the timeout; a busy machine may.
            End::Timeout => Ok(()),
            _ if took > DEADLINE / 2 => Err(format!("ended only after {took:?}")),
            _ => Ok(()),
        }
    }
}

/// The description of the last record, if that is a fatal alert in the clear.
fn fatal_alert(records: &[u8]) -> Option<u8> {
    match records {
        [.., 21, 3, _, 0, 2, 2, description] => Some(*description),
        _ => None,
    }
}

/// Kind and length of the last record.
fn last_record(mut records: &[u8]) -> Option<(u8, usize)> {
    let mut last = None;
    while let [kind, _, _, high, low, rest @ ..] = records {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        last = Some((*kind, length));
        records = rest.get(length..)?;
    }
    last
}

pub fn rig_of(backend: &Recorder) -> Rig {
    Plan::new(&[backend.address()])
        .listener(&format!(
            "timeouts: {{handshake: {}ms, head: {}ms}}\n{TLS}",
            HANDSHAKE.as_millis(),
            HANDSHAKE.as_millis()
        ))
        .top("workers: 1")
        .run_with(with_certificate(Start::new()))
}

#[test]
fn handshakes_that_cannot_be_end_without_a_word_of_http() {
    let backend = Recorder::start();
    let rig = rig_of(&backend);
    let cases = cases();
    let round = |round: &str| -> Vec<String> {
        let case = |case: &Case| {
            let failed = case.check(&rig).err()?;
            Some(format!("{} ({round}): {failed}", case.name))
        };
        // All at once: some wait.
        std::thread::scope(|scope| {
            let running: Vec<_> = cases.iter().map(|c| scope.spawn(move || case(c))).collect();
            let done = running
                .into_iter()
                .filter_map(|r| r.join().expect("a case"));
            let mut failures: Vec<String> = done.collect();
            failures.extend(next(&rig).err());
            failures
        })
    };
    let mut failures = round("first round");
    let before = rig.proxy.settled();
    failures.extend(round("second round"));
    let seen = backend.take();
    let targets: Vec<&str> = seen.requests.iter().map(|r| r.target()).collect();
    failures.extend(same("the backend saw", vec!["/next"; 2], targets).err());
    failures.extend(same("and", "", seen.fragments.as_str()).err());
    let failed = "sluicegate_tls_handshakes_total{listener=\"web\",result=\"failed\"}";
    // Who says nothing has not tried.
    let tried = cases.iter().filter(|case| !case.sends.is_empty());
    let wanted = 2.0 * tried.count() as f64;
    let _ = eventually(DEADLINE, || rig.proxy.metric(failed) >= wanted);
    failures.extend(same("counted", wanted, rig.proxy.metric(failed)).err());
    report(&failures, cases.len());
    rig.proxy.assert_nothing_left(before, SLACK);
}

/// A well-behaved client is served.
pub fn next(rig: &Rig) -> Result<(), String> {
    let done = curl(&["-k", &format!("https://{}/next", rig.bind)]);
    same("the next connection", "/next".to_owned(), done.body)
}
