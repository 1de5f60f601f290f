//! Runs a filter natively, under plain `cargo test`: the settings come as JSON, the exchanges go through the packed
//! blocks as they do in the proxy, the plan's predicate decides whether the filter is called, and a verdict that the
//! host would refuse fails the test.
//!
//! ```
//! use sluicegate_sdk::testing::{Harness, TestRequest, TestResponse, json};
//! use sluicegate_sdk::*;

//!
//! struct Stamp;
//!
//! #[sluicegate_sdk::filter]
//! impl Filter for Stamp {
//!     type Settings = ();
//!
//!     fn configure(_: (), _: &mut Setup) -> Result<Self, Diagnostics> {
//!         Ok(Stamp)
//!     }
//!
//!     fn request(&mut self, _: &Request<'_>) -> RequestVerdict {
//!         RequestVerdict::next().set("x-stamp", "1").state(7)
//!     }
//!
//!     fn response(&mut self, response: &Response<'_>) -> ResponseVerdict {
//!         assert_eq!(response.state(), 7);
//!         ResponseVerdict::next().status(418)
//!     }
//! }
//!
//! let mut harness = Harness::<Stamp>::new(json!(null)).unwrap();
//! let mut exchange = harness.exchange(TestRequest::get("/"));
//! assert_eq!(exchange.request().field("x-stamp"), Some("1"));
//! assert_eq!(exchange.response(&TestResponse::new(200)).status(), Some(418));
//! ```

mod answer;
mod block;
mod bodies;
mod effects;
mod matching;
mod message;
pub(crate) mod metrics;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::time::Duration;

use serde_json::Value;

use crate::effect::{Error, executor};
use crate::filter::{Exports, Filter};
use crate::handover::{NotRestored, Saved};
use crate::log::Level;
use crate::plan::{Diagnostic, Phase, Plan};
use crate::view::{Record, Request, Response, Stream, StreamData};

use effects::World;

pub use serde_json::json;

pub use answer::{Answer, Kind};
pub use bodies::TestBody;
pub use effects::TestCall;
pub use metrics::metric;

pub use message::{TestEnd, TestRequest, TestResponse, TestStream};

thread_local! {
    /// Each test has a thread of its own, so that its lines do not meet another's.
    static LINES: RefCell<Vec<(Level, String)>> = const { RefCell::new(Vec::new()) };
}

thread_local! {
    static CLOCK: Cell<u64> = const { Cell::new(0) };
    static SEED: Cell<u64> = const { Cell::new(0) };
}

/// Sets both clocks that the filters of this thread read.
pub fn set_clock(to: std::time::Duration) {
    CLOCK.set(u64::try_from(to.as_nanos()).unwrap_or(u64::MAX));
}

pub(crate) fn clock() -> u64 {
    CLOCK.get()
}

/// What the random numbers of this thread's filters follow from.
pub fn seed(seed: u64) {
    SEED.set(seed);
}

