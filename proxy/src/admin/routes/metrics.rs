//! What the process has counted.

use hyper::StatusCode;
use hyper::header::{ACCEPT, HeaderValue, VARY};

use crate::admin::answer::reply;
use crate::admin::table::{Access, Route};
use crate::telemetry::Exposition;

pub const ROUTE: Route = Route {
    access: Access::Read,
    path: "/metrics",
    about: "OpenMetrics text, or the text format 0.0.4 for clients whose `Accept` prefers it or takes anything",
    call: |call| {
        Box::pin(async move {
            let accept = call.head.headers.get(ACCEPT);
            let accept = accept.map(|value| value.to_str().unwrap_or_default());
            let format = Exposition::accepted(accept);
            let text = call.process.metrics(format);
            let mut response = reply(StatusCode::OK, format.media_type(), text);
            let headers = response.headers_mut();
            headers.insert(VARY, HeaderValue::from_static("accept"));
            response
        })
    },
};
