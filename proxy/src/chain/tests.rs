//! Chains of hand-written guests.

mod suspended;

mod allocations;
mod isolation;
mod limits;

use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::*;
use crate::config::{
    Balance, Capabilities, ConfigPath, FilterConfig, FilterLimits, HostPolicy, Isolation,
    ModuleSource, OnError, Panic, PoolConfig, PoolProtocol, Problem, StoreConfig,
};
use crate::connection::Connection;
use crate::head::{Fields, RequestHead, ResponseHead, Version};
use crate::wasm::wat::Guest;
use crate::wasm::{FaultKind, Host, HostOptions, Kind, Module, Phase, Writer};

fn config(name: &str) -> FilterConfig {
    FilterConfig {
        name: name.into(),
        at: ConfigPath(format!("/filters/{name}")),
        module: ModuleSource::Builtin("test".into()),
        sha256: None,
        settings: serde_json::Value::Null,
        limits: FilterLimits {
            memory: 1024 * 1024,
            deadline: Duration::from_millis(10),
            configure_deadline: Duration::from_millis(500),
            output: 64 * 1024,
            ..FilterLimits::default()
        },
        capabilities: Capabilities::default(),
        store: StoreConfig::Memory { bytes: 1 << 20 },
        on_error: OnError::Fail,
        isolation: Isolation::Worker,
        handler: None,
    }
}

fn pool(name: &str) -> Arc<PoolConfig> {
    Arc::new(PoolConfig {
        name: name.into(),
        at: ConfigPath(format!("/pools/{name}")),
        endpoints: Vec::new(),
        balance: Balance::RoundRobin,
        check: None,
        protocol: PoolProtocol::Http1,
        tls: None,
        connect_timeout: Duration::from_secs(1),
        keep_alive_max: 1,
        keep_alive_timeout: Duration::from_secs(1),
        http2: Default::default(),
        tcp_user_timeout: None,
        limits: Default::default(),
        max_connections: None,
        retries: 0,
        panic: Panic::Fail,
        handler: Default::default(),
        resolve_interval: Duration::from_secs(1),
        resolve_grace: None,
        name_servers: Vec::new(),
        host: HostPolicy::Preserve,
    })
}

fn pools() -> Vec<Arc<PoolConfig>> {
    vec![pool("web"), pool("api")]
}

fn load_as(guest: &Guest, config: FilterConfig) -> Result<Arc<Filter>, Vec<Problem>> {
    let host = Host::new(HostOptions::default()).unwrap();
    let module = Module::load(&host, "test", &guest.build()).unwrap();
    Filter::load(module, Arc::new(config), 1, Arc::new(|_| {}))
}

fn load(name: &str, guest: &Guest) -> Arc<Filter> {
    load_as(guest, config(name)).unwrap()
}

fn chain_of(filters: &[Arc<Filter>]) -> Chain {
    let links = filters
        .iter()
        .map(|filter| Link {
            slot: Slot::new(filter.clone(), 0),
            pools: filter.pool_table(filter.config(), &pools()).unwrap(),
        })
        .collect();
    Chain::new(links)
}

fn chain(guests: &[Guest]) -> Chain {
    let filters: Vec<_> = guests
        .iter()
        .enumerate()
        .map(|(at, guest)| load(&format!("f{at}"), guest))
        .collect();
    chain_of(&filters)
}

fn connection() -> Connection {
    Connection::new(
        "web".into(),
        "10.0.0.9:4000".parse().unwrap(),
        "10.0.0.1:80".parse().unwrap(),
    )
}

fn facts(connection: &Connection) -> RequestFacts<'_> {
    RequestFacts {
        connection,
        client: connection.peer.ip(),
        client_text: &connection.peer_text,
        client_port: connection.peer.port(),
        scheme: "http",
        request_id: "id",
        has_body: false,
    }
}

fn request(target: &str) -> RequestHead {
    let mut fields = Fields::default();
    fields.append(b"accept", b"*/*");
    fields.append(b"x-old", b"1");
    RequestHead::new(
        Version::Http11,
        b"GET",
        b"example.com",
        target.as_bytes(),
        fields,
    )
}

fn response() -> ResponseHead {
    ResponseHead {
        version: Version::Http11,
        status: 200,
        fields: Fields::default(),
    }
}

