//! Bodies through stacks of stages: what comes out is what a model of the stages says, however the body is cut.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::queue::PIECE_BYTES_MAX;
use super::*;
use crate::chain::{
    Chain, ExchangeState, Filter, Link, Message, Outcome, RequestFacts, Slot, Suspension,
};
use crate::config::{
    Capabilities, ConfigPath, FilterConfig, FilterLimits, Isolation, ModuleSource, OnError,
    StoreConfig,
};
use crate::connection::Connection;
use crate::head::{RequestHead, Version};
use crate::wasm::wat::Guest;
use crate::wasm::{
    EffectResult, Host, HostOptions, Kind, Module, OverCap, Phase, WholeBody, Writer,
};

/// What one call may answer.
const OUTPUT_BYTES_MAX: usize = 1 << 20;
/// What [`Act::Flood`] makes of every piece.
const FLOOD_BYTES: usize = 256 * 1024;
/// The number of the mode `transform` in a plan.
const TRANSFORM: u32 = 4;

/// What a guest does to what it is shown. Cut anyhow, a body comes to the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Same,
    /// Every byte twice.
    Stretch,
    Swallow,
    /// One byte more at the end.
    End,
    /// So many bytes for every piece: the one whose outcome depends on how the body is cut.
    Flood,
    /// Takes some milliseconds to swallow a piece.
    Toil,
    /// Waits before it says that the piece may pass.
    Wait,
}

impl Act {
    const ALL: [Act; 7] = [
        Act::Same,
        Act::Stretch,
        Act::Swallow,
        Act::End,
        Act::Flood,
        Act::Toil,
        Act::Wait,
    ];

    fn model(self, shown: &[u8], last: bool) -> Vec<u8> {
        match self {
            Act::Same | Act::Wait => shown.to_vec(),
            Act::Stretch => shown.iter().flat_map(|&b| [b, b]).collect(),
            Act::Swallow | Act::Toil => Vec::new(),
            Act::End if last => [shown, b"!"].concat(),
            Act::End => shown.to_vec(),
            Act::Flood => vec![0; FLOOD_BYTES],
        }
    }

    /// The most that comes of so many bytes.
    fn most(self, bytes: usize) -> usize {
        match self {
            Act::Same | Act::Wait => bytes,
            Act::Stretch => 2 * bytes,
            Act::Swallow | Act::Toil => 0,
            Act::End => bytes + 1,
            Act::Flood => FLOOD_BYTES,
        }
    }

    /// The guest: `$from` and `$left` are the piece, and `$to` where the answer's end is left.
    fn guest(self) -> Guest {
        let guest = Guest::new().pages(64).request_body(TRANSFORM, 0);
        let work = match self {
            Act::Same => return guest.and_answers(Phase::RequestBody, &[]),
            Act::Wait => {
                let mut suspend = Writer::new(Kind::Suspend);
                let suspend = suspend.op(80, b"", &5u32.to_le_bytes()).finish();
                return guest.and_answers(Phase::RequestBody, &suspend).item(
                    r#"(func (export "sluicegate:filter/resume@0.1.0#on-resume") (param i32 i32) (result i32)
                         (global.set $heap (i32.const 65536))
                         (i64.store (i32.const 512) (i64.const 0)) (i32.const 512))"#,
                );
            }
            Act::Swallow => String::new(),
            Act::Stretch => "(block $done (loop $next
                (br_if $done (i32.eqz (local.get $left)))
                (i32.store8 (local.get $to) (i32.load8_u (local.get $from)))
                (i32.store8 offset=1 (local.get $to) (i32.load8_u (local.get $from)))
                (local.set $from (i32.add (local.get $from) (i32.const 1)))
                (local.set $left (i32.sub (local.get $left) (i32.const 1)))
                (local.set $to (i32.add (local.get $to) (i32.const 2)))
                (br $next)))"
                .to_owned(),
            Act::End => "(memory.copy (local.get $to) (local.get $from) (local.get $left))
                (local.set $to (i32.add (local.get $to) (local.get $left)))
                (if (i32.and (i32.load16_u offset=14 (local.get $head)) (i32.const 8)) (then
                  (i32.store8 (local.get $to) (i32.const 33))
                  (local.set $to (i32.add (local.get $to) (i32.const 1)))))"
                .to_owned(),
            Act::Toil => "(local.set $left (i32.const 20000000))
                (loop $next (br_if $next
                  (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))"
                .to_owned(),
            Act::Flood => format!("(local.set $to (i32.const {}))", ANSWER + 9 + FLOOD_BYTES),
        };
        // The verdict `next` and its one operation, which says what stands in place of the piece.
        let function = format!(
            "(func $work (param $head i32) (result i32)
               (local $from i32) (local $left i32) (local $to i32)
               (local.set $from (i32.add (local.get $head) (i32.load offset=224 (local.get $head))))
               (local.set $left (i32.load offset=228 (local.get $head)))
               (local.set $to (i32.const {value}))
               {work}
               (i32.store8 (i32.const {ANSWER}) (i32.const 0))
               (i32.store (i32.const {op}) (i32.const 49))
               (i32.store (i32.const {length}) (i32.sub (local.get $to) (i32.const {value})))
               (i32.store (i32.const 512) (i32.const {ANSWER}))
               (i32.store (i32.const 516) (i32.sub (local.get $to) (i32.const {ANSWER})))
               (i32.const 512))",
            op = ANSWER + 1,
            length = ANSWER + 5,
            value = ANSWER + 9,
        );
        guest
            .item(&function)
            .and_runs(Phase::RequestBody, "(call $work (local.get $head))")
    }
}

