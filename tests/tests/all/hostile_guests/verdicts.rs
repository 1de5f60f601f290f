//! Verdicts with every word of them replaced: what the library's reader refuses is 500 and reaches no backend, and what
//! it takes is an exchange like any other.

use sluicegate::wasm::{Kind, Phase as Read, Rules, Verdict};
use sluicegate_tests::backend::Backend;
use sluicegate_tests::proxy::Start;

use super::super::guest::{BODY, Guest, NEXT, POOL, Phase, REPLY, SET, STATUS, op, verdict};
use super::super::rig::{Plan, Rig};

/// A guest that answers with the bytes that the query spells in hexadecimal: slot 4.
fn echoing() -> Vec<u8> {
    let item = r#"(func $digit (param $c i32) (result i32)
        (i32.add (i32.and (local.get $c) (i32.const 15))
          (i32.mul (i32.const 9) (i32.shr_u (local.get $c) (i32.const 6)))))
      (func (export "sluicegate:filter/http-request@0.1.0#on-request")
        (param $head i32) (param $length i32) (result i32) (local $n i32) (local $from i32)
        (global.set $heap (i32.const 65536))
        (local.set $from (i32.add (local.get $head) (i32.load offset=96 (local.get $head))))
        (i32.store (i32.const 512) (i32.const 2048))
        (i32.store (i32.const 516) (i32.shr_u (i32.load offset=100 (local.get $head)) (i32.const 1)))
        (block $done
          (loop $l
            (br_if $done (i32.ge_u (local.get $n) (i32.load (i32.const 516))))
            (i32.store8 (i32.add (i32.const 2048) (local.get $n))
              (i32.or
                (i32.shl (call $digit (i32.load8_u (local.get $from))) (i32.const 4))
                (call $digit (i32.load8_u offset=1 (local.get $from)))))
            (local.set $from (i32.add (local.get $from) (i32.const 2)))
            (local.set $n (i32.add (local.get $n) (i32.const 1)))
            (br $l)))
        (i32.const 512))"#;
    Guest::default()
        .wants(Phase::Request)
        .pool("web")
        .item(item)
        .build()
}

/// Verdicts that are right, and between them hold every operation of a request.
fn samples() -> Vec<Vec<u8>> {
    let number = |code, n: u32| op(code, "", &n.to_le_bytes());
    vec![
        vec![NEXT],
        verdict(
            NEXT,
            &[
                op(SET, "x-set", b"one"),
                op(2, "x-append", b"two"),
                op(3, "x-add", b"three"),
                op(4, "accept", b""),
                op(16, "", b"/target?q"),
                op(17, "", b"a.test:80"),
            ],
        ),
        verdict(
            NEXT,
            &[
                number(POOL, 0),
                op(33, "", b"key"),
                op(34, "", b"127.0.0.1:80"),
                number(35, 60_000),
                number(36, 60_000),
                number(37, 1),
                op(64, "", &7u64.to_le_bytes()),
            ],
        ),
        verdict(
            REPLY,
            &[
                op(STATUS, "", &418u16.to_le_bytes()),
                op(SET, "x-set", b"one"),
                op(BODY, "", b"a body"),
            ],
        ),
    ]
}

/// The sample with a word of four bytes and one of two replaced at every place, whether a length is there or not, and
/// cut short at every place.
fn mutants(sample: &[u8]) -> Vec<Vec<u8>> {
    let length = sample.len() as u32;
    let mut mutants: Vec<Vec<u8>> = (0..sample.len())
        .map(|end| sample[..end].to_vec())
        .collect();
    for at in 0..sample.len() {
        for width in [4, 2, 1] {
            let Some(word) = sample.get(at..at + width) else {
                continue;
            };
            let mut bytes = [0; 4];
            bytes[..width].copy_from_slice(word);
            let now = u32::from_le_bytes(bytes);
            for value in [
                0,
                1,
                u32::MAX,
                1 << 31,
                1 << 15,
                now.wrapping_add(1),
                now.wrapping_sub(1),
                length,
                length + 1,
                length - 1,
            ] {
                let mut mutant = sample.to_vec();
                mutant[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
                mutants.push(mutant);
            }
        }
    }
    mutants.sort();
    mutants.dedup();
    mutants
}

fn rig(backend: &Backend) -> Rig {
    Plan::new(&[backend.address()])
        .listener("filters: [echo]")
        .top("workers: 1\nfilters: {echo: {module: echo.wasm}}\ntelemetry: {access-log: off}")
        .run_with(Start::new().file("echo.wasm", echoing()))
}

#[test]
fn a_verdict_is_taken_whole_or_not_at_all() {
    let backend = Backend::http("web1");
    let rig = rig(&backend);
    let (mut failures, mut refused, mut count) = (Vec::new(), 0, 0);
    let mut raw = rig.raw();
    for mutant in samples().iter().flat_map(|sample| mutants(sample)) {
        count += 1;
        let query: String = mutant.iter().map(|byte| format!("{byte:02x}")).collect();
        let sent = raw.send(format!(
            "GET /?{query} HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n"
        ));
        let answer = sent.and_then(|()| raw.response());
        let reached = backend.take_received().len();
        let read = Verdict::read(mutant.clone(), &Rules::new(Read::Request, 1));
        refused += usize::from(read.is_err());
        let right = match (&read, &answer) {
            (Err(_), Ok(answer)) => answer.status == 500 && reached == 0,
            (Ok(verdict), Ok(answer)) => match verdict.kind {
                Kind::Next => answer.status != 500,
                Kind::Reply => answer.status >= 200 && reached == 0,
                Kind::Drop | Kind::Reset | Kind::Suspend => false,
            },
            (Ok(verdict), Err(_)) => matches!(verdict.kind, Kind::Drop | Kind::Reset),
            (Err(_), Err(_)) => false,
        };
        if !right {
            failures.push(format!(
                "{mutant:?}: {read:?}, but {answer:?}, {reached} reached"
            ));
        }
        let closed = answer.as_ref().map_or(true, |answer| {
            answer
                .field("connection")
                .is_some_and(|c| c.contains("close"))
        });
        if closed {
            raw = rig.raw();
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(count > 1000 && refused > count / 4, "{refused} of {count}");
    let faults = "sluicegate_filter_faults_total{filter=\"echo\",kind=\"verdict\"}";
    assert_eq!(rig.proxy.metric(faults), refused as f64);
    drop(raw);
    rig.settles();
}
