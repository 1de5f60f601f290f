//! From this generation to the next.

use hyper::StatusCode;

use crate::admin::ReloadAnswer;
use crate::admin::answer::{JSON, error, reply};
use crate::admin::table::{Access, Route};

pub const ROUTE: Route = Route {
    access: Access::Change,
    path: "/reload",
    about: "200 or 422 with a JSON object that says what came of it",
    call: |call| {
        Box::pin(async move {
            let answer = call.process.reload().await;
            let status = match answer {
                ReloadAnswer::Done(_) => StatusCode::OK,
                ReloadAnswer::Refused(_) => StatusCode::UNPROCESSABLE_ENTITY,
            };
            match serde_json::to_vec(&answer) {
                Ok(body) => reply(status, JSON, body),
                Err(why) => error(StatusCode::INTERNAL_SERVER_ERROR, &why.to_string()),
            }
        })
    },
};
