//! Filters on the bytes of relayed sessions.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sluicegate_tests::addresses::Addresses;
use sluicegate_tests::backend::Backend;
use sluicegate_tests::proxy::{Proxy, Start};
use sluicegate_tests::wait::{DEADLINE, eventually};

use super::guest::{BODY, DROP, Guest, NEXT, Phase, op, verdict};
use super::rig::{calls, calls_meanwhile, record};

/// Replaces each piece by itself with every byte changed; doing it twice gives the piece.
fn xor() -> Vec<u8> {
    let item = r#"(func $xor (param $head i32) (param $length i32) (result i32)
      (local $at i32) (local $size i32) (local $out i32) (local $i i32)
      (local.set $at (i32.add (local.get $head) (i32.load offset=224 (local.get $head))))
      (local.set $size (i32.load offset=228 (local.get $head)))
      (local.set $out (i32.add (local.get $head) (local.get $length)))
      (i32.store8 (local.get $out) (i32.const 0))
      (i32.store offset=1 (local.get $out) (i32.const 49))
      (i32.store offset=5 (local.get $out) (local.get $size))
      (block $end (loop $l
        (br_if $end (i32.ge_u (local.get $i) (local.get $size)))
        (i32.store8 offset=9 (i32.add (local.get $out) (local.get $i))
          (i32.xor (i32.const 90) (i32.load8_u (i32.add (local.get $at) (local.get $i)))))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br $l)))
      (i32.store (i32.const 512) (local.get $out))
      (i32.store (i32.const 516) (i32.add (local.get $size) (i32.const 9)))
      (i32.const 512))"#;
    let call = "(call $xor (local.get $head) (local.get $length))";
    let guest = Guest::default().item(item);
    guest
        .runs(Phase::ClientData, call)
        .runs(Phase::ServerData, call)
        .build()
}

/// A relay through so many listeners, one after the other, each with the filter.
fn relay(guest: Vec<u8>, endpoint: SocketAddr, listeners: usize) -> (Proxy, SocketAddr) {
    let mut addresses = Addresses::new();
    let mut to = endpoint;
    let (mut pools, mut all) = (String::from("pools:\n"), String::from("listeners:\n"));
    for n in 0..listeners {
        let bind = addresses.free();
        pools += &format!("  p{n}: {{endpoints: [\"{to}\"]}}\n");
        all += &format!(
            "  - {{name: l{n}, bind: \"{bind}\", protocol: tcp, pool: p{n}, filters: [{{module: f.wasm}}]}}\n"
        );
        to = bind;
    }
    let yaml = format!("{pools}{all}telemetry: {{access-log: {{format: json}}}}\n");
    (Start::new().file("f.wasm", guest).run(&yaml), to)
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).expect("connect");
    stream.set_read_timeout(Some(DEADLINE)).expect("timeout");
    stream.set_write_timeout(Some(DEADLINE)).expect("timeout");
    stream
}

#[test]
fn a_pair_of_codecs_gives_back_what_was_sent() {
    const BYTES: usize = 64 << 20;
    let backend = Backend::echo();
    let (proxy, bind) = relay(xor(), backend.address(), 2);
    let sent: Vec<u8> = (0..BYTES).map(|n| (n * 7 + n / 4096) as u8).collect();
    let mut stream = connect(bind);
    let before = proxy.resources().resident_bytes;
    let mut received = Vec::with_capacity(BYTES);
    std::thread::scope(|scope| {
        let mut writer = stream.try_clone().expect("clone");
        let sent = &sent;
        scope.spawn(move || {
            writer.write_all(sent).expect("write");
            writer.shutdown(Shutdown::Write).expect("shutdown");
        });
        // Also the end comes back: the endpoint's after the client's.
        stream.read_to_end(&mut received).expect("read");
    });
    assert!(received == sent, "{} bytes came back", received.len());
    let grown = proxy.resources().resident_bytes.saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes more are resident");
    let session = record(&proxy, |r| r["listener"] == "l0");
    assert_eq!(session["bytes_in"], BYTES, "{session}");
    assert_eq!(session["bytes_out"], BYTES, "{session}");
}