/// An exchange through a chain, phase by phase.
struct Exchange {
    chain: Chain,
    connection: Connection,
    state: ExchangeState,
    head: RequestHead,
    response: ResponseHead,
}

impl Exchange {
    fn new(chain: Chain) -> Self {
        Self {
            chain,
            connection: connection(),
            state: ExchangeState::default(),
            head: request("/x?y=1"),
            response: response(),
        }
    }

    fn request(&mut self) -> Outcome {
        let facts = facts(&self.connection);
        self.chain.request(&mut self.state, &facts, &mut self.head)
    }

    fn response_facts(connection: &Connection) -> ResponseFacts<'_> {
        ResponseFacts {
            request: facts(connection),
            version: Version::Http11,
            method: b"GET",
            authority: b"example.com",
            target: b"/x",
            endpoint: "10.0.0.2:80",
            pool: "web",
        }
    }

    fn response(&mut self) -> Outcome {
        let facts = Self::response_facts(&self.connection);
        self.chain
            .response(&mut self.state, &facts, &mut self.response)
    }

    fn log(&mut self) {
        let facts = LogFacts {
            response: Self::response_facts(&self.connection),
            status: 200,
            duration: Duration::from_millis(5),
            bytes_in: 0,
            bytes_out: 0,
            reason: None,
            fields: None,
        };
        self.chain.log(&mut self.state, &facts);
    }

    fn lines(&self) -> Vec<(String, String)> {
        text(&self.head.fields)
    }
}

fn text(fields: &Fields) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    fields.iter().map(|(n, v)| (text(n), text(v))).collect()
}

fn ops(kind: Kind, ops: &[(u8, &[u8], &[u8])]) -> Vec<u8> {
    let mut block = Writer::new(kind);
    for (code, name, value) in ops {
        block.op(*code, name, value);
    }
    block.finish()
}

fn append(value: &str) -> Vec<u8> {
    ops(Kind::Next, &[(2, b"X-Trace", value.as_bytes())])
}

fn traces(fields: &Fields) -> Vec<String> {
    fields
        .get_all(b"x-trace")
        .map(|v| String::from_utf8_lossy(v).into_owned())
        .collect()
}

fn is_continue(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Continue)
}

#[test]
fn requests_go_in_order_and_responses_in_reverse() {
    let guest = |value: &str| {
        Guest::answering(Phase::Request, &append(value))
            .and_answers(Phase::Response, &append(value))
    };
    let mut x = Exchange::new(chain(&[guest("a"), guest("b"), guest("c")]));
    assert!(is_continue(&x.request()));
    assert_eq!(traces(&x.head.fields), ["a", "b", "c"]);
    assert!(is_continue(&x.response()));
    assert_eq!(traces(&x.response.fields), ["c", "b", "a"]);
    assert!(x.state.filter_time > Duration::ZERO);
}

#[test]
fn every_edit_of_a_request_is_applied() {
    let block = ops(
        Kind::Next,
        &[
            (1, b"Accept", b"text/html"),
            (2, b"X-New", b"1"),
            (3, b"x-new", b"2"),
            (3, b"x-other", b"3"),
            (4, b"X-Old", b""),
            (16, b"", b"/new?q"),
            (17, b"", b"other.example:8080"),
            (32, b"", &0u32.to_le_bytes()),
            (33, b"", b"key"),
            (34, b"", b"10.0.0.2:80"),
            (35, b"", &100u32.to_le_bytes()),
            (36, b"", &200u32.to_le_bytes()),
            (37, b"", &3u32.to_le_bytes()),
        ],
    );
    let guest = Guest::answering(Phase::Request, &block).pool("api", "/pool");
    let mut x = Exchange::new(chain(&[guest]));
    assert!(is_continue(&x.request()));
    let line = |n: &str, v: &str| (n.to_owned(), v.to_owned());
    assert_eq!(
        x.lines(),
        [
            line("accept", "text/html"),
            line("x-new", "1"),
            line("x-other", "3")
        ]
    );
    assert_eq!(x.head.target(), b"/new?q");
    assert_eq!(x.head.authority(), b"other.example:8080");
    assert_eq!(
        x.state.route,
        Route {
            // The plan's first pool is the configuration's second.
            pool: Some(1),
            sticky_key: Some(b"key".as_slice().into()),
            endpoint: Some("10.0.0.2:80".into()),
            try_timeout: Some(Duration::from_millis(100)),
            total_timeout: Some(Duration::from_millis(200)),
            retries: Some(3),
        }
    );
}

