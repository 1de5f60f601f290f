//! What a filter answers, written straight into the packed block that goes back to the host.

use std::cell::RefCell;
use std::future::Future;
use std::marker::PhantomData;

use crate::effect::executor;

/// A larger block is given back to the allocator.
const SPARE_BYTES_MAX: usize = 64 * 1024;

pub(crate) const NEXT: u8 = 0;
pub(crate) const REPLY: u8 = 1;
pub(crate) const DROP: u8 = 2;
pub(crate) const RESET: u8 = 3;
pub(crate) const SUSPEND: u8 = 4;

/// The operations of PACKED.md.
pub(crate) mod op {
    pub const SET: u8 = 1;
    pub const APPEND: u8 = 2;
    pub const ADD: u8 = 3;
    pub const REMOVE: u8 = 4;
    pub const PATH: u8 = 16;
    pub const AUTHORITY: u8 = 17;
    pub const POOL: u8 = 32;
    pub const STICKY_KEY: u8 = 33;
    pub const ENDPOINT: u8 = 34;
    pub const TRY_TIMEOUT: u8 = 35;
    pub const TOTAL_TIMEOUT: u8 = 36;
    pub const RETRIES: u8 = 37;
    pub const STATUS: u8 = 48;
    pub const BODY: u8 = 49;
    pub const SKIP_REQUEST_BODY: u8 = 50;
    pub const SKIP_RESPONSE_BODY: u8 = 51;
    pub const STATE: u8 = 64;
}

/// A pool that [`Setup::pool`](crate::Setup::pool) declared: its index in the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pool(pub(crate) u32);

/// A pool that [`Setup::called_pool`](crate::Setup::called_pool) declared: one to [call](crate::http::call), and to route
/// to like any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CalledPool(pub(crate) u32);

impl From<CalledPool> for Pool {
    fn from(pool: CalledPool) -> Self {
        Self(pool.0)
    }
}

/// Marks verdicts of the request phase.
#[derive(Debug, Clone, Copy)]
pub enum OnRequest {}
/// Marks verdicts of the response phase.
#[derive(Debug, Clone, Copy)]
pub enum OnResponse {}
/// Marks verdicts of the stream phases.
#[derive(Debug, Clone, Copy)]
pub enum OnStream {}

/// Marks verdicts of the phases of a stream's data.
#[derive(Debug, Clone, Copy)]
pub enum OnStreamData {}

/// Marks what a tick answers.
#[derive(Debug, Clone, Copy)]
pub enum OnTick {}
/// Marks verdicts of the phase of the request's body.
#[derive(Debug, Clone, Copy)]
pub enum OnRequestBody {}
/// Marks verdicts of the phase of the response's body.
#[derive(Debug, Clone, Copy)]
pub enum OnResponseBody {}
/// Marks verdicts of the phases of trailers.
#[derive(Debug, Clone, Copy)]
pub enum OnTrailers {}

/// Phases in which fields can be edited. In those of bodies, as long as the head waits for the answer: with
/// [`First`](crate::BodyMode::First) and [`Whole`](crate::BodyMode::Whole).
pub trait Edits: sealed::Sealed {}
impl Edits for OnRequest {}
impl Edits for OnResponse {}
impl Edits for OnRequestBody {}
impl Edits for OnResponseBody {}
impl Edits for OnTrailers {}

/// Phases in which fields can be edited and a reply given.
pub trait Http: Edits {}
impl Http for OnRequest {}
impl Http for OnResponse {}
impl Http for OnRequestBody {}
impl Http for OnResponseBody {}

/// Phases in which the request can be edited.
pub trait OfRequest: Routes {}
impl OfRequest for OnRequest {}
impl OfRequest for OnRequestBody {}

/// Phases in which the response's status can be changed.
pub trait OfResponse: sealed::Sealed {}
impl OfResponse for OnResponse {}
impl OfResponse for OnResponseBody {}

/// Phases of bodies.
pub trait OfBody: sealed::Sealed {}
impl OfBody for OnRequestBody {}
impl OfBody for OnResponseBody {}

/// Phases before an endpoint is chosen.
pub trait Routes: sealed::Sealed {}
impl Routes for OnRequest {}
impl Routes for OnStream {}
impl Routes for OnRequestBody {}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::OnRequest {}
    impl Sealed for super::OnResponse {}
    impl Sealed for super::OnStream {}
    impl Sealed for super::OnRequestBody {}
    impl Sealed for super::OnResponseBody {}
    impl Sealed for super::OnTrailers {}
}

