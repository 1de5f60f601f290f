//! A filter for the tests: does to bodies what its settings say.

use sluicegate_sdk::{
    BodyMode, Diagnostics, Filter, OverCap, Phase, Reply, Request, RequestBody, RequestBodyVerdict,
    RequestTrailers, RequestVerdict, Response, ResponseBody, ResponseBodyVerdict, ResponseTrailers,
    ResponseVerdict, Setup, TrailersVerdict,
};

/// What is done in each direction.
#[sluicegate_sdk::settings]
pub struct Settings {
    #[serde(default)]
    request: Option<Does>,
    #[serde(default)]
    response: Option<Does>,
    /// What is done with trailers in either direction, beside counting them.
    #[serde(default)]
    trailers: String,
    /// Bodies of requests for `/skip`, and of responses to them, or of responses with `x-skip`, are not wanted.
    #[serde(default)]
    skips: bool,
    /// Stands in what is marked.
    #[serde(default)]
    name: String,
}

/// One direction.
#[sluicegate_sdk::settings]
#[derive(Clone)]
pub struct Does {
    mode: String,
    /// The maximum of the modes that have one; else what the act is told.
    #[serde(default)]
    bytes: u32,
    #[serde(default)]
    over: String,
    act: String,
}

impl Does {
    fn mode(does: Option<&Does>) -> BodyMode {
        let Some(does) = does else {
            return BodyMode::Skip;
        };
        let over = match &*does.over {
            "bypass" => OverCap::Bypass,
            "refuse" => OverCap::Refuse,
            _ => OverCap::Fail,
        };
        match &*does.mode {
            "first" => BodyMode::First(does.bytes),
            "whole" => BodyMode::Whole {
                max: does.bytes,
                over,
            },
            "watch" => BodyMode::Watch,
            _ => BodyMode::Transform,
        }
    }
}

/// What the piece becomes.
enum Made {
    Same,
    Bytes(Vec<u8>),
    Reply,
    Drop,
    Reset,
}

fn act(does: Option<&Does>, name: &str, bytes: &[u8], last: bool) -> Made {
    let Some(does) = does else { return Made::Same };
    let has = |mark: &[u8; 4]| bytes.windows(4).any(|w| w == mark);
    match &*does.act {
        "upper" => Made::Bytes(bytes.to_ascii_uppercase()),
        "mark" => Made::Bytes([b"<", name.as_bytes(), b":", bytes, b">"].concat()),
        "end" if last => Made::Bytes([bytes, b"[end]"].concat()),
        "swallow" => Made::Bytes(Vec::new()),
        "grow" => Made::Bytes([bytes, bytes].concat()),
        "flood" => Made::Bytes(vec![b'x'; does.bytes as usize]),
        // Takes its time over each piece, of which nothing is left.
        "toil" => {
            for n in 0..does.bytes {
                std::hint::black_box(n);
            }
            Made::Bytes(Vec::new())
        }
        "spin" => loop {
            std::hint::black_box(last);
        },
        "fault" if has(b"TRAP") => panic!("as it was told"),
        "drop" if has(b"STOP") => Made::Drop,
        "reset" if has(b"STOP") => Made::Reset,
        "reply" => Made::Reply,
        _ => Made::Same,
    }
}

pub struct Bodies {
    settings: Settings,
}

fn holds(does: Option<&Does>) -> bool {
    does.is_some_and(|does| matches!(&*does.mode, "first" | "whole"))
}

/// What was shown, for a field.
fn seen(bytes: &[u8], last: bool, more: bool, calls: u64) -> String {
    let tail = match (last, more) {
        (true, false) => "last",
        (false, true) => "more",
        _ => "neither",
    };
    format!("{} {tail} {calls}", bytes.len())
}

#[sluicegate_sdk::filter]
impl Filter for Bodies {
    type Settings = Settings;

    fn configure(settings: Settings, setup: &mut Setup) -> Result<Self, Diagnostics> {
        if !settings.skips {
            setup.skip(Phase::Request);
            setup.skip(Phase::Response);
        }
        setup.request_body(Does::mode(settings.request.as_ref()));
        setup.response_body(Does::mode(settings.response.as_ref()));
        Ok(Self { settings })
    }

    fn request(&mut self, request: &Request<'_>) -> RequestVerdict {
        match request.path() == "/skip" {
            true => RequestVerdict::next()
                .skip_request_body()
                .skip_response_body(),
            false => RequestVerdict::next(),
        }
    }

    fn response(&mut self, response: &Response<'_>) -> ResponseVerdict {
        match response.field("X-Skip") {
            Some(_) => ResponseVerdict::next().skip_response_body(),
            None => ResponseVerdict::next(),
        }
    }

    fn request_body(&mut self, body: &RequestBody<'_>) -> RequestBodyVerdict {
        let does = self.settings.request.as_ref();
        let calls = body.state() + 1;
        let verdict = RequestBodyVerdict::next().state(calls);
        let verdict = match holds(does) {
            true => verdict
                .set(
                    "x-seen",
                    seen(body.bytes(), body.is_last(), body.has_more(), calls),
                )
                .path("/edited"),
            false => verdict,
        };
        match act(does, &self.settings.name, body.bytes(), body.is_last()) {
            Made::Same => verdict,
            Made::Bytes(bytes) => verdict.replace(bytes),
            Made::Reply => Reply::new(403)
                .body(format!("{} bytes are not wanted\n", body.bytes().len()))
                .into(),
            Made::Drop => RequestBodyVerdict::drop(),
            Made::Reset => RequestBodyVerdict::reset(),
        }
    }

    fn response_body(&mut self, body: &ResponseBody<'_>) -> ResponseBodyVerdict {
        let does = self.settings.response.as_ref();
        let calls = body.state() + 1;
        let verdict = ResponseBodyVerdict::next().state(calls);
        let verdict = match holds(does) {
            true => verdict
                .set(
                    "x-seen",
                    seen(body.bytes(), body.is_last(), body.has_more(), calls),
                )
                .status(203),
            false => verdict,
        };
        match act(does, &self.settings.name, body.bytes(), body.is_last()) {
            Made::Same => verdict,
            Made::Bytes(bytes) => verdict.replace(bytes),
            Made::Reply => Reply::new(451).body("not that\n").into(),
            Made::Drop => ResponseBodyVerdict::drop(),
            Made::Reset => ResponseBodyVerdict::reset(),
        }
    }

    fn request_trailers(&mut self, trailers: &RequestTrailers<'_>) -> TrailersVerdict {
        self.trailers(trailers.fields().count())
    }

    fn response_trailers(&mut self, trailers: &ResponseTrailers<'_>) -> TrailersVerdict {
        self.trailers(trailers.fields().count())
    }
}

impl Bodies {
    fn trailers(&self, count: usize) -> TrailersVerdict {
        match &*self.settings.trailers {
            "drop" => TrailersVerdict::drop(),
            "reset" => TrailersVerdict::reset(),
            "fault" => panic!("as it was told"),
            _ => TrailersVerdict::next()
                .set("x-trailers", format!("{count}"))
                .remove("x-gone"),
        }
    }
}
