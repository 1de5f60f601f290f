//! What the fuzzers under `fuzz/` run: each function takes any bytes, and panics when something is wrong. A test runs
//! them on every file of the corpora, with any toolchain.

use std::path::Path;
use std::pin::pin;
use std::sync::OnceLock;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use headers::Headers;
use router::Router;
use sluicegate::config::{
    self, Capabilities, ConfigPath, Environment, FilterLimits, Input, render,
};
use sluicegate::head::target::{is_authority, is_origin_form};
use sluicegate::head::{Fields, HeadLimits};
use sluicegate::protocol::http::forward;
use sluicegate::protocol::http::h1::chunked::{Decoder, Step, TrailerLimits};
use sluicegate::protocol::http::h1::framing::Framing;
use sluicegate::protocol::http::h1::parse::{self, HeadEnd};
use sluicegate::protocol::http::h1::write::{self, BodyFraming};
use sluicegate::tls;
use sluicegate::wasm::{
    BodyMode, Effect, Effects, Facts, Host, HostOptions, InstanceOptions, Module, Op, Phase, Rules,
    Shown, Verdict,
};
use sluicegate_sdk::testing::{Harness, TestRequest, TestResponse, TestStream};
use sluicegate_sdk::{Exports, Filter, Head, Phase as Wanted, Record, Request, Response, Stream};
use sticky::Sticky;
use ua_block::UaBlock;

/// What takes any bytes.
pub type Target = fn(&[u8]);

/// Name, which is that of its corpus, and function.
pub const TARGETS: [(&str, Target); 11] = [
    ("chunked", chunked),
    ("client_hello", client_hello),
    ("config", configuration),
    ("h1_request", h1_request),
    ("h1_response", h1_response),
    ("headers", header_rules),
    ("module", module),
    ("packed_head", packed_head),
    ("schema", schema),
    ("settings", settings),
    ("verdict", verdict),
];

const LIMITS: HeadLimits = HeadLimits {
    bytes: 64 * 1024,
    fields: 128,
    target: 16 * 1024,
};

/// What is written has lines of ours besides those that were read.
const WRITTEN: HeadLimits = HeadLimits {
    bytes: 1 << 20,
    fields: 512,
    target: 1 << 20,
};

/// Any text is a configuration or is told to be none.
pub fn configuration(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let sources = match load(text) {
        Ok(loaded) => {
            // What is in effect is a configuration as well.
            let again = load(loaded.show());
            assert!(again.is_ok(), "{:?}", again.err().map(|e| e.diagnostics));
            return;
        }
        Err(rejected) => {
            assert!(!rejected.diagnostics.is_empty());
            rejected
        }
    };
    render::text(
        &sources.sources,
        &sources.diagnostics,
        render::Colour::Always,
    );
    render::json(&sources.sources, &sources.diagnostics);
    render::github(&sources.sources, &sources.diagnostics);
}

/// Settings, after an empty line, held against a schema before it.
pub fn schema(data: &[u8]) {
    let Some((schema, settings)) = std::str::from_utf8(data)
        .ok()
        .and_then(|text| text.split_once("\n\n"))
    else {
        return;
    };
    let Ok(schema) = serde_json::from_str(schema) else {
        return;
    };
    let mut text = String::from("filters:\n  f:\n    module: builtin:headers\n    settings:\n");
    for line in settings.lines() {
        text.push_str("      ");
        text.push_str(line);
        text.push('\n');
    }
    let sources = match load(&text) {
        Ok(loaded) => loaded.sources,
        Err(rejected) => rejected.sources,
    };
    let settings = ConfigPath("/filters/f/settings".into());
    let found = sources.validate(&settings, &schema);
    render::text(&sources, &found, render::Colour::Never);
}

fn load(text: &str) -> Result<config::Loaded, Box<config::Rejected>> {
    let environment = Environment {
        vars: &|name| (name == "HOME").then(|| "/nowhere".to_owned()),
        builtins: vec!["headers".into(), "router".into()],
        cwd: Path::new("/nowhere").into(),
        processors: 2,
    };
    let (name, text) = ("fuzz.yaml".to_owned(), text.to_owned());
    config::load(&[Input::Text { name, text }], &environment)
}

