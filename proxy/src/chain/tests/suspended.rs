//! Calls that wait, as their owner sees them.

use super::*;
use crate::wasm::{Effect, EffectResult};

/// Suspends each request for a sleep, with token 7. `resumed` is what `on-resume` does before it edits the request.
pub(super) fn waiting(resumed: &str) -> Guest {
    let mut block = Writer::new(Kind::Suspend);
    block
        .op(80, b"", &5u32.to_le_bytes())
        .op(65, b"", &7u64.to_le_bytes())
        .op(64, b"", &3u64.to_le_bytes());
    let mut guest = Guest::answering(Phase::Request, &block.finish());
    let edit = Writer::new(Kind::Next).op(1, b"x-resumed", b"1").finish();
    let (at, length) = guest.put(&edit);
    let pair = [at.to_le_bytes(), length.to_le_bytes()].concat();
    let (pair, _) = guest.put(&pair);
    // The header has the token and the state.
    guest.item(&format!(
        r#"(func (export "sluicegate:filter/resume@0.1.0#on-resume") (param $head i32) (param $length i32) (result i32)
             (local $n i32)
             (global.set $heap (i32.const 65536))
             (if (i64.ne (i64.load offset=56 (local.get $head)) (i64.const 7)) (then unreachable))
             (if (i64.ne (i64.load offset=16 (local.get $head)) (i64.const 3)) (then unreachable))
             {resumed}
             i32.const {pair})"#
    ))
}

pub(super) fn suspended(exchange: &mut Exchange) -> Box<Suspension> {
    match exchange.request() {
        Outcome::Suspend(suspension) => suspension,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_answer_of_the_resume_is_the_phases() {
    let mut exchange = Exchange::new(chain(&[waiting(""), waiting("")]));
    let connection = connection();
    let facts = facts(&connection);
    let resume = |exchange: &mut Exchange, suspension| {
        exchange.chain.resume_request(
            &mut exchange.state,
            &facts,
            &mut exchange.head,
            suspension,
            &[EffectResult::Done],
        )
    };
    let first = suspended(&mut exchange);
    assert_eq!(first.at(), 0);
    let effects: Vec<_> = first.effects().collect();
    assert_eq!(effects, [Effect::Sleep { ms: 5 }]);
    let next = match resume(&mut exchange, *first) {
        Outcome::Suspend(next) => next,
        other => panic!("{other:?}"),
    };
    assert_eq!(next.at(), 1);
    assert!(matches!(resume(&mut exchange, *next), Outcome::Continue));
    let resumed = |(name, _): &&(String, String)| name == "x-resumed";
    assert_eq!(exchange.lines().iter().filter(resumed).count(), 1);
    assert!(exchange.state.filter_wait > Duration::ZERO);
}

#[test]
fn what_is_dropped_is_cancelled_and_its_time_is_counted() {
    let mut config = config("waits");
    config.limits.cpu = Some(Duration::from_millis(1));
    config.limits.deadline = Duration::from_secs(10);
    let spin = "(loop $l (local.set $n (i32.add (local.get $n) (i32.const 1)))
                  (br_if $l (i32.lt_u (local.get $n) (i32.const 50000000))))";
    let filter = load_as(&waiting(spin), config).expect("a filter");
    let mut exchange = Exchange::new(chain_of(std::slice::from_ref(&filter)));
    let suspension = suspended(&mut exchange);
    assert_eq!(filter.counts().calls, 1);
    drop(suspension);
    assert_eq!(filter.counts().calls, 2);
    let outcome = exchange.request();
    assert!(
        matches!(
            outcome,
            Outcome::Fault {
                kind: FaultKind::Cpu,
                ..
            }
        ),
        "{outcome:?}"
    );
}

#[test]
fn a_cancelled_call_that_fails_costs_the_instance() {
    let filter = load("waits", &waiting("unreachable"));
    let mut exchange = Exchange::new(chain_of(std::slice::from_ref(&filter)));
    drop(suspended(&mut exchange));
    assert_eq!(filter.counts().faults(FaultKind::Trap), 1);
    // What waited in the same instance is told so, and the next call finds another.
    let waits = suspended(&mut exchange);
    let other = suspended(&mut exchange);
    drop(other);
    let connection = connection();
    let facts = facts(&connection);
    let outcome = exchange.chain.resume_request(
        &mut exchange.state,
        &facts,
        &mut exchange.head,
        *waits,
        &[EffectResult::Done],
    );
    let gone = matches!(
        outcome,
        Outcome::Fault {
            kind: FaultKind::Instance,
            ..
        }
    );
    assert!(gone, "{outcome:?}");
}
