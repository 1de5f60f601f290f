//! Filters that are left alone: their processor time is spent, they fail for everybody, or there is no instance.

use super::*;
use crate::config::FaultLimit;

impl Exchange {
    /// An exchange of another client through the same chain.
    fn of(&self, client: &str) -> Outcome {
        let peer = format!("{client}:4000").parse().unwrap();
        let connection = Connection::new("web".into(), peer, "10.0.0.1:80".parse().unwrap());
        let (mut state, mut head) = (ExchangeState::default(), request("/x"));
        self.chain
            .request(&mut state, &facts(&connection), &mut head)
    }
}

fn failing(config: FilterConfig) -> (Arc<Filter>, Exchange) {
    // Fails for targets of two bytes and goes on for others.
    let body = "(if (i32.eq (i32.load (i32.add (local.get $head) (i32.const 92))) (i32.const 2)) (then unreachable))
                i32.const 0";
    let filter = load_as(&Guest::running(Phase::Request, body), config).unwrap();
    let chain = chain_of(std::slice::from_ref(&filter));
    (filter, Exchange::new(chain))
}

#[test]
fn a_filter_that_fails_for_everybody_is_left_alone() {
    let mut config = config("bad");
    config.limits.faults = Some(FaultLimit {
        count: 3,
        within: Duration::from_secs(60),
    });
    let (filter, x) = failing(config);
    for client in ["10.0.0.1", "10.0.0.2", "10.0.0.3"] {
        assert_eq!(filter.suspended(), 0);
        assert_eq!(fault_of(&x.of(client)), ("bad", FaultKind::Trap));
    }
    assert_eq!(filter.suspended(), 1);
    for _ in 0..5 {
        assert_eq!(fault_of(&x.of("10.0.0.4")), ("bad", FaultKind::Backoff));
    }
    let counts = filter.counts();
    assert_eq!(counts.calls, 3);
    assert_eq!(counts.faults(FaultKind::Trap), 3);
    assert_eq!(counts.faults(FaultKind::Backoff), 5);
    // The worker keeps none for it meanwhile.
    assert_eq!(filter.instances(), 0);
}

#[test]
fn a_filter_that_fails_for_one_client_serves_the_others() {
    let (filter, mut x) = failing(config("bad"));
    for n in 0..200 {
        assert_eq!(
            fault_of(&x.of("10.0.0.66")),
            ("bad", FaultKind::Trap),
            "{n}"
        );
    }
    // One that is answered forgives those of others.
    for n in 0..200 {
        let client = format!("10.0.1.{n}");
        assert_eq!(fault_of(&x.of(&client)), ("bad", FaultKind::Trap), "{n}");
        x.head = request("/long");
        assert!(is_continue(&x.request()));
    }
    assert_eq!(filter.suspended(), 0);
    assert_eq!(filter.counts().faults(FaultKind::Backoff), 0);
}

#[test]
fn bypass_holds_for_a_filter_that_is_left_alone() {
    let mut config = config("bad");
    config.on_error = OnError::Bypass;
    let (filter, x) = failing(config);
    for n in 0..20 {
        assert!(is_continue(&x.of(&format!("10.0.0.{n}"))));
    }
    let counts = filter.counts();
    assert_eq!(counts.faults(FaultKind::Trap), 5);
    assert_eq!(counts.faults(FaultKind::Backoff), 15);
}

#[test]
fn processor_time_that_is_spent_is_waited_for() {
    let mut config = config("busy");
    config.limits.cpu = Some(Duration::from_millis(5));
    config.limits.deadline = Duration::from_secs(1);
    // Counts to thirty million, which takes longer than what it is given in a second.
    let body = "(local.set $n (i32.const 30000000))
                (loop $l (br_if $l (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
                i32.const 0";
    let filter = load_as(&Guest::running(Phase::Request, body), config).unwrap();
    let mut x = Exchange::new(chain_of(std::slice::from_ref(&filter)));
    assert!(is_continue(&x.request()));
    assert_eq!(fault_of(&x.request()), ("busy", FaultKind::Cpu));
    let counts = filter.counts();
    assert_eq!((counts.calls, counts.faults(FaultKind::Cpu)), (1, 1));
    // No instance was lost, and no call is counted for what was not called.
    assert_eq!(filter.suspended(), 0);
    assert_eq!(counts.verdicts(VerdictKind::Next), 1);
}

#[test]
fn no_more_instances_are_alive_than_may_be() {
    let mut config = config("bad");
    config.limits.instances = Some(1);
    let (filter, mut x) = failing(config.clone());
    assert_eq!(filter.instances(), 1);
    for _ in 0..20 {
        assert_eq!(fault_of(&x.of("10.0.0.1")), ("bad", FaultKind::Trap));
        assert_eq!(filter.instances(), 1);
        filter.restock();
        assert_eq!(filter.instances(), 1);
    }
    x.head = request("/long");
    assert!(is_continue(&x.request()));

    let guest = Guest::answering(Phase::Request, &[]);
    let host = Host::new(HostOptions::default()).unwrap();
    let module = Module::load(&host, "test", &guest.build()).unwrap();
    let refused = Filter::load(module, Arc::new(config), 2, Arc::new(|_| {})).unwrap_err();
    assert_eq!(refused[0].code, "too-few-instances");
    assert_eq!(refused[0].at.0, "/filters/bad/limits/instances");
}
