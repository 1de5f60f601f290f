//! Whether new connections should be sent here.

use hyper::StatusCode;

use crate::admin::Readiness;
use crate::admin::answer::{TEXT, reply};
use crate::admin::table::{Access, Route};

pub const ROUTE: Route = Route {
    access: Access::Read,
    path: "/ready",
    about: "200 `ready`, or 503 `starting` or `draining`",
    call: |call| {
        Box::pin(async move {
            let readiness = call.process.readiness();
            let status = match readiness {
                Readiness::Ready => StatusCode::OK,
                Readiness::Starting | Readiness::Draining => StatusCode::SERVICE_UNAVAILABLE,
            };
            reply(status, TEXT, format!("{}\n", readiness.as_str()))
        })
    },
};
