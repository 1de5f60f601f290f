//! Limits how often a client, or whatever a header or cookie names, may ask.
//!
//! Each key has a token bucket. With `scope: shared` the buckets lie in the filter's store, which all workers share, and
//! with a Redis all proxies; with `scope: worker` each worker has its own.

use std::net::Ipv6Addr;
use std::time::Duration;

use sha2::{Digest, Sha256};
use sluicegate_sdk::store::{self, Swap};
use sluicegate_sdk::{
    Diagnostic, Diagnostics, Fact, Filter, Head, Http, Interest, Phase, Pointer, Reply, Request,
    RequestVerdict, Response, ResponseVerdict, Setup, Verdict, clock,
};

mod bucket;
mod local;

use bucket::{Decision, Rate};
use local::Buckets;

/// Keys that are longer are told by their digest.
const KEY_BYTES_MAX: usize = 128;
/// How often the bucket of one key may be changed by others while one request waits for it.
const TRIES_MAX: usize = 16;
const SECOND: u64 = 1_000_000_000;

/// Settings of `builtin:rate-limit`.
#[sluicegate_sdk::settings]
pub struct Settings {
    /// Requests in a time: `10/s`, `600/m` or `1000/h`.
    rate: String,
    /// Requests that may come at once; those of one `s`, `m` or `h` when left out.
    burst: Option<u32>,
    /// Whose requests are counted together.
    #[serde(default)]
    by: By,
    /// Who shares the buckets.
    #[serde(default)]
    scope: Scope,
    /// What a request over the limit gets.
    #[serde(default)]
    action: Action,
    /// Also tells the RateLimit fields in responses of requests that pass.
    #[serde(default)]
    headers: bool,
    /// What happens to requests without the header or cookie of `by`.
    #[serde(default)]
    missing: Missing,
    /// What happens when the store of a shared bucket does not answer.
    #[serde(default)]
    on_store_error: Missing,
}

/// `client`, `all`, or a map with `header` or `cookie`.
#[sluicegate_sdk::settings]
#[derive(Debug, Clone, Default)]
pub enum By {
    /// The client's address; of an IPv6 address the first 64 bits.
    #[default]
    Client,
    /// One bucket for everybody.
    All,
    /// The value of the first line of this header.
    Header(String),
    /// The value of this cookie.
    Cookie(String),
}

#[sluicegate_sdk::settings]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scope {
    /// All workers, and with a Redis as store all proxies whose filter has the same name.
    #[default]
    Shared,
    /// Each worker for itself.
    Worker,
}

#[sluicegate_sdk::settings]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Action {
    /// 429 with Retry-After and the RateLimit fields.
    #[default]
    Reply,
    /// Close without a byte.
    Drop,
    /// Close with a TCP reset.
    Reset,
}

#[sluicegate_sdk::settings]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Missing {
    /// They pass.
    #[default]
    Allow,
    /// They are refused like those over the limit.
    Deny,
}

pub struct RateLimit {
    rate: Rate,
    by: By,
    scope: Scope,
    limits: Limits,
    missing: Missing,
    buckets: Buckets,
}

/// What an answer needs beside the decision.
#[derive(Debug, Clone, Copy)]
struct Limits {
    rate: Rate,
    action: Action,
    headers: bool,
    on_store_error: Missing,
}

#[sluicegate_sdk::filter]
impl Filter for RateLimit {
    type Settings = Settings;

    fn configure(settings: Settings, setup: &mut Setup) -> Result<Self, Diagnostics> {
        let (count, period) = parse(&settings.rate)?;
        if settings.burst == Some(0) {
            let problem = Diagnostic::new(Pointer::root().key("burst"), "nothing could ever pass");
            setup.problem(problem.help("write at least 1, or leave it out"));
        }
        let field = match &settings.by {
            By::Header(name) => {
                setup.check_field(name, Pointer::root().key("by").key("header"));
                Some(name.to_ascii_lowercase())
            }
            By::Cookie(_) => Some("cookie".to_owned()),
            By::Client | By::All => None,
        };
        setup.request_fields(Interest::some(&field));
        setup.response_fields(Interest::None);
        setup.facts([Fact::ClientAddress]);
        if !settings.headers {
            setup.skip(Phase::Response);
        }
        if settings.scope == Scope::Shared {
            setup.uses_store();
        }
        let rate = Rate::new(count, period, settings.burst.unwrap_or(count));
        Ok(Self {
            rate,
            by: match (settings.by, field) {
                (By::Header(_), Some(name)) => By::Header(name),
                (by, _) => by,
            },
            scope: settings.scope,
            limits: Limits {
                rate,
                action: settings.action,
                headers: settings.headers,
                on_store_error: settings.on_store_error,
            },
            missing: settings.missing,
            buckets: Buckets::default(),
        })
    }

    fn request(&mut self, request: &Request<'_>) -> RequestVerdict {
        let Some(key) = self.by.key(request) else {
            return match self.missing {
                Missing::Allow => RequestVerdict::next(),
                Missing::Deny => self.limits.refusal(None),
            };
        };
        let limits = self.limits;
        match self.scope {
            Scope::Worker => {
                let now = nanoseconds(clock::monotonic());
                let decision = self.rate.take(self.buckets.get(&key), now);
                self.buckets.set(&key, decision.full_at);
                limits.verdict(decision)
            }
            Scope::Shared => RequestVerdict::later(async move {
                match shared(limits.rate, &key).await {
                    Some(decision) => limits.verdict(decision),
                    None if limits.on_store_error == Missing::Allow => RequestVerdict::next(),
                    None => limits.refusal(None),
                }
            }),
        }
    }

