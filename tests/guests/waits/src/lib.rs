//! Waits for what a script says, step by step, and tells what came of it. The script of an exchange is its query: the
//! steps of the request phase, and behind a `|` those of the response phase. Steps are parted by `;`, their arguments
//! by `:`.
//!
//! | step | what |
//! | --- | --- |
//! | `sleep:MS` | sleeps |
//! | `both:MS` | two sleeps side by side |
//! | `call:PATH` | asks the pool, for 300 ms and 1000 bytes at most |
//! | `set:KEY:VALUE`, `get:KEY`, `incr:KEY`, `cas:KEY:EXPECTED:VALUE`, `del:KEY` | the store; `-` expects no value |
//! | `reply`, `drop`, `reset` | ends the exchange; a reply has what was said in its body |
//! | `live` | says how many scripts are waiting, this one among them |
//!
//! With `bodies` the steps are those of each piece of a body instead, which then has what was said before it.
//!
//! A path of `/panic` panics, before anything else.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use sluicegate_sdk::effect::{self, Error};
use sluicegate_sdk::http::{self, CallRequest};
use sluicegate_sdk::store::{self, Swap};
use sluicegate_sdk::{
    BodyMode, CalledPool, Diagnostics, Filter, OverCap, Phase, Reply, Request, RequestBody,
    RequestBodyVerdict, RequestVerdict, Response, ResponseBody, ResponseBodyVerdict,
    ResponseVerdict, Setup, Stream, StreamVerdict, Text, TickVerdict, log,
};

#[sluicegate_sdk::settings]
#[derive(Default)]
#[serde(default)]
pub struct Settings {
    /// The pool to call.
    pool: Option<String>,
    /// Whether the store is used.
    store: bool,
    /// The script of sessions.
    connect: Option<String>,
    /// `whole` or `transform`.
    bodies: Option<String>,
    /// The script of ticks.
    tick: Option<String>,
}

pub struct Waits {
    pool: Option<CalledPool>,
    connect: String,
    tick: String,
    live: Rc<Cell<u32>>,
}

/// A script that waits: counted, and it says so when it ends.
struct Script {
    steps: String,
    pool: Option<CalledPool>,
    live: Rc<Cell<u32>>,
    said: Vec<String>,
}

enum End {
    Next,
    Reply,
    Drop,
    Reset,
}

impl Script {
    fn new(filter: &Waits, steps: String) -> Self {
        filter.live.set(filter.live.get() + 1);
        Self {
            steps,
            pool: filter.pool,
            live: filter.live.clone(),
            said: Vec::new(),
        }
    }

    fn said(&self) -> String {
        self.said.join(" ")
    }

    async fn run(&mut self) -> End {
        let steps = std::mem::take(&mut self.steps);
        for step in steps.split(';').filter(|step| !step.is_empty()) {
            let arguments: Vec<&str> = step.split(':').collect();
            let said = match arguments[..] {
                ["sleep", ms] => {
                    effect::sleep(millis(ms)).await;
                    format!("slept{ms}")
                }
                ["both", ms] => {
                    effect::join(effect::sleep(millis(ms)), effect::sleep(millis(ms))).await;
                    "both".to_owned()
                }
                ["call", path] => self.call(path).await,
                ["set", key, value] => told(store::set(key, value, None).await.map(|()| "set")),
                ["get", key] => told(store::get(key).await.map(text)),
                ["incr", key] => told(store::increment(key, 1, None).await),
                ["del", key] => told(store::delete(key).await.map(|()| "deleted")),
                ["cas", key, expected, value] => {
                    let expected = (expected != "-").then_some(expected.as_bytes());
                    let swap = store::compare_and_set(key, expected, value, None).await;
                    told(swap.map(|swap| match swap {
                        Swap::Set => "set".to_owned(),
                        Swap::Differs(value) => text(value),
                    }))
                }
                ["live"] => format!("live={}", self.live.get()),
                ["reply"] => return End::Reply,
                ["drop"] => return End::Drop,
                ["reset"] => return End::Reset,
                _ => format!("?{step}"),
            };
            self.said.push(said);
        }
        End::Next
    }

    async fn call(&self, path: &str) -> String {
        let Some(pool) = self.pool else {
            return "no-pool".to_owned();
        };
        let request = CallRequest::post(path)
            .header("X-Asked-By", "waits")
            .body("question")
            .timeout(millis("300"))
            .response_max(1000);
        match http::call(pool, request).await {
            Ok(answer) => format!(
                "{}:{}",
                answer.status(),
                String::from_utf8_lossy(answer.body())
            ),
            Err(Error::Cancelled) => {
                log::info(format_args!("cancelled {path}"));
                "cancelled".to_owned()
            }
            Err(error) => error.to_string(),
        }
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        self.live.set(self.live.get() - 1);
    }
}

#[sluicegate_sdk::filter]
impl Filter for Waits {
    type Settings = Settings;

