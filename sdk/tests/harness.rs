//! A filter that takes part in everything, run through the harness.

use sluicegate_sdk::log::Level;
use sluicegate_sdk::testing::{
    self, Harness, TestEnd, TestRequest, TestResponse, TestStream, json,
};
use sluicegate_sdk::{
    Diagnostic, Diagnostics, Filter, Interest, Match, NotRestored, Phase, Phases, Pool, Record,
    Reply, Request, RequestVerdict, Response, ResponseVerdict, Saved, Setup, Stream, StreamData,
    StreamDataVerdict, StreamVerdict, TickVerdict, clock, log, metrics, random,
};

#[sluicegate_sdk::settings]
struct Settings {
    pool: String,
    #[serde(default)]
    refuse: bool,
}

struct Everything {
    pool: Pool,
    seen: u64,
}

#[sluicegate_sdk::filter]
impl Filter for Everything {
    type Settings = Settings;

    fn configure(settings: Settings, setup: &mut Setup) -> Result<Self, Diagnostics> {
        if settings.refuse {
            setup.problem(Diagnostic::new("/refuse", "one"));
            Err(Diagnostic::new("/pool", "two").help("three"))?;
        }
        setup.only_when(!Match::path_prefix("/static"));
        setup.request_fields(Interest::some(["X-Shown"]));
        setup.first_bytes(4);
        Ok(Self {
            pool: setup.pool(&settings.pool, "/pool"),
            seen: 0,
        })
    }

    fn request(&mut self, request: &Request<'_>) -> RequestVerdict {
        self.seen += 1;
        if request.path() == "/no" {
            return Reply::new(403).field("X-Why", "no").body("no\n").into();
        }
        assert!(request.field("x-hidden").is_none());
        RequestVerdict::next()
            .set("X-Seen", self.seen.to_string())
            .append_with("x-seen", |value| {
                value.push_number(request.client_port().into());
                value.push("!");
            })
            .remove("x-hidden")
            .pool(self.pool)
            .sticky_key("")
            .state(self.seen)
    }

    fn response(&mut self, response: &Response<'_>) -> ResponseVerdict {
        match response.state() {
            1 => ResponseVerdict::next().status(201),
            _ => ResponseVerdict::reset(),
        }
    }

    fn log(&mut self, record: &Record<'_>) {
        log::info(format_args!(
            "{} in {} µs",
            record.status(),
            record.duration_us()
        ));
    }

    fn connect(&mut self, stream: &Stream<'_>) -> StreamVerdict {
        assert_eq!(stream.server_name(), None);
        StreamVerdict::next().state(5)
    }

    fn client_hello(&mut self, stream: &Stream<'_>) -> StreamVerdict {
        assert_eq!(stream.state(), 5);
        assert_eq!(stream.protocols_offered().count(), 2);
        match stream.server_name() {
            Some("a.example") => StreamVerdict::next().pool(self.pool),
            _ => StreamVerdict::drop(),
        }
    }

    fn first_bytes(&mut self, stream: &Stream<'_>) -> StreamVerdict {
        match stream.first_bytes() {
            b"SSH-" => StreamVerdict::next().endpoint("10.0.0.1:22"),
            _ => StreamVerdict::reset(),
        }
    }
}

fn everything() -> Harness<Everything> {
    Harness::new(json!({"pool": "web"})).unwrap()
}

#[test]
fn an_exchange_carries_its_state_through_its_phases() {
    let mut harness = everything();
    let request = TestRequest::get("/a").field("X-Hidden", "1");
    let mut exchange = harness.exchange(request.clone());
    let answer = exchange.request();
    assert_eq!(answer.fields("x-seen"), ["1", "50000!"]);
    assert_eq!(answer.field("x-hidden"), None);
    assert_eq!(answer.pool(), Some("web"));
    assert_eq!(answer.sticky_key(), None);
    assert_eq!(
        exchange.response(&TestResponse::new(200)).status(),
        Some(201)
    );
    exchange.log(&TestEnd {
        status: 201,
        duration_us: 7,
        ..TestEnd::default()
    });
    assert_eq!(testing::lines(), [(Level::Info, "201 in 7 µs".to_owned())]);

    // The filter lives on, the next exchange has a state of its own.
    let mut exchange = harness.exchange(request);
    assert_eq!(exchange.request().field("x-seen"), Some("2"));
    assert!(exchange.response(&TestResponse::new(200)).is_reset());
}