/// Where a guest writes its answer: behind whatever it is shown.
const ANSWER: usize = 2 << 20;

/// A chain with a filter for each act, in order, and what a walk needs beside it.
struct Bench {
    chain: Chain,
    connection: Connection,
}

impl Bench {
    fn new() -> Self {
        let host = Host::new(HostOptions::default()).unwrap();
        let link = |act: Act| {
            let config = Arc::new(FilterConfig {
                name: format!("{act:?}").into(),
                at: ConfigPath(format!("/filters/{act:?}")),
                module: ModuleSource::Builtin("test".into()),
                sha256: None,
                settings: serde_json::Value::Null,
                limits: FilterLimits {
                    memory: 8 << 20,
                    deadline: Duration::from_secs(10),
                    output: OUTPUT_BYTES_MAX,
                    ..FilterLimits::default()
                },
                capabilities: Capabilities::default(),
                store: StoreConfig::Memory { bytes: 1 << 20 },
                on_error: OnError::Fail,
                isolation: Isolation::Worker,
                handler: None,
            });
            let module = Module::load(&host, "test", &act.guest().build()).unwrap();
            let filter = Filter::load(module, config, 1, Arc::new(|_| {})).unwrap();
            Link {
                slot: Slot::new(filter.clone(), 0),
                pools: filter.pool_table(filter.config(), &[]).unwrap(),
            }
        };
        let peer = "10.0.0.9:4000".parse().unwrap();
        let local = "10.0.0.1:80".parse().unwrap();
        Self {
            chain: Chain::new(Act::ALL.map(link).into()),
            connection: Connection::new("web".into(), peer, local),
        }
    }

    fn facts(&self) -> RequestFacts<'_> {
        RequestFacts {
            connection: &self.connection,
            client: self.connection.peer.ip(),
            client_text: &self.connection.peer_text,
            client_port: self.connection.peer.port(),
            scheme: "http",
            request_id: "id",
            has_body: true,
        }
    }

    /// Puts a body through stages.
    fn run(&self, stages: &[(Act, BodyMode)], source: &mut Script, announced: bool) -> Ran {
        let mut head = RequestHead::new(Version::Http11, b"POST", b"x", b"/", Fields::default());
        let mut state = ExchangeState::default();
        let began = self.chain.request(&mut state, &self.facts(), &mut head);
        assert!(matches!(began, Outcome::Continue));
        let mut walk = FilterCalls {
            chain: &self.chain,
            state: &mut state,
            message: Message::Request {
                facts: self.facts(),
                head: &mut head,
            },
            phase: Phase::RequestBody,
            perform: &done_later,
        };
        let staged = stages.iter().map(|(act, mode)| BodyStage {
            filter: Act::ALL.iter().position(|a| a == act).unwrap(),
            mode: *mode,
        });
        let mut pipeline = Pipeline::new(staged.collect());
        let room = room(stages, source.largest());
        let total = source.total();
        let mut ran = Ran::default();
        let mut cx = Context::from_waker(Waker::noop());
        let length = announced.then_some(total as u64);
        if let Some(Err(halt)) = length.map(|length| pipeline.announce(length, &mut walk)) {
            ran.halt = Some(halt);
            return ran;
        }
        loop {
            let polled = pipeline.poll_settle(&mut cx, &mut walk, source);
            ran.look(&pipeline, &room);
            match polled {
                Poll::Ready(Ok(())) => break,
                Poll::Ready(Err(halt)) => {
                    ran.halt = Some(halt);
                    return ran;
                }
                Poll::Pending => ran.pauses += 1,
            }
        }
        assert!(pipeline.is_settled() && pipeline.given == 0);
        ran.told = match pipeline.length(length) {
            Err(Unchanged) => Some(total as u64),
            Ok(told) => told,
        };
        loop {
            let out = &mut ran.out;
            let polled = pipeline.poll_next(&mut cx, &mut walk, source, &mut |_, data| {
                assert!(data.len() <= PIECE_BYTES_MAX);
                out.extend_from_slice(data);
            });
            ran.look(&pipeline, &room);
            match polled {
                Poll::Ready(Ok(Pulled::Data(count))) => assert!(count > 0),
                Poll::Ready(Ok(Pulled::End)) => break,
                Poll::Ready(Err(halt)) => panic!("no head waits any more: {halt:?}"),
                Poll::Pending => ran.pauses += 1,
            }
        }
        assert!(pipeline.is_done());
        assert_eq!(pipeline.given, ran.out.len() as u64);
        assert_eq!(pipeline.taken, total as u64);
        // Asked again, as after a retry, it has nothing more and leaves its source alone.
        let again = pipeline.poll_next(&mut cx, &mut walk, source, &mut |_, _| panic!("data"));
        assert!(matches!(again, Poll::Ready(Ok(Pulled::End))));
        assert_eq!(pipeline.has_trailers(), source.with_trailers);
        assert_eq!(pipeline.take_trailers().is_some(), source.with_trailers);
        ran
    }
}