/// Ways in which bodies come, for answers about them.
const MODES: [BodyMode; 3] = [BodyMode::First(9), BodyMode::Transform, BodyMode::Watch];

/// An answer of a guest: the first byte chooses phase and number of pools. What is taken keeps the contract.
pub fn verdict(data: &[u8]) {
    let Some((&choice, block)) = data.split_first() else {
        return;
    };
    let phase = Phase::ALL[usize::from(choice) % Phase::ALL.len()];
    let pools = usize::from(choice / 8);
    let rules = Rules {
        called: vec![true; pools].into(),
        effects: Effects::all(),
        body: MODES[usize::from(choice) % MODES.len()],
        ..Rules::new(phase, pools)
    };
    let Ok(verdict) = Verdict::read(block.to_vec(), &rules) else {
        return;
    };
    let mut fields = Fields::default();
    for op in verdict.ops() {
        match op {
            Op::Set(name, value) | Op::Append(name, value) | Op::Add(name, value) => {
                assert!(!name.is_empty() && !value.iter().any(|b| b"\r\n\0".contains(b)));
                fields.set(name, value);
                assert_eq!(fields.get(name), Some(value));
            }
            Op::Remove(name) => {
                fields.remove(name);
                assert!(!fields.contains(name));
            }
            Op::Target(target) => assert!(is_origin_form(target)),
            Op::Authority(authority) => assert!(is_authority(authority)),
            Op::Pool(pool) => assert!(pool < pools),
            Op::Status(status) => assert!((200..=999).contains(&status)),
            Op::Effect(Effect::Call(call)) => {
                assert!(call.pool < pools && is_origin_form(call.target));
                call.fields()
                    .for_each(|(name, value)| fields.set(name, value));
            }
            _ => {}
        }
    }
}

/// The head that a guest is shown: whatever the block, reading it ends and stays inside.
pub fn packed_head(data: &[u8]) {
    fn read(head: &Head<'_>) {
        let texts = [head.method(), head.authority(), head.host(), head.path()];
        assert!(
            texts
                .iter()
                .all(|text| text.as_bytes().len() <= u32::MAX as usize)
        );
        let names = [
            head.scheme(),
            head.client_address(),
            head.peer_address(),
            head.local_address(),
            head.listener(),
            head.request_id(),
            head.protocol(),
        ];
        assert!(names.iter().all(|name| name.len() <= u32::MAX as usize));
        let _ = (head.query(), head.state(), head.is_http2());
        let _ = (head.client_port(), head.peer_port(), head.local_port());
        if let Some(tls) = head.tls() {
            let _ = (tls.sni(), tls.alpn(), tls.version(), tls.client_subject());
        }
        for (count, (name, _)) in head.fields().enumerate() {
            if let Some(name) = name.to_str().filter(|_| count < 16) {
                assert!(head.field(name).is_some());
                head.fields_named(name).for_each(drop);
            }
        }
    }
    let request = Request::new(data);
    read(&request);
    let _ = request.has_body();
    let response = Response::new(data);
    read(&response);
    let _ = (response.status(), response.endpoint(), response.pool());
    let record = Record::new(data);
    let _ = (record.reason(), record.duration_us(), record.bytes_sent());
    let stream = Stream::new(data);
    stream.protocols_offered().for_each(drop);
    assert!(stream.first_bytes().len() <= data.len());
}

/// The first bytes of a connection: what was read of them is what there was, and the parser waits for no more.
pub fn client_hello(data: &[u8]) {
    let _ = tls::FirstBytes::of(data);
    let (mut stream, mut read) = (data, Vec::new());
    let hello = {
        let hello = pin!(tls::client_hello(&mut stream, &mut read));
        hello.poll_now()
    };
    assert!(data.starts_with(&read));
    if let Ok(Some(hello)) = hello {
        let name = hello.sni.unwrap_or_default();
        assert_eq!(name, name.to_ascii_lowercase());
    }
}

trait PollNow: Future + Sized {
    /// What comes of a future that has all it needs.
    fn poll_now(self: std::pin::Pin<&mut Self>) -> Self::Output {
        match self.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => output,
            Poll::Pending => panic!("it waits"),
        }
    }
}

impl<F: Future> PollNow for F {}

