//! What there is to ask for.

use hyper::StatusCode;

use crate::admin::answer::{TEXT, reply};
use crate::admin::table::{Access, Route};

pub const ROUTE: Route = Route {
    access: Access::Read,
    path: "/",
    about: "this table as text",
    call: |call| {
        let line = |route: &&Route| {
            format!(
                "{} {}: {}\n",
                route.access.method(),
                route.path,
                route.about
            )
        };
        let text: String = call.routes.iter().map(line).collect();
        Box::pin(async { reply(StatusCode::OK, TEXT, text) })
    },
};
