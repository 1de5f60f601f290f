//! What a call allocates in the proxy, once everything has its size: nothing, but for what an edit adds to a head.

use super::suspended::{suspended, waiting};
use super::*;
use crate::wasm::EffectResult;
use allocation_counter::measure;

/// Allocations of the tenth exchange with these filters.
fn count(filters: &[Arc<Filter>], mut exchange: impl FnMut(&mut Exchange)) -> u64 {
    let mut x = Exchange::new(chain_of(filters));
    for _ in 0..9 {
        exchange(&mut x);
    }
    measure(|| exchange(&mut x)).count_total
}

#[test]
fn a_call_allocates_what_its_verdict_needs_and_no_more() {
    let untouched = || {
        let guest = Guest::running(Phase::Request, "i32.const 600");
        load("f", &guest.and_runs(Phase::Response, "i32.const 600"))
    };
    let both = |x: &mut Exchange| {
        let outcome = x.request();
        assert!(is_continue(&outcome), "{outcome:?}");
        assert!(is_continue(&x.response()));
    };
    assert_eq!(count(&[untouched()], both), 0);
    let chain: Vec<_> = (0..8).map(|_| untouched()).collect();
    assert_eq!(count(&chain, both), 0, "a chain of eight");

    let standard = [
        builtin("ua-block", serde_json::json!({"deny": ["badcurl*"]})).unwrap(),
        builtin(
            "headers",
            serde_json::json!({"request": [{"set": "x-by", "value": "${peer.address}"}]}),
        )
        .unwrap(),
        builtin(
            "router",
            serde_json::json!({"rules": [{"match": {"path-prefix": "/x"}, "pool": "web"}]}),
        )
        .unwrap(),
        builtin("sticky", serde_json::json!({"by": "source"})).unwrap(),
    ];
    let request = |x: &mut Exchange| assert!(is_continue(&x.request()));
    for (filter, most) in standard.iter().zip([0, 1, 0, 0]) {
        let allocated = count(std::slice::from_ref(filter), request);
        assert!(allocated <= most, "{}: {allocated}", filter.name());
    }

    let waits = load("waits", &waiting(""));
    let connection = connection();
    let facts = facts(&connection);
    let allocated = count(std::slice::from_ref(&waits), |x| {
        let suspension = suspended(x);
        x.chain.resume_request(
            &mut x.state,
            &facts,
            &mut x.head,
            *suspension,
            &[EffectResult::Done],
        );
    });
    // The suspension, its verdict, the results, and the field that the resume adds.
    assert!(allocated <= 4, "suspend and resume: {allocated}");
}