/// A request head; as it is written for the upstream, it reads as the same request.
pub fn h1_request(data: &[u8]) {
    let Some(head) = head(data) else {
        return;
    };
    let Ok(mut request) = parse::request(head.to_vec(), &LIMITS) else {
        return;
    };
    let hop = forward::strip_hop_by_hop(&mut request.head.fields);
    request.head.fields.remove(b"content-length");
    let authority = request.head.authority();
    let host = if authority.is_empty() {
        b"host"
    } else {
        authority
    };
    let framing = match request.framing {
        Framing::None | Framing::Empty | Framing::UntilClose => BodyFraming::None,
        Framing::Length(length) => BodyFraming::Length(length),
        Framing::Chunked => BodyFraming::Chunked,
    };
    let upgrade = (!hop.upgrade.is_empty()).then(|| hop.upgrade.join(&b", "[..]));
    let mut out = Vec::new();
    write::request(
        &mut out,
        &request.head,
        host,
        framing,
        upgrade.as_deref(),
        hop.trailers,
    );
    assert_eq!(HeadEnd::default().find(&out), Some(out.len()));
    let again = parse::request(out.clone(), &WRITTEN)
        .unwrap_or_else(|why| panic!("{why:?}: {}", out.escape_ascii()));
    assert_eq!(again.head.method(), request.head.method());
    assert_eq!(again.head.target(), request.head.target());
    assert_eq!(again.head.authority(), host);
    assert_eq!(again.framing, request.framing);
    let kept = |fields: &Fields| {
        fields
            .iter()
            .filter(|(name, _)| {
                ![
                    &b"connection"[..],
                    b"te",
                    b"upgrade",
                    b"content-length",
                    b"transfer-encoding",
                ]
                .contains(name)
            })
            .map(|(name, value)| (name.to_vec(), value.to_vec()))
            .collect::<Vec<_>>()
    };
    assert_eq!(kept(&again.head.fields), kept(&request.head.fields));
}

/// A response head; the first byte says whether the request was HEAD.
pub fn h1_response(data: &[u8]) {
    let Some((choice, data)) = data.split_first() else {
        return;
    };
    let Some(head) = head(data) else {
        return;
    };
    let Ok(mut response) = parse::response(head.to_vec(), &LIMITS, choice & 1 == 1) else {
        return;
    };
    forward::strip_hop_by_hop(&mut response.head.fields);
    response.head.fields.remove(b"content-length");
    let mut out = Vec::new();
    let status = response.head.status;
    let persistence = write::Persistence::Implied;
    write::response(
        &mut out,
        status,
        &response.head.fields,
        BodyFraming::Length(0),
        persistence,
    );
    assert_eq!(HeadEnd::default().find(&out), Some(out.len()));
    let again = parse::response(out.clone(), &WRITTEN, true)
        .unwrap_or_else(|why| panic!("{why:?}: {}", out.escape_ascii()));
    assert_eq!(again.head.status, status);
}

/// The head at the front, when it is whole; found alike in one go and byte by byte.
fn head(data: &[u8]) -> Option<&[u8]> {
    let whole = HeadEnd::default().find(data);
    let mut dribble = HeadEnd::default();
    let found = (0..=data.len()).find_map(|end| dribble.find(&data[..end]));
    assert_eq!(whole, found);
    data.get(..whole?)
}

/// A chunked body, in pieces of the size that the first byte says: they give what one piece gives.
pub fn chunked(data: &[u8]) {
    let Some((&piece, data)) = data.split_first() else {
        return;
    };
    let whole = decoded(data, data.len());
    let pieces = decoded(data, usize::from(piece).max(1));
    assert_eq!(whole, pieces);
}

type Lines = Vec<(Vec<u8>, Vec<u8>)>;

/// Body, whether it ended, and its trailers; none when it is malformed.
fn decoded(data: &[u8], piece: usize) -> Option<(Vec<u8>, bool, Lines)> {
    let mut decoder = Decoder::new(TrailerLimits {
        bytes: 4096,
        fields: 32,
    });
    let mut body = Vec::new();
    for mut input in data.chunks(piece.max(1)) {
        while !input.is_empty() {
            match decoder.decode(input).ok()? {
                Step::Data { range, consumed } => {
                    assert!(consumed > 0 && range.end <= consumed);
                    body.extend_from_slice(&input[range]);
                    input = &input[consumed..];
                }
                Step::More => break,
                Step::End { .. } => {
                    let trailers = decoder.take_trailers();
                    let owned = |(name, value): (&[u8], &[u8])| (name.to_vec(), value.to_vec());
                    return Some((body, true, trailers.iter().map(owned).collect()));
                }
            }
        }
    }
    assert!(body.len() <= data.len());
    Some((body, false, Vec::new()))
}