/// Effects that are not there at once.
fn done_later(suspension: Box<Suspension>) -> Effects {
    Box::pin(async move {
        let mut asked = false;
        std::future::poll_fn(|_| match std::mem::replace(&mut asked, true) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
        (suspension, vec![EffectResult::Done])
    })
}

/// What came of a body.
#[derive(Debug, Default)]
struct Ran {
    out: Vec<u8>,
    /// The length that the head would say.
    told: Option<u64>,
    halt: Option<BodyHalt>,
    /// The most that waited anywhere at one time.
    held: usize,
    /// How often it had to be polled again.
    pauses: usize,
}

impl Ran {
    /// No queue holds more than it may.
    fn look(&mut self, pipeline: &Pipeline, room: &[usize]) {
        let mut all = 0;
        for (queue, room) in pipeline.queues.iter().zip(room) {
            let waiting = queue.waiting().len();
            assert!(waiting <= *room, "{waiting} bytes, and room for {room}");
            all += waiting;
        }
        self.held = self.held.max(all);
    }
}

/// What may wait before each stage, and at the end: what came at one time, and what a stage collects.
fn room(stages: &[(Act, BodyMode)], piece: usize) -> Vec<usize> {
    let mut arrives = piece;
    let mut room = Vec::new();
    for (act, mode) in stages {
        let collects = match mode {
            BodyMode::First(max) => *max as usize,
            BodyMode::Whole(whole) => whole.max as usize,
            _ => 0,
        };
        let holds = collects + arrives;
        room.push(holds);
        arrives = match mode.holds_head() {
            true => act.most(collects) + holds,
            false => act.most(PIECE_BYTES_MAX.min(holds)),
        };
    }
    room.push(arrives);
    room
}

#[derive(Debug, Clone, Copy)]
enum Cut {
    Pending,
    Data(usize),
}

/// A body that comes in these pieces.
#[derive(Debug, Clone)]
struct Script {
    cuts: VecDeque<Cut>,
    at: usize,
    /// The end is known with the last data, as of a body whose length is known.
    ends_early: bool,
    with_trailers: bool,
    ended: bool,
}

impl Script {
    fn new(cuts: impl IntoIterator<Item = Cut>, ends_early: bool, with_trailers: bool) -> Self {
        Self {
            cuts: cuts.into_iter().collect(),
            at: 0,
            ends_early,
            with_trailers,
            ended: false,
        }
    }

    fn sizes(&self) -> impl Iterator<Item = usize> {
        self.cuts.iter().map(|cut| match cut {
            Cut::Pending => 0,
            Cut::Data(size) => *size,
        })
    }

    fn total(&self) -> usize {
        self.sizes().sum()
    }

    fn largest(&self) -> usize {
        self.sizes().max().unwrap_or(0)
    }

    fn bytes(range: std::ops::Range<usize>) -> Vec<u8> {
        range.map(|at| (at % 251) as u8).collect()
    }
}

impl Source for Script {
    fn poll_pull(
        &mut self,
        cx: &mut Context<'_>,
        take: &mut Taker<'_>,
    ) -> Poll<Result<Pulled, Reason>> {
        assert!(!self.is_done(), "it is asked for more after its end");
        match self.cuts.pop_front() {
            Some(Cut::Pending) => Poll::Pending,
            Some(Cut::Data(size)) => {
                take(cx, &Self::bytes(self.at..self.at + size));
                self.at += size;
                Poll::Ready(Ok(Pulled::Data(size)))
            }
            None => {
                self.ended = true;
                Poll::Ready(Ok(Pulled::End))
            }
        }
    }

    fn is_done(&self) -> bool {
        self.ended || self.ends_early && self.total() == 0 && self.at > 0
    }

    fn trailers(&mut self) -> Option<Fields> {
        self.with_trailers.then(Fields::default)
    }
}

/// What stages make of a body: of all of it at once, one stage after the other.
fn model(stages: &[(Act, BodyMode)], mut body: Vec<u8>) -> Result<Vec<u8>, &'static str> {
    for (act, mode) in stages {
        body = match mode {
            BodyMode::Whole(whole) if body.len() > whole.max as usize => match whole.over {
                OverCap::Bypass => body,
                OverCap::Refuse => return Err("refused"),
                OverCap::Fail => return Err("fault"),
            },
            BodyMode::First(max) => {
                let (first, rest) = body.split_at(body.len().min(*max as usize));
                [act.model(first, rest.is_empty()), rest.to_vec()].concat()
            }
            _ => act.model(&body, true),
        };
    }
    Ok(body)
}