/// SplitMix64: tests need the same numbers each time, not good ones.
pub(crate) fn random() -> u64 {
    let state = SEED.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    SEED.set(state);
    let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

/// What the filter logged in this thread since the last call.
pub fn lines() -> Vec<(Level, String)> {
    LINES.with(|lines| lines.take())
}

pub(crate) fn collect(level: Level, message: String) {
    LINES.with(|lines| lines.borrow_mut().push((level, message)));
}

/// A configured filter.
pub struct Harness<F> {
    filter: F,
    plan: Plan,
    world: World,
}

impl<F: Filter + Exports> Harness<F> {
    /// Configures the filter, or tells what is wrong with the settings.
    pub fn new(settings: Value) -> Result<Self, Vec<Diagnostic>> {
        let (filter, plan) = crate::__private::configure::<F>(&settings.to_string())?;
        Ok(Self {
            filter,
            plan,
            world: World::default(),
        })
    }

    /// Says what the services answer that the filter [calls](crate::http::call).
    pub fn on_call(
        &mut self,
        answers: impl FnMut(&TestCall) -> Result<TestResponse, Error> + 'static,
    ) {
        self.world.answers = Some(Box::new(answers));
    }

    /// Puts a value into the filter's [store](crate::store), which is empty at first.
    pub fn store(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.world.put(key.as_ref(), value.as_ref(), 0);
    }

    /// What the store has at `key`, in the harness's time.
    pub fn stored(&self, key: impl AsRef<[u8]>) -> Option<&[u8]> {
        self.world.stored(key.as_ref())
    }

    /// The time that has passed for the filter: sleeps, and calls that time out, take it at once.
    pub fn elapsed(&self) -> Duration {
        Duration::from_millis(self.world.now_ms)
    }

    /// Lets time pass, for what the store keeps for a while.
    pub fn pass(&mut self, time: Duration) {
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.world.now_ms = self.world.now_ms.saturating_add(ms);
    }

    /// How many verdicts are waited for. None is left once every exchange is decided or abandoned.
    pub fn waiting(&self) -> usize {
        executor::waiting()
    }

    /// What the filter asked of the host.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The JSON Schema of the settings.
    pub fn schema() -> Value {
        serde_json::from_str(&crate::__private::schema::<F>()).unwrap_or_default()
    }

    /// An exchange with only a request phase.
    pub fn request(&mut self, request: TestRequest) -> Answer {
        self.exchange(request).request()
    }

    /// One exchange, whose phases share what the filter stores.
    pub fn exchange(&mut self, request: TestRequest) -> Exchange<'_, F> {
        Exchange {
            harness: self,
            request,
            state: 0,
            matched: None,
            skips_request_body: false,
            skips_response_body: false,
        }
    }

    /// One connection of a stream listener.
    pub fn session(&mut self, stream: TestStream) -> Session<'_, F> {
        Session {
            harness: self,
            stream,
            state: 0,
        }
    }

    /// One tick, when the filter asked for some, to the end of what it waits for.
    pub fn tick(&mut self) {
        if self.wants(Phase::Tick) && self.plan.tick_ms > 0 {
            let verdict = self.filter.tick().into_bytes();
            self.world.decide(&self.plan, 0, verdict);
        }
    }

    /// What the filter hands over.
    pub fn save(&self) -> Option<Saved> {
        self.filter.save()
    }

    /// Hands a state to the filter.
    pub fn restore(&mut self, saved: &Saved) -> Result<(), NotRestored> {
        self.filter.restore(saved.version(), saved.bytes())
    }

    fn wants(&self, phase: Phase) -> bool {
        self.plan.phases.contains(phase)
    }
}

impl<F> fmt::Debug for Harness<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Harness")
            .field("plan", &self.plan)
            .finish_non_exhaustive()
    }
}

/// One HTTP exchange going through the filter.
#[derive(Debug)]
pub struct Exchange<'h, F> {
    harness: &'h mut Harness<F>,
    request: TestRequest,
    state: u64,
    /// Whether the predicate holds; found out once, when the first phase comes.
    matched: Option<bool>,
    skips_request_body: bool,
    skips_response_body: bool,
}