#[test]
fn a_later_route_wins() {
    let to = |pool: &str| {
        Guest::answering(
            Phase::Request,
            &ops(Kind::Next, &[(32, b"", &0u32.to_le_bytes())]),
        )
        .pool(pool, "")
    };
    let mut x = Exchange::new(chain(&[to("api"), to("web")]));
    x.request();
    assert_eq!(x.state.route.pool, Some(0));
}

#[test]
fn a_reply_passes_the_filters_before_it() {
    let outer =
        Guest::answering(Phase::Request, &[]).and_answers(Phase::Response, &append("outer"));
    let block = ops(
        Kind::Reply,
        &[
            (48, b"", &403u16.to_le_bytes()),
            (1, b"X-Why", b"no"),
            (49, b"", b"denied"),
        ],
    );
    let replier =
        Guest::answering(Phase::Request, &block).and_answers(Phase::Response, &append("self"));
    let inner = Guest::answering(Phase::Request, &append("inner"))
        .and_answers(Phase::Response, &append("inner"));
    let mut x = Exchange::new(chain(&[outer, replier, inner]));
    let Outcome::Reply(reply) = x.request() else {
        panic!("a reply")
    };
    assert_eq!(reply.status, 403);
    assert_eq!(&*reply.body, b"denied");
    assert!(traces(&x.head.fields).is_empty());
    x.response.status = reply.status;
    x.response.fields = reply.fields;
    assert!(is_continue(&x.response()));
    assert_eq!(traces(&x.response.fields), ["outer"]);
    assert_eq!(x.response.fields.get(b"x-why"), Some(&b"no"[..]));
}

#[test]
fn a_reply_in_the_response_phase_replaces_it() {
    let outer = Guest::answering(Phase::Response, &append("outer"));
    let block = ops(
        Kind::Reply,
        &[(48, b"", &502u16.to_le_bytes()), (49, b"", b"sorry")],
    );
    let mut x = Exchange::new(chain(&[outer, Guest::answering(Phase::Response, &block)]));
    assert!(is_continue(&x.request()));
    x.response.fields.append(b"x-secret", b"1");
    let Outcome::Reply(reply) = x.response() else {
        panic!("a reply")
    };
    assert_eq!(reply.status, 502);
    assert_eq!(&*reply.body, b"sorry");
    assert_eq!(traces(&reply.fields), ["outer"]);
    assert!(!reply.fields.contains(b"x-secret"));
}

#[test]
fn a_response_can_be_edited() {
    let block = ops(
        Kind::Next,
        &[(48, b"", &418u16.to_le_bytes()), (1, b"server", b"teapot")],
    );
    let mut x = Exchange::new(chain(&[Guest::answering(Phase::Response, &block)]));
    x.request();
    assert!(is_continue(&x.response()));
    assert_eq!(x.response.status, 418);
    assert_eq!(x.response.fields.get(b"server"), Some(&b"teapot"[..]));
}

#[test]
fn drop_and_reset_end_the_exchange() {
    for (code, expected) in [(2, "Drop"), (3, "Reset")] {
        let after = Guest::answering(Phase::Request, &append("after"));
        let mut x = Exchange::new(chain(&[Guest::answering(Phase::Request, &[code]), after]));
        assert_eq!(format!("{:?}", x.request()), expected);
        assert!(traces(&x.head.fields).is_empty());
    }
}

#[test]
fn an_unmatched_filter_takes_no_part() {
    let guest = Guest::answering(Phase::Request, &append("a"))
        .and_answers(Phase::Response, &append("a"))
        .and_runs(Phase::Log, "unreachable")
        .matching_prefix("/other");
    let filter = load("a", &guest);
    let mut x = Exchange::new(chain_of(std::slice::from_ref(&filter)));
    assert!(is_continue(&x.request()));
    assert!(is_continue(&x.response()));
    x.log();
    assert!(traces(&x.head.fields).is_empty() && traces(&x.response.fields).is_empty());
    assert_eq!(filter.counts(), Counts::default());
    assert_eq!(x.state.filter_time, Duration::ZERO);
}