/// Answers of [`Filter::request`](crate::Filter::request).
pub type RequestVerdict = Verdict<OnRequest>;
/// Answers of [`Filter::response`](crate::Filter::response).
pub type ResponseVerdict = Verdict<OnResponse>;
/// Answers of [`Filter::request_body`](crate::Filter::request_body).
pub type RequestBodyVerdict = Verdict<OnRequestBody>;
/// Answers of [`Filter::response_body`](crate::Filter::response_body).
pub type ResponseBodyVerdict = Verdict<OnResponseBody>;
/// Answers of the phases of trailers.
pub type TrailersVerdict = Verdict<OnTrailers>;
/// Answers of the stream phases.
pub type StreamVerdict = Verdict<OnStream>;

/// Answers of the phases of a stream's data.
pub type StreamDataVerdict = Verdict<OnStreamData>;

/// What [`Filter::tick`](crate::Filter::tick) answers: [`next`](Verdict::next), now or [later](Verdict::later).
pub type TickVerdict = Verdict<OnTick>;

/// A verdict, with the edits that go with it. Edits apply in the order they are written.
///
/// ```
/// use sluicegate_sdk::{Reply, RequestVerdict};
///
/// let untouched = RequestVerdict::next();
/// let edited = RequestVerdict::next().set("x-team", "blue").remove("x-debug");
/// let refused: RequestVerdict = Reply::new(403).body("no\n").into();
/// let silent = RequestVerdict::drop();
/// ```
///
/// The host validates what comes back: a name that is no token, a value with CR, LF or NUL, or a field that the host
/// owns (`Host`, `Content-Length`, `Connection`, …) makes the call a fault, and the filter's failure policy applies.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict<P> {
    /// Empty for `next` without edits, which costs no allocation.
    block: Vec<u8>,
    phase: PhantomData<P>,
}

impl Verdict<OnRequest> {
    /// This request's body passes without the filter, whatever [`Setup::request_body`](crate::Setup::request_body) says.
    pub fn skip_request_body(self) -> Self {
        self.put(op::SKIP_REQUEST_BODY, "", b"")
    }

    /// The body of the response to this request passes without the filter.
    pub fn skip_response_body(self) -> Self {
        self.put(op::SKIP_RESPONSE_BODY, "", b"")
    }
}

impl Verdict<OnResponse> {
    /// This response's body passes without the filter, whatever [`Setup::response_body`](crate::Setup::response_body)
    /// says: its head does not wait, and its length stays.
    pub fn skip_response_body(self) -> Self {
        self.put(op::SKIP_RESPONSE_BODY, "", b"")
    }
}

impl<P> Verdict<P> {
    /// Go on. Without edits nothing is allocated, and the host changes nothing.
    pub const fn next() -> Self {
        Self {
            block: Vec::new(),
            phase: PhantomData,
        }
    }

    /// Close without one byte.
    pub fn drop() -> Self {
        Self::of(DROP)
    }

    /// Close with a TCP reset; an HTTP/2 stream gets RST_STREAM.
    pub fn reset() -> Self {
        Self::of(RESET)
    }

