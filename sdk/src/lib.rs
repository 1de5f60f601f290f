//! Write Sluicegate filters in Rust.
//!
//! A filter decides about connections, requests and responses on their way through the proxy: route, edit, answer, drop.
//! It is a type that implements [`Filter`], compiled to WebAssembly; the proxy runs one instance per worker thread, within
//! limits, and replaces it while traffic flows.
//!
//! # A filter, whole
//!
//! ```
//! use sluicegate_sdk::{Diagnostics, Filter, Interest, Match, Reply, Request, RequestVerdict, Setup};
//!
//! /// Asks for a token on everything under a path.
//! #[sluicegate_sdk::settings]
//! pub struct Settings {
//!     /// The path that is protected.
//!     under: String,
//!     /// The token that clients send in `x-token`.
//!     token: String,
//! }
//!
//! pub struct TokenGate {
//!     token: String,
//! }
//!
//! #[sluicegate_sdk::filter]
//! impl Filter for TokenGate {
//!     type Settings = Settings;
//!
//!     fn configure(settings: Settings, setup: &mut Setup) -> Result<Self, Diagnostics> {
//!         setup.only_when(Match::path_prefix(settings.under));
//!         setup.request_fields(Interest::some(["x-token"]));
//!         Ok(Self { token: settings.token })
//!     }
//!
//!     fn request(&mut self, request: &Request<'_>) -> RequestVerdict {
//!         match request.field("x-token") {
//!             Some(token) if token == *self.token => RequestVerdict::next().remove("x-token"),
//!             _ => Reply::new(401).body("a token is needed\n").into(),
//!         }
//!     }
//! }
//!
//! # use sluicegate_sdk::testing::{Harness, TestRequest, json};
//! let settings = json!({"under": "/admin", "token": "t0ken"});
//! let mut gate = Harness::<TokenGate>::new(settings).unwrap();
//! assert_eq!(gate.request(TestRequest::get("/admin/x")).status(), Some(401));
//! assert!(!gate.request(TestRequest::get("/public")).was_called());
//! ```
//!
//! The tour, in the order in which things happen:
//!
//! 1. **Settings.** What the YAML has under `settings:` becomes [`Filter::Settings`]. [`settings`](macro@settings) derives
//!    what is needed; doc comments end up in the JSON Schema that editors read. Mistakes are reported with the path of
//!    the setting, unknown keys with a suggestion; [`mod@settings`] has types that many filters need.
//! 2. **Plan.** [`Filter::configure`] makes the filter and narrows what the host does for it through [`Setup`]: which
//!    exchanges ([`Match`]), which phases, which fields ([`Interest`]), which pools. An exchange that does not match costs no
//!    call at all. [`Setup::problem`] and the returned [`Diagnostics`] point at settings that make no sense.
//! 3. **Views.** Phases are shown a [`Request`], [`Response`], [`Record`] or [`Stream`]: lazy views over one block of bytes,
//!    so that what is not looked at costs nothing. Text from the network is [`Text`], bytes that compare with strings.
//! 4. **Verdicts.** Each phase answers a [`Verdict`], with edits that apply in order, or a [`Reply`]. What a phase cannot do
//!    does not compile there.
//! 5. **State.** `&mut self` lives as long as the instance. What one exchange carries from phase to phase is a `u64`:
//!    [`Verdict::state`], [`Head::state`].
//! 6. **Capabilities.** [`log`], [`metrics`], [`clock`] and [`random`], each when the YAML grants it. Without an exchange a
//!    filter is called by [`Filter::tick`], and hands its state over a reload by [`Filter::save`] and [`Filter::restore`].
//! 7. **Waiting.** A verdict may come [later](Verdict::later): inside of it a filter sleeps ([`effect`]), calls HTTP services
//!    ([`http`]) and uses its store ([`store`]), while its instance serves other exchanges.
//! 8. **Tests.** [`testing`] runs the filter natively, with predicates, packed blocks and checks as in the proxy.
//!
//! The attribute [`filter`](macro@filter) exports exactly the phases that the impl writes out. Misuse does not compile:
//!
//! ```compile_fail
//! use sluicegate_sdk::*;
//!
//! struct Idle;
//!
//! // This filter takes part in no phase: write at least one of `request`, `response`, …
//! #[sluicegate_sdk::filter]
//! impl Filter for Idle {
//!     type Settings = ();
//!
//!     fn configure(_: (), _: &mut Setup) -> Result<Self, Diagnostics> {
//!         Ok(Self)
//!     }
//! }
//! ```
//!
//! ```compile_fail
//! use sluicegate_sdk::*;
//!
//! // Only requests have a path to rewrite.
//! ResponseVerdict::next().path("/x");
//! ```
//!
//! Build with `cargo build --release --target wasm32-unknown-unknown`; the proxy makes a component of the module when it
//! loads it. `wasm32-wasip2` gives a component at once. See the README for a new crate from scratch.

// The macros write `::sluicegate_sdk`, here as elsewhere.
extern crate self as sluicegate_sdk;

#[doc(hidden)]
#[path = "crossing.rs"]
pub mod __crossing;
#[doc(hidden)]
#[path = "guest.rs"]
pub mod __private;
mod bindings;
pub mod clock;
pub mod effect;
pub mod field;
mod filter;
mod glob;
mod handover;
mod head;
pub mod http;
pub mod log;
pub mod metrics;
mod plan;
mod predicate;
pub mod random;
pub mod settings;
pub mod store;
#[cfg(not(target_family = "wasm"))]
pub mod testing;
mod text;
mod verdict;
mod view;

pub use schemars;
pub use serde;
pub use sluicegate_sdk_macros::{filter, settings};

pub use filter::{Exports, Filter};
pub use glob::Glob;
pub use handover::{NotRestored, Saved};
pub use head::{Head, Tls};
pub use plan::{
    BodyMode, Diagnostic, Diagnostics, Effects, Fact, Facts, Interest, OverCap, Phase, Phases,
    Plan, Pointer, PoolUse, Setup,
};
pub use predicate::{Match, Test};
pub use text::Text;
pub use verdict::{
    CalledPool, Edits, Http, OfBody, OfRequest, OfResponse, OnRequest, OnRequestBody, OnResponse,
    OnResponseBody, OnStream, OnStreamData, OnTrailers, Pool, Reply, RequestBodyVerdict,
    RequestVerdict, ResponseBodyVerdict, ResponseVerdict, Routes, StreamDataVerdict, StreamVerdict,
    TickVerdict, TrailersVerdict, Value, Verdict,
};
pub use view::{
    Record, Request, RequestBody, RequestTrailers, Response, ResponseBody, ResponseTrailers,
    Stream, StreamData,
};

/// The README's example is a test too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// And so is the filter on the repository's front page.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct FrontPage;