    fn configure(settings: Settings, setup: &mut Setup) -> Result<Self, Diagnostics> {
        if settings.store {
            setup.uses_store();
        }
        if settings.connect.is_some() || settings.bodies.is_some() {
            setup.skip(Phase::Request);
            setup.skip(Phase::Response);
        }
        if settings.connect.is_none() {
            setup.skip(Phase::Connect);
        }
        match settings.tick {
            Some(_) => setup.every(Duration::from_millis(100)),
            None => setup.skip(Phase::Tick),
        }
        let mode = match settings.bodies.as_deref() {
            None => BodyMode::Skip,
            Some("whole") => BodyMode::Whole {
                max: 1000,
                over: OverCap::Refuse,
            },
            Some(_) => BodyMode::Transform,
        };
        setup.request_body(mode);
        setup.response_body(mode);
        Ok(Self {
            pool: settings.pool.map(|name| setup.called_pool(&name, "/pool")),
            connect: settings.connect.unwrap_or_default(),
            tick: settings.tick.unwrap_or_default(),
            live: Rc::default(),
        })
    }

    fn request(&mut self, request: &Request<'_>) -> RequestVerdict {
        assert!(request.path() != "/panic", "as asked");
        let query = request.query().and_then(|query| query.to_str());
        let steps = query.unwrap_or("").split('|').next().unwrap_or("");
        let mut script = Script::new(self, steps.to_owned());
        RequestVerdict::later(async move {
            match script.run().await {
                End::Next => RequestVerdict::next().set("x-said", script.said()),
                End::Reply => Reply::new(200).body(script.said()).into(),
                End::Drop => RequestVerdict::drop(),
                End::Reset => RequestVerdict::reset(),
            }
        })
        .state(17)
    }

    fn response(&mut self, response: &Response<'_>) -> ResponseVerdict {
        // Without the state, its request phase failed and was bypassed.
        if response.state() != 17 {
            return ResponseVerdict::next();
        }
        let query = response.query().and_then(|query| query.to_str());
        let Some((_, steps)) = query.unwrap_or("").split_once('|') else {
            return ResponseVerdict::next();
        };
        let mut script = Script::new(self, steps.to_owned());
        ResponseVerdict::later(async move {
            match script.run().await {
                End::Next => ResponseVerdict::next().set("x-said", script.said()),
                End::Reply => Reply::new(200).body(script.said()).into(),
                End::Drop => ResponseVerdict::drop(),
                End::Reset => ResponseVerdict::reset(),
            }
        })
    }

    fn request_body(&mut self, body: &RequestBody<'_>) -> RequestBodyVerdict {
        let mut script = Script::new(self, steps(body.query(), 0));
        let bytes = body.bytes().to_vec();
        RequestBodyVerdict::later(async move {
            match script.run().await {
                End::Next => RequestBodyVerdict::next().replace(with(&script, &bytes)),
                End::Reply => Reply::new(200).body(script.said()).into(),
                End::Drop => RequestBodyVerdict::drop(),
                End::Reset => RequestBodyVerdict::reset(),
            }
        })
    }

    fn response_body(&mut self, body: &ResponseBody<'_>) -> ResponseBodyVerdict {
        let mut script = Script::new(self, steps(body.query(), 1));
        let bytes = body.bytes().to_vec();
        ResponseBodyVerdict::later(async move {
            match script.run().await {
                End::Next => ResponseBodyVerdict::next().replace(with(&script, &bytes)),
                End::Reply => Reply::new(200).body(script.said()).into(),
                End::Drop => ResponseBodyVerdict::drop(),
                End::Reset => ResponseBodyVerdict::reset(),
            }
        })
    }

    fn tick(&mut self) -> TickVerdict {
        let mut script = Script::new(self, self.tick.clone());
        TickVerdict::later(async move {
            script.run().await;
            log::info(format_args!("ticked: {}", script.said()));
            TickVerdict::next()
        })
    }

    fn connect(&mut self, _: &Stream<'_>) -> StreamVerdict {
        let mut script = Script::new(self, self.connect.clone());
        StreamVerdict::later(async move {
            match script.run().await {
                End::Next | End::Reply => StreamVerdict::next(),
                End::Drop => StreamVerdict::drop(),
                End::Reset => StreamVerdict::reset(),
            }
        })
    }
}

/// The part of the query that is for one direction.
fn steps(query: Option<Text<'_>>, direction: usize) -> String {
    let query = query.and_then(|query| query.to_str()).unwrap_or("");
    query.split('|').nth(direction).unwrap_or("").to_owned()
}

/// A piece behind what was said; an end without bytes stays without.
fn with(script: &Script, bytes: &[u8]) -> Vec<u8> {
    match bytes.is_empty() {
        true => Vec::new(),
        false => [b"[", script.said().as_bytes(), b"]", bytes].concat(),
    }
}

fn millis(text: &str) -> Duration {
    Duration::from_millis(text.parse().unwrap_or(0))
}

fn text(value: Option<Vec<u8>>) -> String {
    value.map_or("none".to_owned(), |value| {
        String::from_utf8_lossy(&value).into_owned()
    })
}

fn told(result: Result<impl ToString, Error>) -> String {
    match result {
        Ok(value) => value.to_string(),
        Err(error) => error.to_string(),
    }
}
