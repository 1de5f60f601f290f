//! Whether the process can answer.

use hyper::StatusCode;

use crate::admin::answer::{TEXT, reply};
use crate::admin::table::{Access, Route};

pub const ROUTE: Route = Route {
    access: Access::Read,
    path: "/health",
    about: "200 as long as the process can answer",
    // The control thread answers, and no more is asked of it: a process that drains is healthy.
    call: |_| Box::pin(async { reply(StatusCode::OK, TEXT, "ok\n") }),
};