/// Settings of `builtin:headers`: those that it takes never lead to an answer that the proxy would refuse.
pub fn header_rules(data: &[u8]) {
    let Ok(settings) = serde_json::from_slice(data) else {
        return;
    };
    let Ok(mut filter) = Harness::<Headers>::new(settings) else {
        return;
    };
    let request = TestRequest::get("/path?query")
        .field("x-one", "1")
        .field("x-one", "2")
        .field("cookie", "a=b");
    let mut exchange = filter.exchange(request);
    exchange.request();
    exchange.response(&TestResponse::new(200).field("server", "s"));
}

/// Settings of a standard filter, which the first byte chooses: those that it takes never lead to an answer that the
/// proxy would refuse, and what it has against others points into them.
pub fn settings(data: &[u8]) {
    let Some((choice, settings)) = data.split_first() else {
        return;
    };
    // Any text is a setting: only what JSON is made of is told apart here.
    let Ok(settings) = serde_json::from_slice(settings) else {
        return;
    };
    match choice % 4 {
        0 => settings_of::<Headers>(settings),
        1 => settings_of::<Router>(settings),
        2 => settings_of::<Sticky>(settings),
        _ => settings_of::<UaBlock>(settings),
    }
}

fn settings_of<F: Filter + Exports>(settings: serde_json::Value) {
    let mut filter = match Harness::<F>::new(settings) {
        Ok(filter) => filter,
        Err(found) => {
            assert!(!found.is_empty(), "refused without saying why");
            for diagnostic in found {
                let path = diagnostic.path.to_string();
                assert!(path.is_empty() || path.starts_with('/'), "{path}");
                assert!(!diagnostic.message.is_empty());
            }
            return;
        }
    };
    let requests = [
        TestRequest::get("/"),
        TestRequest::get("/path/to?query=1&q")
            .field("user-agent", "curl/8.0")
            .field("cookie", "a=b; id=1")
            .field("x-one", "1"),
        TestRequest::new("POST", "/%2e%2e//x").field("user-agent", ""),
    ];
    for request in requests {
        let mut exchange = filter.exchange(request);
        exchange.request();
        exchange.response(&TestResponse::new(200).field("set-cookie", "a=b"));
    }
    if filter.plan().phases.contains(Wanted::Connect) {
        filter.session(TestStream::new()).connect();
    }
}

/// Any bytes are a filter or are told to be none; a filter does what it does within its limits.
pub fn module(data: &[u8]) {
    // What takes long to compile is no concern of a fuzzer.
    if data.len() > 64 * 1024 {
        return;
    }
    static HOST: OnceLock<Host> = OnceLock::new();
    let host = HOST.get_or_init(|| Host::new(HostOptions::default()).expect("a host"));
    let module = match Module::load(host, "fuzz", data) {
        Ok(module) => module,
        Err(error) => {
            assert!(error.to_string().len() < 16 * 1024);
            return;
        }
    };
    let deadline = Duration::from_millis(20);
    let options = InstanceOptions {
        filter: "fuzz".into(),
        limits: FilterLimits {
            memory: 1 << 20,
            deadline,
            configure_deadline: deadline,
            state: 1 << 20,
            output: 1 << 16,
            host_calls: 100,
            ..FilterLimits::default()
        },
        capabilities: Capabilities::ALL,
        metrics: Default::default(),
    };
    let Ok(mut instance) = module.instantiate(&options) else {
        return;
    };
    if instance.schema().is_err() || instance.configure("{}", deadline).is_err() {
        return;
    }
    for phase in Phase::ALL {
        match instance.call(phase, &Facts::default(), Shown::NOTHING) {
            Ok(block) => assert!(block.len() <= 1 << 16),
            Err(_) => return,
        }
    }
    assert!(instance.memory() <= 1 << 20);
}