#[test]
fn predicates_see_what_filters_before_made_of_the_head() {
    let rewrite = Guest::answering(Phase::Request, &ops(Kind::Next, &[(16, b"", b"/b")]));
    let second = Guest::answering(Phase::Request, &append("b")).matching_prefix("/b");
    let mut x = Exchange::new(chain(&[rewrite, second]));
    x.request();
    assert_eq!(traces(&x.head.fields), ["b"]);
}

#[test]
fn state_lives_from_phase_to_phase() {
    // Stores 41 plus what it stored before; in the response phase answers with the status that makes.
    let store = "(i32.store (i32.const 512) (i32.const 0x00004000))
                 (i64.store (i32.const 517) (i64.const 8))
                 (i32.store8 (i32.const 512) (i32.const 0))
                 (i32.store8 (i32.const 513) (i32.const 64))
                 (i32.store8 (i32.const 514) (i32.const 0))
                 (i32.store16 (i32.const 515) (i32.const 0))
                 (i32.store (i32.const 517) (i32.const 8))
                 (i64.store (i32.const 521) (i64.add (i64.const 41) (i64.load (i32.add (local.get $head) (i32.const 16)))))
                 (i32.store (i32.const 600) (i32.const 512)) (i32.store (i32.const 604) (i32.const 17))
                 i32.const 600";
    let answer = "(i32.store8 (i32.const 512) (i32.const 0))
                  (i32.store8 (i32.const 513) (i32.const 48))
                  (i32.store8 (i32.const 514) (i32.const 0))
                  (i32.store16 (i32.const 515) (i32.const 0))
                  (i32.store (i32.const 517) (i32.const 2))
                  (i32.store16 (i32.const 521) (i32.add (i32.const 400) (i32.load (i32.add (local.get $head) (i32.const 16)))))
                  (i32.store (i32.const 600) (i32.const 512)) (i32.store (i32.const 604) (i32.const 11))
                  i32.const 600";
    let guest = Guest::running(Phase::Request, store).and_runs(Phase::Response, answer);
    let mut x = Exchange::new(chain(&[guest]));
    assert!(is_continue(&x.request()));
    assert!(is_continue(&x.response()));
    assert_eq!(x.response.status, 441);
    // The next exchange begins at 0.
    assert!(is_continue(&x.request()));
    x.response();
    assert_eq!(x.response.status, 441);
}

fn fault_of(outcome: &Outcome) -> (&str, FaultKind) {
    match outcome {
        Outcome::Fault { filter, kind } => (filter, *kind),
        other => panic!("{other:?}"),
    }
}

#[test]
fn faults_end_the_exchange_and_the_next_finds_a_new_instance() {
    // Traps on /x, which the first call is for, else goes on.
    let cases = [
        (
            Guest::running(Phase::Request, "unreachable"),
            FaultKind::Trap,
        ),
        (
            Guest::running(Phase::Request, "(loop $l br $l) i32.const 0"),
            FaultKind::Deadline,
        ),
        (
            Guest::answering(Phase::Request, b"\x07"),
            FaultKind::Verdict,
        ),
        (
            Guest::answering(Phase::Request, &ops(Kind::Next, &[(1, b"host", b"x")])),
            FaultKind::Verdict,
        ),
        (
            Guest::answering(
                Phase::Request,
                &ops(Kind::Next, &[(32, b"", &0u32.to_le_bytes())]),
            ),
            FaultKind::Verdict,
        ),
    ];
    for (guest, expected) in cases {
        let filter = load("bad", &guest);
        let mut x = Exchange::new(chain_of(std::slice::from_ref(&filter)));
        for _ in 0..3 {
            assert_eq!(fault_of(&x.request()), ("bad", expected));
        }
        assert_eq!(filter.counts().faults(expected), 3);
        assert_eq!(filter.counts().calls, 3);
        assert_eq!(x.lines().len(), 2, "nothing of a bad verdict is used");
    }
}

