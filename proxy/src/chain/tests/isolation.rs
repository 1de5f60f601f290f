//! Exchanges that have an instance of their own.

use super::suspended::{suspended, waiting};
use super::*;
use crate::wasm::EffectResult;

/// Traps at the third call of one instance, whatever the phase.
fn counting() -> Guest {
    let body = "(i32.store (i32.const 512) (i32.add (i32.const 1) (i32.load (i32.const 512))))
                (if (i32.eq (i32.load (i32.const 512)) (i32.const 3)) (then unreachable))
                i32.const 600";
    Guest::running(Phase::Request, body).and_runs(Phase::Response, body)
}

fn isolated(guest: &Guest, instances: Option<u32>) -> Arc<Filter> {
    let mut config = config("f");
    config.isolation = Isolation::Request;
    config.limits.instances = instances;
    // What makes an instance on the worker is quick on any machine.
    config.limits.deadline = Duration::from_millis(500);
    load_as(guest, config).expect("a filter")
}

fn exchange(filter: &Arc<Filter>) -> Exchange {
    Exchange::new(chain_of(std::slice::from_ref(filter)))
}

#[test]
fn nothing_is_left_of_an_exchange_and_within_it_everything() {
    let filter = isolated(&counting(), None);
    let mut x = exchange(&filter);
    for _ in 0..5 {
        assert!(is_continue(&x.request()));
        assert!(is_continue(&x.response()));
    }
    // The third call of the same exchange.
    assert_eq!(fault_of(&x.response()), ("f", FaultKind::Trap));
    // Then it has another one.
    assert!(is_continue(&x.response()));
    assert_eq!(filter.instances(), 3, "two to spare, and the exchange's");
    drop(x);
    assert_eq!(filter.instances(), 2);
}

#[test]
fn exchanges_at_the_same_time_have_one_each_up_to_the_limit() {
    let filter = isolated(&counting(), Some(3));
    // One is made, then the two to spare are used.
    let mut all: Vec<Exchange> = (0..4).map(|_| exchange(&filter)).collect();
    let outcomes: Vec<bool> = all.iter_mut().map(|x| is_continue(&x.request())).collect();
    assert_eq!(outcomes, [true, true, true, false]);
    assert_eq!(filter.counts().faults(FaultKind::Instance), 1);
    assert!(filter.no_instance().contains("limits.instances"));
    all.remove(0);
    let mut next = exchange(&filter);
    assert!(is_continue(&next.request()));
}

#[test]
fn a_call_that_waits_is_resumed_in_its_own() {
    let filter = isolated(&waiting(""), None);
    let (mut one, mut other) = (exchange(&filter), exchange(&filter));
    let first = suspended(&mut one);
    let second = suspended(&mut other);
    let connection = connection();
    for (x, suspension) in [(&mut other, second), (&mut one, first)] {
        let outcome = x.chain.resume_request(
            &mut x.state,
            &facts(&connection),
            &mut x.head,
            *suspension,
            &[EffectResult::Done],
        );
        assert!(is_continue(&outcome), "{outcome:?}");
    }
    // One that is dropped with its exchange takes its instance along.
    let mut gone = exchange(&filter);
    let suspension = suspended(&mut gone);
    let calls = filter.counts().calls;
    drop((suspension, gone, one, other));
    assert_eq!(filter.counts().calls, calls, "there is nobody to be told");
    assert_eq!(filter.instances(), 2);
}

#[test]
fn ticks_and_streams_have_theirs() {
    let body = "(i32.store (i32.const 512) (i32.add (i32.const 1) (i32.load (i32.const 512))))
                (if (i32.eq (i32.load (i32.const 512)) (i32.const 2)) (then unreachable))
                i32.const 600";
    let filter = isolated(&Guest::running(Phase::Connect, body), None);
    let chain = chain_of(std::slice::from_ref(&filter));
    let connection = connection();
    for _ in 0..3 {
        let mut state = ExchangeState::default();
        let outcome = chain.connect(&mut state, &stream_facts(&connection));
        assert_eq!(outcome, StreamOutcome::Continue);
    }
}