    fn response(&mut self, response: &Response<'_>) -> ResponseVerdict {
        match response.state() {
            0 => ResponseVerdict::next(),
            told => {
                let (remaining, reset) = (told as u32 - 1, (told >> 32) as u32);
                self.limits
                    .fields(ResponseVerdict::next(), remaining, reset)
            }
        }
    }
}

impl By {
    /// The key of the bucket; none when the request has no such header or cookie.
    fn key(&self, request: &Request<'_>) -> Option<Vec<u8>> {
        let (kind, value): (&[u8], Vec<u8>) = match self {
            By::Client => (b"c", network(request.client_address())),
            By::All => (b"a", Vec::new()),
            By::Header(name) => (b"h", request.field(name)?.as_bytes().to_vec()),
            By::Cookie(name) => (b"k", cookie(request, name)?.to_vec()),
        };
        let mut key = kind.to_vec();
        if value.len() > KEY_BYTES_MAX {
            key.extend_from_slice(b"#");
            key.extend_from_slice(&Sha256::digest(&value));
        } else {
            key.extend_from_slice(b":");
            key.extend_from_slice(&value);
        }
        Some(key)
    }
}

/// An address, or what of it one subscriber has: IPv6 networks are given out as /64 at least (RFC 6177).
fn network(address: &str) -> Vec<u8> {
    match address.parse::<Ipv6Addr>() {
        Ok(v6) => v6.octets()[..8].to_vec(),
        Err(_) => address.as_bytes().to_vec(),
    }
}

/// The first cookie of this name (RFC 6265 §4.2.1).
fn cookie<'a>(head: &Head<'a>, name: &str) -> Option<&'a [u8]> {
    head.fields_named("cookie")
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b';'))
        .find_map(|pair| {
            pair.trim_ascii()
                .strip_prefix(name.as_bytes())?
                .strip_prefix(b"=")
        })
}

/// Takes a token from a bucket in the store; none when the store fails, or when others are always faster.
async fn shared(rate: Rate, key: &[u8]) -> Option<Decision> {
    let mut there = store::get(key).await.ok()?;
    for _ in 0..TRIES_MAX {
        let full_at = match there.as_deref().map(<[u8; 8]>::try_from) {
            Some(Ok(bytes)) => u64::from_le_bytes(bytes),
            // None is a full bucket; what is no bucket is overwritten by one.
            _ => 0,
        };
        let decision = rate.take(full_at, nanoseconds(clock::now()));
        if !decision.passes {
            return Some(decision);
        }
        let value = decision.full_at.to_le_bytes();
        // A bucket that is full again is like none.
        let ttl = Duration::from_nanos(decision.reset_after) + Duration::from_millis(1);
        match store::compare_and_set(key, there.as_deref(), value, ttl)
            .await
            .ok()?
        {
            Swap::Set => return Some(decision),
            Swap::Differs(other) => there = other,
        }
    }
    None
}

impl Limits {
    fn verdict(self, decision: Decision) -> RequestVerdict {
        if !decision.passes {
            return self.refusal(Some(decision));
        }
        if !self.headers {
            return RequestVerdict::next();
        }
        let reset = seconds(decision.reset_after);
        // Never 0, which is what a request is that was not counted.
        let remaining = u64::from(decision.remaining.min(u32::MAX - 1) + 1);
        RequestVerdict::next().state(u64::from(reset) << 32 | remaining)
    }

    /// `decision` is none where nothing is known of a bucket.
    fn refusal(self, decision: Option<Decision>) -> RequestVerdict {
        match self.action {
            Action::Drop => RequestVerdict::drop(),
            Action::Reset => RequestVerdict::reset(),
            Action::Reply => {
                let reply = Reply::new(429).field("content-type", "text/plain; charset=utf-8");
                let Some(decision) = decision else {
                    return reply.body("too many requests\n").into();
                };
                let retry = seconds(decision.retry_after).max(1);
                let reply = reply
                    .field("retry-after", retry.to_string())
                    .body("too many requests\n");
                self.fields(
                    reply.into(),
                    decision.remaining,
                    seconds(decision.reset_after),
                )
            }
        }
    }

    /// Adds `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10).
    fn fields<P: Http>(self, verdict: Verdict<P>, remaining: u32, reset: u32) -> Verdict<P> {
        let (quota, window) = (self.rate.burst(), seconds(self.rate.window()).max(1));
        verdict
            .set(
                "ratelimit-policy",
                format!("\"default\";q={quota};w={window}"),
            )
            .set("ratelimit", format!("\"default\";r={remaining};t={reset}"))
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Whole seconds, rounded up.
fn seconds(nanoseconds: u64) -> u32 {
    u32::try_from(nanoseconds.div_ceil(SECOND)).unwrap_or(u32::MAX)
}

/// `COUNT/UNIT`: the count, and the nanoseconds of the unit.
fn parse(rate: &str) -> Result<(u32, u64), Diagnostic> {
    let (count, unit) = rate.split_once('/').unwrap_or((rate, ""));
    let period = match unit.trim() {
        "s" | "second" => Some(SECOND),
        "m" | "minute" => Some(60 * SECOND),
        "h" | "hour" => Some(3600 * SECOND),
        _ => None,
    };
    match (count.trim().parse::<u32>(), period) {
        (Ok(count @ 1..=1_000_000), Some(period)) => Ok((count, period)),
        _ => Err(Diagnostic::new(
            Pointer::root().key("rate"),
            format!("\"{rate}\" is no rate"),
        )
        .help("write requests in a time: \"10/s\", \"600/m\" or \"1000/h\", at most 1000000")),
    }
}

#[cfg(test)]
mod tests;