#[test]
fn bypass_goes_on_as_if_nothing_was_said() {
    let mut bypassing = config("bad");
    bypassing.on_error = OnError::Bypass;
    let bad = load_as(
        &Guest::running(Phase::Request, "unreachable").and_runs(Phase::Response, "unreachable"),
        bypassing,
    )
    .unwrap();
    let good = load("good", &Guest::answering(Phase::Request, &append("good")));
    let mut x = Exchange::new(chain_of(&[bad.clone(), good]));
    assert!(is_continue(&x.request()));
    assert!(is_continue(&x.response()));
    assert_eq!(traces(&x.head.fields), ["good"]);
    assert_eq!(bad.counts().faults(FaultKind::Trap), 2);
}

#[test]
fn a_memory_of_the_guest_survives_calls_but_not_faults() {
    // Counts its calls in memory and traps at the third: each instance lasts for two.
    let body = "(i32.store (i32.const 512) (i32.add (i32.const 1) (i32.load (i32.const 512))))
                (if (i32.eq (i32.load (i32.const 512)) (i32.const 3)) (then unreachable))
                i32.const 600";
    let filter = load("f", &Guest::running(Phase::Request, body));
    let mut x = Exchange::new(chain_of(std::slice::from_ref(&filter)));
    let outcomes: Vec<bool> = (0..9).map(|_| is_continue(&x.request())).collect();
    assert_eq!(
        outcomes,
        [true, true, false, true, true, false, true, true, false]
    );
}