    /// Decides later: `future` may await effects ([`effect`](crate::effect), [`http`](crate::http),
    /// [`store`](crate::store)), which the proxy performs while it calls the filter for other exchanges. It owns what it
    /// uses: what it shares with the filter goes in as an `Rc`, what it needs of a view as a copy.
    ///
    /// The answer is what the future answers, as if the call had taken that long. A future that does not wait is decided
    /// at once, and costs no more than that.
    ///
    /// ```
    /// use sluicegate_sdk::{Reply, Request, RequestVerdict, store};
    /// use std::time::Duration;
    ///
    /// fn at_most_a_hundred_a_minute(request: &Request<'_>) -> RequestVerdict {
    ///     let key = format!("seen {}", request.client_address());
    ///     RequestVerdict::later(async move {
    ///         match store::increment(key, 1, Duration::from_secs(60)).await {
    ///             Ok(101..) => Reply::new(429).into(),
    ///             _ => RequestVerdict::next(),
    ///         }
    ///     })
    /// }
    /// ```
    pub fn later(future: impl Future<Output = Self> + 'static) -> Self
    where
        P: 'static,
    {
        Self {
            block: executor::begin(Box::pin(async move { future.await.block })),
            phase: PhantomData,
        }
    }

    /// Remembers `state` for the later phases of this exchange.
    pub fn state(self, state: u64) -> Self {
        self.put(op::STATE, "", &state.to_le_bytes())
    }

    /// The packed block, which goes back to the host now: what was begun by [`later`](Self::later) in this call and is not
    /// it will not be asked for.
    pub fn into_bytes(self) -> Vec<u8> {
        executor::settle(&self.block);
        self.block
    }

    /// The host would refuse it, without saying where the mistake is.
    fn expect_decided(&self, code: u8) {
        assert!(
            code == op::STATE || self.block.first() != Some(&SUSPEND),
            "edits of a verdict that comes later belong into its future"
        );
    }

    fn of(verdict: u8) -> Self {
        Self {
            block: vec![verdict],
            phase: PhantomData,
        }
    }

    fn put(mut self, code: u8, name: &str, value: &[u8]) -> Self {
        self.expect_decided(code);
        write(&mut self.block, code, name, |out| {
            out.extend_from_slice(value)
        });
        self
    }
}

impl<P: Edits> Verdict<P> {
    /// Replaces every line of `name` by one.
    pub fn set(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.put(op::SET, name, value.as_ref())
    }

    /// One more line of `name` after those that are there.
    pub fn append(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.put(op::APPEND, name, value.as_ref())
    }

    /// A line of `name` when there is none.
    pub fn add(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.put(op::ADD, name, value.as_ref())
    }

    /// Removes every line of `name`.
    pub fn remove(self, name: &str) -> Self {
        self.put(op::REMOVE, name, b"")
    }

