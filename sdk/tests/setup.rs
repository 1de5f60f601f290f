//! What a filter says of its phases has to agree with the phases it has.

use sluicegate_sdk::testing::{Harness, TestRequest, TestResponse, json};
use sluicegate_sdk::{
    BodyMode, Diagnostics, Filter, OverCap, Phase, Request, RequestBody, RequestBodyVerdict,
    RequestVerdict, ResponseBody, ResponseBodyVerdict, Setup, TickVerdict,
};

const WHOLE: BodyMode = BodyMode::Whole {
    max: 100,
    over: OverCap::Refuse,
};

/// Sets up what its settings name.
struct Named;

#[sluicegate_sdk::filter]
impl Filter for Named {
    type Settings = Vec<String>;

    fn configure(said: Vec<String>, setup: &mut Setup) -> Result<Self, Diagnostics> {
        for what in &said {
            match &**what {
                "request_body" => setup.request_body(WHOLE),
                "response_body" => setup.response_body(WHOLE),
                "every" => setup.every(std::time::Duration::from_secs(1)),
                "skip tick" => setup.skip(Phase::Tick),
                other => panic!("{other}"),
            }
        }
        Ok(Self)
    }

    fn request(&mut self, request: &Request<'_>) -> RequestVerdict {
        let verdict = RequestVerdict::next();
        match request.field("X-Skip").and_then(|text| text.to_str()) {
            Some("request") => verdict.skip_request_body(),
            Some(_) => verdict.skip_response_body(),
            None => verdict,
        }
    }

    fn request_body(&mut self, _: &RequestBody<'_>) -> RequestBodyVerdict {
        RequestBodyVerdict::next().replace("seen")
    }

    fn tick(&mut self) -> TickVerdict {
        TickVerdict::next()
    }
}

/// Has a phase for the other body.
struct Response;

#[sluicegate_sdk::filter]
impl Filter for Response {
    type Settings = ();

    fn configure(_: (), setup: &mut Setup) -> Result<Self, Diagnostics> {
        setup.response_body(WHOLE);
        Ok(Self)
    }

    fn request(&mut self, _: &Request<'_>) -> RequestVerdict {
        RequestVerdict::next().skip_response_body()
    }

    fn response_body(&mut self, _: &ResponseBody<'_>) -> ResponseBodyVerdict {
        ResponseBodyVerdict::next().replace("seen")
    }
}

#[test]
fn a_phase_that_would_never_be_called_is_refused() {
    let refused = |said: serde_json::Value| match Harness::<Named>::new(said) {
        Ok(_) => String::new(),
        Err(problems) => format!("{problems:?}"),
    };
    assert_eq!(refused(json!(["request_body", "every"])), "");
    assert_eq!(refused(json!(["request_body", "skip tick"])), "");
    let never = refused(json!(["every"]));
    assert!(never.contains("the filter has `request_body`"), "{never}");
    let never = refused(json!(["request_body"]));
    assert!(never.contains("`Setup::every`"), "{never}");
    let missing = refused(json!(["request_body", "every", "response_body"]));
    assert!(
        missing.contains("`Setup::response_body` was called, and the filter has no"),
        "{missing}"
    );
}

#[test]
fn a_body_that_is_not_wanted_passes() {
    let mut filter = Harness::<Named>::new(json!(["request_body", "every"])).unwrap();
    let mut seen = |skip: Option<&str>| {
        let mut request = TestRequest::get("/");
        if let Some(skip) = skip {
            request = request.field("x-skip", skip);
        }
        let mut exchange = filter.exchange(request);
        exchange.request();
        exchange.request_body(["body"]).bytes().to_vec()
    };
    assert_eq!(seen(None), b"seen");
    assert_eq!(seen(Some("request")), b"body");
    assert_eq!(seen(Some("response")), b"seen");
    let mut other = Harness::<Response>::new(json!(null)).unwrap();
    let mut exchange = other.exchange(TestRequest::get("/"));
    let response = TestResponse::new(200);
    assert_eq!(exchange.response_body(&response, ["body"]).bytes(), b"seen");
    exchange.request();
    assert_eq!(exchange.response_body(&response, ["body"]).bytes(), b"body");
}