#[test]
fn the_stock_is_asked_for_once_and_refilled() {
    let asked = Arc::new(AtomicUsize::new(0));
    let host = Host::new(HostOptions::default()).unwrap();
    let module = Module::load(
        &host,
        "test",
        &Guest::running(Phase::Request, "unreachable").build(),
    )
    .unwrap();
    let refill: Refill = {
        let asked = asked.clone();
        Arc::new(move |_| {
            asked.fetch_add(1, Ordering::SeqCst);
        })
    };
    let filter = Filter::load(module, Arc::new(config("f")), 1, refill).unwrap();
    let mut x = Exchange::new(chain_of(std::slice::from_ref(&filter)));
    assert_eq!(asked.load(Ordering::SeqCst), 0);
    for _ in 0..5 {
        x.request();
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    filter.restock();
    x.request();
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[test]
fn the_end_is_logged_to_who_took_part() {
    let count = "(i32.store (i32.const 512) (i32.add (i32.const 1) (i32.load (i32.const 512))))";
    let guest = Guest::answering(Phase::Request, &[2]).and_runs(Phase::Log, count);
    let after = Guest::answering(Phase::Request, &[]).and_runs(Phase::Log, "unreachable");
    let filters = [load("a", &guest), load("b", &after)];
    let mut x = Exchange::new(chain_of(&filters));
    x.request();
    x.log();
    assert_eq!(filters[0].counts().calls, 2);
    assert_eq!(filters[1].counts().calls, 0);
    assert_eq!(filters[0].counts().verdicts(VerdictKind::Drop), 1);
}

fn problem(result: Result<Arc<Filter>, Vec<Problem>>) -> (String, String, Option<String>) {
    let mut problems = result.expect_err("a problem");
    assert_eq!(problems.len(), 1, "{problems:?}");
    let problem = problems.remove(0);
    (problem.at.0, problem.message, problem.help)
}

#[test]
fn refused_settings_are_pointed_at() {
    let guest =
        Guest::answering(Phase::Request, &[]).refusing("/deny/0", "too short", "write more");
    assert_eq!(
        problem(load_as(&guest, config("ua"))),
        (
            "/filters/ua/settings/deny/0".into(),
            "too short".into(),
            Some("write more".into())
        )
    );
}

#[test]
fn a_configure_that_fails_fails_the_load() {
    let guest = Guest::answering(Phase::Request, &[]).configure("unreachable");
    let (at, message, _) = problem(load_as(&guest, config("f")));
    assert_eq!(at, "/filters/f");
    assert!(message.contains("unreachable"), "{message}");

    let mut hasty = config("f");
    hasty.limits.configure_deadline = Duration::from_millis(10);
    let guest = Guest::answering(Phase::Request, &[]).configure("(loop $l br $l) i32.const 0");
    let (_, _, help) = problem(load_as(&guest, hasty));
    assert!(help.unwrap().contains("configure-deadline"));
}

#[test]
fn a_plan_that_is_none_fails_the_load() {
    let guest = Guest::answering(Phase::Request, &[]).matching_raw(10, 2);
    let (at, message, _) = problem(load_as(&guest, config("f")));
    assert_eq!(at, "/filters/f/settings");
    assert!(
        message.contains("match: node 0 takes 2 values"),
        "{message}"
    );
    let guest = Guest::answering(Phase::FirstBytes, &[]).first_bytes(20_000);
    let (_, message, _) = problem(load_as(&guest, config("f")));
    assert!(message.contains("first-bytes"), "{message}");
}

#[test]
fn a_missing_grant_is_said() {
    let guest = Guest::answering(Phase::Request, &[])
        .import("(import \"sluicegate:filter/log@0.1.0\" \"log\" (func (param i32 i32 i32)))");
    let (at, message, help) = problem(load_as(&guest, config("f")));
    assert_eq!(at, "/filters/f/capabilities");
    assert!(message.contains("the capability \"log\""), "{message}");
    let help = help.unwrap();
    assert!(help.contains("`capabilities: [log]`"), "{help}");
}

#[test]
fn unknown_pools_are_pointed_at() {
    let filter = load(
        "router",
        &Guest::answering(Phase::Request, &[])
            .pool("web", "/default")
            .pool("apo", "/routes/1/pool")
            .pool("zzzzzz", "routes/2/pool"),
    );
    let problems = filter
        .pool_table(filter.config(), &pools())
        .expect_err("unknown");
    assert_eq!(problems.len(), 2);
    assert_eq!(problems[0].at.0, "/filters/router/settings/routes/1/pool");
    assert_eq!(problems[0].message, "pool \"apo\" is not defined");
    assert_eq!(problems[0].help.as_deref(), Some("did you mean \"api\"?"));
    assert_eq!(problems[1].at.0, "/filters/router/settings/routes/2/pool");
    assert_eq!(problems[1].help, None);
}

#[test]
fn sameness_is_what_reload_needs() {
    let guest = Guest::answering(Phase::Request, &[]);
    let filter = load("f", &guest);
    let digest = *filter.module().digest();
    let mut other = config("f");
    other.at = ConfigPath("/elsewhere".into());
    assert!(filter.is_same(&other, &digest));
    assert!(!filter.is_same(&other, &[0; 32]));
    other.settings = serde_json::json!({"a": 1});
    assert!(!filter.is_same(&other, &digest));
}

#[test]
fn slots_are_kept_as_long_as_they_are_used() {
    let filter = load("f", &Guest::answering(Phase::Request, &[]));
    let slots = Slots::new(0);
    let first = slots.slot(&filter);
    assert!(Rc::ptr_eq(&first, &slots.slot(&filter)));
    let weak = Rc::downgrade(&first);
    drop(first);
    assert!(weak.upgrade().is_none());
    slots.slot(&filter);
}

fn stream_facts(connection: &Connection) -> StreamFacts<'_> {
    StreamFacts {
        connection,
        client: connection.peer.ip(),
        client_text: &connection.peer_text,
        client_port: connection.peer.port(),
        sni: Some("example.com"),
        offered_alpn: None,
    }
}

#[test]
fn streams_are_routed_dropped_and_reset() {
    let connection = connection();
    let facts = stream_facts(&connection);
    let route = ops(
        Kind::Next,
        &[(32, b"", &0u32.to_le_bytes()), (33, b"", b"k")],
    );
    let guest = Guest::answering(Phase::Connect, &route)
        .and_answers(Phase::ClientHello, &[3])
        .and_answers(Phase::FirstBytes, &[2])
        .pool("web", "")
        .first_bytes(4);
    let chain = chain(&[guest]);
    assert!(chain.wants(Phase::ClientHello) && !chain.wants(Phase::Request));
    assert_eq!(chain.first_bytes(), 4);
    let mut state = ExchangeState::default();
    assert_eq!(chain.connect(&mut state, &facts), StreamOutcome::Continue);
    assert_eq!(state.route.pool, Some(0));
    assert_eq!(state.route.sticky_key.as_deref(), Some(&b"k"[..]));
    assert_eq!(chain.client_hello(&mut state, &facts), StreamOutcome::Reset);
    assert_eq!(
        chain.first_bytes_seen(&mut state, &facts, b"SSH-2.0"),
        StreamOutcome::Drop
    );
}

#[test]
fn a_stream_filter_cannot_reply() {
    let connection = connection();
    let chain = chain(&[Guest::answering(Phase::Connect, &[1])]);
    assert_eq!(
        chain.connect(&mut ExchangeState::default(), &stream_facts(&connection)),
        StreamOutcome::Fault {
            filter: "f0".into(),
            kind: FaultKind::Verdict
        }
    );
}

#[test]
fn an_empty_chain_does_nothing() {
    let mut x = Exchange::new(Chain::default());
    assert!(is_continue(&x.request()));
    assert!(is_continue(&x.response()));
    x.log();
    assert!(x.chain.is_empty());
}

/// The standard filters, as the proxy carries them.
fn builtin(name: &str, settings: serde_json::Value) -> Result<Arc<Filter>, Vec<Problem>> {
    let host = Host::new(HostOptions::default()).unwrap();
    let module = Module::load(&host, name, crate::builtin::builtin(name).unwrap()).unwrap();
    assert!(module.schema().unwrap().is_some_and(|s| s.starts_with('{')));
    let mut config = config(name);
    config.limits.memory = 16 * 1024 * 1024;
    config.settings = settings;
    Filter::load(module, Arc::new(config), 1, Arc::new(|_| {}))
}

#[test]
fn the_builtin_filters_do_their_work() {
    let block = builtin("ua-block", serde_json::json!({"deny": ["badcurl*"]})).unwrap();
    let mut x = Exchange::new(chain_of(std::slice::from_ref(&block)));
    x.head.fields.append(b"user-agent", b"curl/8");
    assert!(is_continue(&x.request()));
    x.head.fields.set(b"user-agent", b"badcurl/1.0");
    assert!(matches!(x.request(), Outcome::Drop));

    let settings = serde_json::json!({
        "rules": [{"match": {"path-prefix": "/api"}, "pool": "api"}],
        "default": {"pool": "web"}
    });
    let router = builtin("router", settings).unwrap();
    let mut x = Exchange::new(chain_of(std::slice::from_ref(&router)));
    assert!(is_continue(&x.request()));
    assert_eq!(x.state.route.pool, Some(0));
    x.head = request("/api/v1");
    assert!(is_continue(&x.request()));
    assert_eq!(x.state.route.pool, Some(1));

    let settings = serde_json::json!({
        "request": [{"append": "x-forwarded-by", "value": "${server.address}:${server.port}"}],
        "response": [{"set": "x-served", "value": "yes"}]
    });
    let headers = builtin("headers", settings).unwrap();
    let sticky = builtin("sticky", serde_json::json!({"by": "source"})).unwrap();
    let mut x = Exchange::new(chain_of(&[headers, sticky]));
    assert!(is_continue(&x.request()));
    assert_eq!(
        x.head.fields.get(b"x-forwarded-by"),
        Some(&b"10.0.0.1:80"[..])
    );
    assert!(x.state.route.sticky_key.is_some());
    assert!(is_continue(&x.response()));
    assert_eq!(x.response.fields.get(b"x-served"), Some(&b"yes"[..]));
}

#[test]
fn mistakes_in_builtin_settings_are_pointed_at() {
    let settings = serde_json::json!({"deny": ["a"], "acton": "drop"});
    let problems = builtin("ua-block", settings).unwrap_err();
    assert!(
        problems[0].at.0.starts_with("/filters/ua-block/settings"),
        "{problems:?}"
    );
    let settings = serde_json::json!({"rules": [{"match": {"path": "/"}, "pool": "wbe"}]});
    let router = builtin("router", settings).unwrap();
    let problems = router.pool_table(router.config(), &pools()).unwrap_err();
    assert_eq!(problems[0].at.0, "/filters/router/settings/rules/0/pool");
    assert_eq!(problems[0].help.as_deref(), Some("did you mean \"web\"?"));
}

#[test]
fn filters_are_shared_by_threads() {
    let filter = load("f", &Guest::answering(Phase::Request, &append("x")));
    let failed = Arc::new(Mutex::new(0));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut x = Exchange::new(chain_of(std::slice::from_ref(&filter)));
                for _ in 0..100 {
                    if !is_continue(&x.request()) {
                        *failed.lock().unwrap() += 1;
                    }
                }
            });
        }
    });
    assert_eq!(*failed.lock().unwrap(), 0);
}