#[test]
fn a_client_that_does_not_read_stops_the_endpoint() {
    let backend = Backend::echo();
    let (proxy, bind) = relay(xor(), backend.address(), 1);
    let mut stream = connect(bind);
    let before = proxy.resources().resident_bytes;
    stream
        .set_write_timeout(Some(Duration::from_millis(500)))
        .expect("timeout");
    let (piece, mut sent) = (vec![1; 64 << 10], 0);
    while sent < 256 << 20 {
        match stream.write(&piece) {
            Ok(n) => sent += n,
            Err(_) => break,
        }
    }
    assert!(sent < 256 << 20, "nothing ever stopped the client");
    let grown = proxy.resources().resident_bytes.saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes more are resident");
    let mut back = vec![0; sent];
    stream.read_exact(&mut back).expect("all that was sent");
    assert!(back.iter().all(|byte| *byte == 1));
}

#[test]
fn a_server_s_banner_is_rewritten_and_the_client_s_bytes_are_not() {
    let backend = Backend::raw(|mut stream, _| {
        let _ = stream.write_all(b"old 1.2.3\n");
        let mut asked = [0; 4];
        let _ = stream.read_exact(&mut asked);
        assert_eq!(&asked, b"ping");
    });
    let block = verdict(NEXT, &[op(BODY, "", b"hidden\n")]);
    // The last piece is empty and is answered too.
    let guest = Guest::default().answers(Phase::ServerData, &block).build();
    let (_proxy, bind) = relay(guest, backend.address(), 1);
    let mut stream = connect(bind);
    let mut banner = [0; 7];
    stream.read_exact(&mut banner).expect("banner");
    assert_eq!(&banner, b"hidden\n");
    stream.write_all(b"ping").expect("write");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("the end");
    assert_eq!(rest, b"hidden\n");
}

#[test]
fn a_pattern_ends_the_session_and_is_recorded() {
    let backend = Backend::echo();
    let mut guest = Guest::default();
    let drop = guest.pair(&[DROP]);
    let guest = guest.runs(
        Phase::ClientData,
        &format!(
            "(i64.store (i32.const 512) (i64.const 0))
             (if (result i32) (i32.and (i32.gt_u (i32.load offset=228 (local.get $head)) (i32.const 0))
                   (i32.eq (i32.const 88) (i32.load8_u (i32.add (local.get $head)
                     (i32.load offset=224 (local.get $head))))))
               (then (i32.const {drop})) (else (i32.const 512)))"
        ),
    );
    let (proxy, bind) = relay(guest.build(), backend.address(), 1);
    let mut stream = connect(bind);
    let mut back = [0; 4];
    stream.write_all(b"fine").expect("write");
    stream.read_exact(&mut back).expect("echo");
    stream.write_all(b"X marks").expect("write");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("a FIN, not a reset");
    assert_eq!(rest, b"");
    let session = record(&proxy, |r| r["listener"] == "l0");
    assert_eq!(session["reason"], "filter-drop");
    assert_eq!(session["bytes_in"], 4, "{session}");
}

#[test]
fn a_filter_that_toils_and_swallows_lets_others_have_their_turn() {
    let mut guest = Guest::default();
    let nothing = guest.pair(&verdict(NEXT, &[op(BODY, "", b"")]));
    let toil = format!(
        "(local.set $n (i32.const 5000000))
         (loop $l (br_if $l (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
         (i32.const {nothing})"
    );
    let guest = guest.runs(Phase::ClientData, &toil).build();
    let backend = Backend::http("ok");
    let mut addresses = Addresses::new();
    let (bad, good) = (addresses.free(), addresses.free());
    let proxy = Start::new().file("f.wasm", guest).run(&format!(
        "workers: 1\npools: {{web: {{endpoints: [\"{}\"]}}}}\n\
         filters: {{f: {{module: f.wasm, limits: {{deadline: 1s}}}}}}\nlisteners:\n\
         \x20 - {{name: bad, bind: \"{bad}\", protocol: tcp, pool: web, filters: [f]}}\n\
         \x20 - {{name: good, bind: \"{good}\", protocol: http, pool: web}}\n",
        backend.address(),
    ));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut stream = connect(bad);
            let piece = vec![b'x'; 256 << 10];
            while !stop.load(Ordering::SeqCst) {
                if stream.write_all(&piece).is_err() {
                    return;
                }
            }
        });
        let begun = eventually(DEADLINE, || calls(&proxy, "f") > 20.0);
        let meanwhile = begun.then(|| calls_meanwhile(&proxy, "f", good));
        stop.store(true, Ordering::SeqCst);
        let meanwhile = meanwhile.expect("the filter is called");
        assert!(meanwhile < 60.0, "{meanwhile} calls at a time");
    });
    proxy.settled();
}