    /// Like [`set`](Self::set), with a value that is written in place, so that nothing is allocated for it.
    pub fn set_with(self, name: &str, value: impl FnOnce(&mut Value<'_>)) -> Self {
        self.put_with(op::SET, name, value)
    }

    /// Like [`append`](Self::append), with a value that is written in place.
    pub fn append_with(self, name: &str, value: impl FnOnce(&mut Value<'_>)) -> Self {
        self.put_with(op::APPEND, name, value)
    }

    /// Like [`add`](Self::add), with a value that is written in place.
    pub fn add_with(self, name: &str, value: impl FnOnce(&mut Value<'_>)) -> Self {
        self.put_with(op::ADD, name, value)
    }

    fn put_with(mut self, code: u8, name: &str, value: impl FnOnce(&mut Value<'_>)) -> Self {
        self.expect_decided(code);
        write(&mut self.block, code, name, |out| value(&mut Value { out }));
        self
    }
}

impl<P: Routes> Verdict<P> {
    /// Sends the exchange to `pool` instead of the listener's.
    pub fn pool(self, pool: Pool) -> Self {
        self.put(op::POOL, "", &pool.0.to_le_bytes())
    }

    /// Exchanges with the same key go to the same endpoint, whatever the pool's balancing. 1 to 1024 bytes: an empty
    /// key is left out, and of a longer one the first 1024 bytes count.
    pub fn sticky_key(self, key: impl AsRef<[u8]>) -> Self {
        let key = key.as_ref();
        if key.is_empty() {
            return self;
        }
        self.put(op::STICKY_KEY, "", &key[..key.len().min(1024)])
    }

    /// Prefers the endpoint at `address:port`. Ignored when the pool has no such endpoint that can be used.
    pub fn endpoint(self, address: &str) -> Self {
        self.put(op::ENDPOINT, "", address.as_bytes())
    }
}

impl<P: OfBody> Verdict<P> {
    /// Sends these bytes in place of what was shown; none at all make it vanish.
    pub fn replace(self, bytes: impl AsRef<[u8]>) -> Self {
        self.put(op::BODY, "", bytes.as_ref())
    }
}

impl Verdict<OnStreamData> {
    /// Sends these bytes in place of the piece; none at all make it vanish.
    pub fn replace(self, bytes: impl AsRef<[u8]>) -> Self {
        self.put(op::BODY, "", bytes.as_ref())
    }
}

impl<P: OfRequest> Verdict<P> {
    /// Replaces path and query. It must start with `/`.
    pub fn path(self, path_and_query: impl AsRef<[u8]>) -> Self {
        self.put(op::PATH, "", path_and_query.as_ref())
    }

    /// Like [`path`](Self::path), written in place.
    pub fn path_with(mut self, path_and_query: impl FnOnce(&mut Value<'_>)) -> Self {
        write(&mut self.block, op::PATH, "", |out| {
            path_and_query(&mut Value { out });
        });
        self
    }

    /// Replaces the authority that the upstream sees.
    pub fn authority(self, authority: impl AsRef<[u8]>) -> Self {
        self.put(op::AUTHORITY, "", authority.as_ref())
    }

    /// How long one try may take.
    pub fn try_timeout_ms(self, ms: u32) -> Self {
        self.put(op::TRY_TIMEOUT, "", &ms.to_le_bytes())
    }

    /// How long the exchange may take with all its tries.
    pub fn total_timeout_ms(self, ms: u32) -> Self {
        self.put(op::TOTAL_TIMEOUT, "", &ms.to_le_bytes())
    }

    /// At most so many tries after the first; more than 16 count as 16.
    pub fn retries(self, retries: u32) -> Self {
        self.put(op::RETRIES, "", &retries.to_le_bytes())
    }
}

impl<P: OfResponse> Verdict<P> {
    /// Replaces the status, 200 to 999.
    pub fn status(self, status: u16) -> Self {
        self.put(op::STATUS, "", &status.to_le_bytes())
    }
}

impl<P: Http> From<Reply> for Verdict<P> {
    fn from(reply: Reply) -> Self {
        Self {
            block: reply.block,
            phase: PhantomData,
        }
    }
}

/// An answer that the filter gives itself; the upstream is not contacted.
///
/// A filter that always gives the same reply builds it once in `configure` and clones it.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    block: Vec<u8>,
}

impl Reply {
    /// A reply with this status, 200 to 999, and no fields.
    pub fn new(status: u16) -> Self {
        let mut block = vec![REPLY];
        write(&mut block, op::STATUS, "", |out| {
            out.extend_from_slice(&status.to_le_bytes());
        });
        Self { block }
    }

    /// One more field line. Content-Length is the host's.
    pub fn field(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        write(&mut self.block, op::APPEND, name, |out| {
            out.extend_from_slice(value.as_ref());
        });
        self
    }

    pub fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        write(&mut self.block, op::BODY, "", |out| {
            out.extend_from_slice(body.as_ref());
        });
        self
    }
}

/// The value being written by one of the `…_with` methods.
#[derive(Debug)]
pub struct Value<'a> {
    out: &'a mut Vec<u8>,
}

impl Value<'_> {
    pub fn push(&mut self, bytes: impl AsRef<[u8]>) {
        self.out.extend_from_slice(bytes.as_ref());
    }

    /// Writes `number` in decimal.
    pub fn push_number(&mut self, mut number: u64) {
        let mut digits = [0u8; 20];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                break;
            }
        }
        self.out.extend_from_slice(&digits[at..]);
    }
}

thread_local! {
    /// The block of an earlier verdict that the host has read, for its allocation.
    static SPARE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Takes back the block of a verdict that was read.
pub(crate) fn give_back(mut block: Vec<u8>) {
    if (1..=SPARE_BYTES_MAX).contains(&block.capacity()) {
        block.clear();
        SPARE.set(block);
    }
}

/// Writes one operation. The lengths go in once the value is written.
fn write(block: &mut Vec<u8>, code: u8, name: &str, value: impl FnOnce(&mut Vec<u8>)) {
    if block.is_empty() {
        *block = SPARE.take();
        block.reserve(128);
        block.push(NEXT);
    }
    // A longer name is refused by the host in any case.
    let name = &name.as_bytes()[..name.len().min(usize::from(u16::MAX))];
    block.extend_from_slice(&[code, 0]);
    block.extend_from_slice(&(name.len() as u16).to_le_bytes());
    let length_at = block.len();
    block.extend_from_slice(&[0; 4]);
    // The host lowers its case where that is needed.
    block.extend_from_slice(name);
    let value_at = block.len();
    value(block);
    // A block of 4 GiB does not exist in a 32-bit guest.
    let len = u32::try_from(block.len() - value_at).unwrap_or(u32::MAX);
    block[length_at..length_at + 4].copy_from_slice(&len.to_le_bytes());
}