fn stages() -> impl Strategy<Value = Vec<(Act, BodyMode)>> {
    let act = prop::sample::select(vec![
        Act::Same,
        Act::Stretch,
        Act::Swallow,
        Act::End,
        Act::Wait,
    ]);
    let over = prop::sample::select(vec![OverCap::Fail, OverCap::Bypass, OverCap::Refuse]);
    let max = prop_oneof![3 => 1u32..40, 1 => 1u32..300_000];
    let mode = prop_oneof![
        2 => max.clone().prop_map(BodyMode::First),
        3 => (max, over).prop_map(|(max, over)| BodyMode::Whole(WholeBody { max, over })),
        1 => Just(BodyMode::Watch),
        3 => Just(BodyMode::Transform),
    ];
    let stage = (act, mode).prop_map(|(act, mode)| match mode {
        // It may not change anything.
        BodyMode::Watch => (Act::Same, mode),
        _ => (act, mode),
    });
    prop::collection::vec(stage, 0..5)
}

fn cuts() -> impl Strategy<Value = Vec<Cut>> {
    let cut = |sizes: std::ops::Range<usize>| prop_oneof![1 => Just(Cut::Pending), 4 => sizes.prop_map(Cut::Data)];
    prop_oneof![
        6 => prop::collection::vec(cut(0..12), 0..12),
        1 => prop::collection::vec(cut(0..150_000), 0..4),
    ]
}

#[test]
fn what_comes_out_is_what_the_stages_make_however_it_is_cut() {
    let bench = Bench::new();
    let cases = (stages(), cuts(), any::<[bool; 3]>());
    let config = ProptestConfig::with_cases(1500);
    let done = TestRunner::new(config).run(&cases, |(stages, cuts, how)| {
        let [announced, ends_early, with_trailers] = how;
        let mut source = Script::new(cuts, ends_early, with_trailers);
        let body = Script::bytes(0..source.total());
        let ran = bench.run(&stages, &mut source, announced);
        let halted = ran.halt.as_ref().map(|halt| match halt {
            BodyHalt::TooLarge => "refused",
            BodyHalt::Filter(_) => "fault",
            BodyHalt::Reason(_) => "reason",
        });
        match model(&stages, body) {
            Err(wanted) => prop_assert_eq!(halted, Some(wanted)),
            Ok(wanted) => {
                prop_assert_eq!(halted, None);
                prop_assert!(ran.out == wanted, "{} bytes came out", ran.out.len());
                if let Some(told) = ran.told {
                    prop_assert_eq!(told, wanted.len() as u64);
                }
            }
        }
        Ok(())
    });
    done.unwrap_or_else(|why| panic!("{why}"));
}

#[test]
fn what_a_filter_made_small_enough_is_not_too_large_for_the_next() {
    let bench = Bench::new();
    let whole = |max| {
        let over = OverCap::Refuse;
        BodyMode::Whole(WholeBody { max, over })
    };
    let stages = [(Act::Swallow, whole(40)), (Act::End, whole(5))];
    let mut source = Script::new([Cut::Data(10)], true, false);
    let ran = bench.run(&stages, &mut source, true);
    assert_eq!((ran.out, ran.told), (b"!".to_vec(), Some(1)));
}