#[test]
fn a_reply_shows_its_own_fields() {
    let answer = everything().request(TestRequest::post("/no").field("x-a", "1"));
    assert!(answer.is_reply());
    assert_eq!(answer.status(), Some(403));
    assert_eq!(answer.field("x-why"), Some("no"));
    assert_eq!(answer.field("x-a"), None);
    assert_eq!(answer.body(), b"no\n");
}

#[test]
fn an_exchange_that_does_not_match_is_not_shown() {
    let mut harness = everything();
    let mut exchange = harness.exchange(TestRequest::get("/static/x"));
    assert!(!exchange.request().was_called());
    assert!(!exchange.response(&TestResponse::new(200)).was_called());
    exchange.log(&TestEnd::default());
    assert!(testing::lines().is_empty());
}

#[test]
fn a_session_goes_through_the_stream_phases() {
    let mut harness = everything();
    let stream = TestStream::new()
        .server_name("a.example")
        .offers(&["h2", "http/1.1"])
        .bytes("SSH-2.0");
    let mut session = harness.session(stream);
    assert!(session.connect().is_untouched());
    assert_eq!(session.client_hello().pool(), Some("web"));
    assert_eq!(session.first_bytes().endpoint(), Some("10.0.0.1:22"));
}

#[test]
fn all_mistakes_are_reported() {
    let problems = Harness::<Everything>::new(json!({"pool": "a", "refuse": true})).unwrap_err();
    let found: Vec<_> = problems
        .iter()
        .map(|p| (p.path.as_str(), p.message.as_str(), p.help.as_deref()))
        .collect();
    assert_eq!(
        found,
        [("/refuse", "one", None), ("/pool", "two", Some("three"))]
    );
}

#[test]
#[should_panic(expected = "the host would refuse this verdict: `host` is the host's")]
fn a_verdict_that_the_host_refuses_fails_the_test() {
    struct Bad;

    impl Filter for Bad {
        type Settings = ();

        fn configure(_: (), _: &mut Setup) -> Result<Self, Diagnostics> {
            Ok(Self)
        }

        fn request(&mut self, _: &Request<'_>) -> RequestVerdict {
            RequestVerdict::next().set("Host", "a")
        }
    }

    impl sluicegate_sdk::Exports for Bad {
        const PHASES: Phases = Phases::NONE.with(Phase::Request);
    }

    let _ = Harness::<Bad>::new(json!(null))
        .unwrap()
        .request(TestRequest::get("/"));
}

/// Counts in a metric, changes streams, ticks, and hands its count over.
struct Busy {
    count: u64,
    hits: metrics::Counter,
}

#[sluicegate_sdk::filter]
impl Filter for Busy {
    type Settings = ();

    fn configure(_: (), setup: &mut Setup) -> Result<Self, Diagnostics> {
        setup.every(std::time::Duration::from_millis(1));
        let hits = metrics::counter("hits", "Pieces by direction", &["way"]);
        Ok(Self { count: 0, hits })
    }

    fn client_data(&mut self, data: &StreamData<'_>) -> StreamDataVerdict {
        self.hits.increment(&["up"]);
        match data.bytes() {
            b"secret" => StreamDataVerdict::drop(),
            bytes => StreamDataVerdict::next().replace(bytes.to_ascii_uppercase()),
        }
    }

    fn tick(&mut self) -> TickVerdict {
        self.count += clock::now().as_secs() + random::number() % 2;
        TickVerdict::next()
    }

    fn save(&self) -> Option<Saved> {
        Saved::json(1, &self.count)
    }

    fn restore(&mut self, version: u32, state: &[u8]) -> Result<(), NotRestored> {
        if version != 1 {
            return Err(NotRestored::new("another version"));
        }
        self.count = Saved::read_json(state)?;
        Ok(())
    }
}

#[test]
fn streams_ticks_metrics_and_handover() {
    let mut old = Harness::<Busy>::new(json!(null)).unwrap();
    assert_eq!(old.plan().tick_ms, 100);
    let mut session = old.session(TestStream::new());
    assert_eq!(session.client_data(b"abc", false), Some(b"ABC".to_vec()));
    assert_eq!(session.server_data(b"abc", true), Some(b"abc".to_vec()));
    assert_eq!(session.client_data(b"secret", false), None);
    assert_eq!(testing::metric("hits", &["up"]), 2.0);
    testing::set_clock(std::time::Duration::from_secs(10));
    testing::seed(1);
    old.tick();
    let saved = old.save().unwrap();
    let mut new = Harness::<Busy>::new(json!(null)).unwrap();
    assert_eq!(new.restore(&saved), Ok(()));
    assert_eq!(new.save(), Some(saved));
    let other = Saved::new(2, []);
    assert_eq!(
        new.restore(&other),
        Err(NotRestored::new("another version"))
    );
}
