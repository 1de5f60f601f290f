//! Bodies and trailers that filters see, hold back, change and end.

mod ends;
mod flow;
mod hostile;
mod modes;
mod protocols;

use std::sync::OnceLock;

use sluicegate_tests::backend::{Backend, Received, response};
use sluicegate_tests::client::Response;
use sluicegate_tests::proxy::Start;

use super::components;
use super::rig::{Plan, Rig};

/// The guest of `tests/guests/bodies`, built once.
fn module() -> &'static [u8] {
    static MODULE: OnceLock<Vec<u8>> = OnceLock::new();
    MODULE.get_or_init(|| built("wasm32-unknown-unknown"))
}

fn built(triple: &str) -> Vec<u8> {
    components::filter("bodies", triple)
}

/// Settings of one filter of the chain, and what else stands beside its module.
fn filters(all: &[&str]) -> String {
    let filters: Vec<String> = all
        .iter()
        .map(|f| format!("{{module: bodies.wasm, {f}}}"))
        .collect();
    format!("filters: [{}]", filters.join(", "))
}

fn rig(backend: &Backend, all: &[&str]) -> Rig {
    Plan::new(&[backend.address()])
        .listener(&filters(all))
        .run_with(Start::new().file("bodies.wasm", module()))
}

fn post(rig: &Rig, body: &str) -> Response {
    rig.ask(format!(
        "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ))
}

fn chunked(rig: &Rig, chunks: &[&str], trailers: &str) -> Response {
    let body: String = chunks
        .iter()
        .map(|c| format!("{:x}\r\n{c}\r\n", c.len()))
        .collect();
    rig.ask(format!(
        "POST /x HTTP/1.1\r\nHost: x\r\nTrailer: x-a\r\nTransfer-Encoding: chunked\r\n\r\n{body}0\r\n{trailers}\r\n"
    ))
}

/// Answers what it was sent, so that the client sees it.
fn mirror() -> Backend {
    Backend::http_with(|r| response(200, &String::from_utf8_lossy(&r.body)))
}

fn last(backend: &Backend) -> Received {
    backend.received().pop().expect("a request")
}