impl<F: Filter + Exports> Exchange<'_, F> {
    /// The request phase. The answer shows the request as the upstream would see it.
    pub fn request(&mut self) -> Answer {
        let fields = self.request.fields.clone();
        if !self.matches() || !self.harness.wants(Phase::Request) {
            return Answer::not_called(fields);
        }
        let block = self
            .request
            .block(self.state, &self.harness.plan.request_fields);
        let block = block::hide(block, self.harness.plan.facts);
        let verdict = self.harness.filter.request(&Request::new(&block));
        self.settle(Phase::Request, verdict.into_bytes(), fields)
    }

    /// The request phase of a client that leaves while the filter waits for its first effects.
    pub fn abandon_request(&mut self) {
        if !self.matches() || !self.harness.wants(Phase::Request) {
            return;
        }
        let block = self
            .request
            .block(self.state, &self.harness.plan.request_fields);
        let verdict = self.harness.filter.request(&Request::new(&block));
        let block = verdict.into_bytes();
        self.harness.world.cancel(self.state, &block);
    }

    /// The response phase. The answer shows the response as the client would see it.
    pub fn response(&mut self, response: &TestResponse) -> Answer {
        let fields = response.fields.clone();
        if !self.matches() || !self.harness.wants(Phase::Response) {
            return Answer::not_called(fields);
        }
        let interest = &self.harness.plan.response_fields;
        let block = response.block(&self.request, self.state, interest);
        let block = block::hide(block, self.harness.plan.facts);
        let verdict = self.harness.filter.response(&Response::new(&block));
        self.settle(Phase::Response, verdict.into_bytes(), fields)
    }

    /// The log phase.
    pub fn log(&mut self, end: &TestEnd) {
        if self.matches() && self.harness.wants(Phase::Log) {
            let block = block::hide(
                end.block(&self.request, self.state),
                self.harness.plan.facts,
            );
            self.harness.filter.log(&Record::new(&block));
        }
    }

    fn matches(&mut self) -> bool {
        let (plan, request) = (&self.harness.plan, &self.request);
        *self
            .matched
            .get_or_insert_with(|| matching::matches(&plan.matches, request))
    }

    #[track_caller]
    fn settle(&mut self, phase: Phase, verdict: Vec<u8>, fields: message::Fields) -> Answer {
        let Harness { plan, world, .. } = &mut *self.harness;
        let (verdict, state) = world.decide(plan, self.state, verdict);
        self.state = state;
        let answer = Answer::decode(phase, &verdict, fields, &plan.pools);
        self.state = answer.state().unwrap_or(self.state);
        self.skips_request_body |= answer.skips_request_body;
        self.skips_response_body |= answer.skips_response_body;
        answer
    }
}

/// One connection going through the filter.
#[derive(Debug)]
pub struct Session<'h, F> {
    harness: &'h mut Harness<F>,
    stream: TestStream,
    state: u64,
}

impl<F: Filter + Exports> Session<'_, F> {
    pub fn connect(&mut self) -> Answer {
        self.phase(Phase::Connect)
    }

    pub fn client_hello(&mut self) -> Answer {
        self.phase(Phase::ClientHello)
    }

    pub fn first_bytes(&mut self) -> Answer {
        self.phase(Phase::FirstBytes)
    }

    /// A piece from the client: what goes to the endpoint, or none when the session ends.
    pub fn client_data(&mut self, bytes: &[u8], last: bool) -> Option<Vec<u8>> {
        self.data(Phase::ClientData, bytes, last)
    }

    /// A piece from the endpoint: what goes to the client, or none when the session ends.
    pub fn server_data(&mut self, bytes: &[u8], last: bool) -> Option<Vec<u8>> {
        self.data(Phase::ServerData, bytes, last)
    }

    fn data(&mut self, phase: Phase, bytes: &[u8], last: bool) -> Option<Vec<u8>> {
        if !self.harness.wants(phase) {
            return Some(bytes.to_vec());
        }
        let block = self.stream.data_block(self.state, bytes, last);
        let (filter, view) = (&mut self.harness.filter, StreamData::new(&block));
        let verdict = match phase {
            Phase::ClientData => filter.client_data(&view),
            _ => filter.server_data(&view),
        };
        let (passes, replaced, state) = answer::data(&verdict.into_bytes());
        self.state = state.unwrap_or(self.state);
        passes.then(|| replaced.unwrap_or_else(|| bytes.to_vec()))
    }

    fn phase(&mut self, phase: Phase) -> Answer {
        if !self.harness.wants(phase) {
            return Answer::not_called(Vec::new());
        }
        let first_bytes = self.harness.plan.first_bytes as usize;
        let block = self.stream.block(phase, self.state, first_bytes);
        let block = block::hide(block, self.harness.plan.facts);
        let (filter, view) = (&mut self.harness.filter, Stream::new(&block));
        let verdict = match phase {
            Phase::Connect => filter.connect(&view),
            Phase::ClientHello => filter.client_hello(&view),
            _ => filter.first_bytes(&view),
        };
        let Harness { plan, world, .. } = &mut *self.harness;
        let (verdict, state) = world.decide(plan, self.state, verdict.into_bytes());
        self.state = state;
        let answer = Answer::decode(phase, &verdict, Vec::new(), &plan.pools);
        self.state = answer.state().unwrap_or(self.state);
        answer
    }
}