#[test]
fn lengths_that_can_be_known_are_told() {
    let bench = Bench::new();
    let told = |stages: &[(Act, BodyMode)], announced: bool| {
        let mut source = Script::new([Cut::Data(6), Cut::Data(4)], true, false);
        bench.run(stages, &mut source, announced).told
    };
    let whole = BodyMode::Whole(WholeBody {
        max: 99,
        over: OverCap::Fail,
    });
    let first = BodyMode::First(4);
    for announced in [true, false] {
        assert_eq!(told(&[(Act::Stretch, whole)], announced), Some(20));
        let after = [(Act::Stretch, BodyMode::Transform), (Act::End, whole)];
        assert_eq!(told(&after, announced), Some(21));
        let before = [(Act::Stretch, whole), (Act::End, BodyMode::Transform)];
        assert_eq!(told(&before, announced), None);
    }
    assert_eq!(told(&[(Act::Stretch, first)], true), Some(14));
    assert_eq!(told(&[(Act::Stretch, first)], false), None);
    assert_eq!(told(&[(Act::Same, BodyMode::Watch)], true), Some(10));
}

#[test]
fn each_filter_holds_one_answer_however_much_a_piece_expands() {
    let bench = Bench::new();
    let stages = [(Act::Flood, BodyMode::Transform); 3];
    let read = 2 * PIECE_BYTES_MAX;
    let mut source = Script::new([Cut::Data(read); 4], false, false);
    let ran = bench.run(&stages, &mut source, false);
    assert_eq!(ran.halt.map(|_| ()), None);
    // Every piece of every answer is answered again; the end by itself, too.
    assert!(ran.out.len() >= 8 * 4 * 4 * FLOOD_BYTES);
    assert!(
        ran.held <= read + stages.len() * FLOOD_BYTES,
        "{} bytes were held",
        ran.held
    );
}

#[test]
fn others_have_their_turn_between_calls_that_take_long() {
    let bench = Bench::new();
    for (stages, calls) in [
        (vec![(Act::Toil, BodyMode::Transform)], 8),
        // Of the second nothing is left for the third.
        (
            vec![
                (Act::Same, BodyMode::Watch),
                (Act::Toil, BodyMode::Transform),
                (Act::Toil, BodyMode::Transform),
            ],
            8,
        ),
    ] {
        // All of it is there at once.
        let mut source = Script::new([Cut::Data(4 * PIECE_BYTES_MAX); 2], true, false);
        let ran = bench.run(&stages, &mut source, true);
        assert_eq!(ran.out, b"");
        assert!(ran.pauses >= calls - 1, "{} pauses", ran.pauses);
    }
    // What is quick goes on.
    let mut source = Script::new([Cut::Data(10)], true, false);
    let ran = bench.run(&[(Act::Same, BodyMode::Watch)], &mut source, true);
    assert_eq!((ran.out.len(), ran.pauses), (10, 0));
}

#[test]
fn what_the_source_suffers_ends_the_body() {
    struct Broken;
    impl Source for Broken {
        fn poll_pull(
            &mut self,
            _: &mut Context<'_>,
            _: &mut Taker<'_>,
        ) -> Poll<Result<Pulled, Reason>> {
            Poll::Ready(Err(Reason::ClientGone))
        }
        fn is_done(&self) -> bool {
            false
        }
        fn trailers(&mut self) -> Option<Fields> {
            None
        }
    }
    let bench = Bench::new();
    let mut head = RequestHead::new(Version::Http11, b"POST", b"x", b"/", Fields::default());
    let mut state = ExchangeState::default();
    let mut walk = FilterCalls {
        chain: &bench.chain,
        state: &mut state,
        message: Message::Request {
            facts: bench.facts(),
            head: &mut head,
        },
        phase: Phase::RequestBody,
        perform: &done_later,
    };
    let mut cx = Context::from_waker(Waker::noop());
    for mode in [BodyMode::First(4), BodyMode::Transform] {
        let mut pipeline = Pipeline::new(vec![BodyStage { filter: 0, mode }]);
        let polled = match mode {
            BodyMode::Transform => pipeline
                .poll_next(&mut cx, &mut walk, &mut Broken, &mut |_, _| {})
                .map_ok(|_| ()),
            _ => pipeline.poll_settle(&mut cx, &mut walk, &mut Broken),
        };
        assert!(matches!(
            polled,
            Poll::Ready(Err(BodyHalt::Reason(Reason::ClientGone)))
        ));
    }
}
