//! What a request in a handler costs, from its instance to the end of its response: of `wasi:http` 0.2 and of 0.3.
//!
//! `cargo bench -p sluicegate --bench handlers`. The guests are those of the tests, which answer `/` with a few bytes.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use http::Request;
use sluicegate::config::HandlerLimits;
use sluicegate::wasm::{Handler, HandlerCall, HandlerHost, LogSink, Piece};

const TARGET: &str = "wasm32-wasip2";

fn guest(name: &str) -> Vec<u8> {
    let krate = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/guests")
        .join(name);
    let status = Command::new(env!("CARGO"))
        .current_dir(&krate)
        .env_remove("CARGO_TARGET_DIR")
        .args(["build", "--quiet", "--release", "--locked"])
        .args(["--target", TARGET])
        .status()
        .expect("cargo runs");
    assert!(status.success(), "the guest {name} does not build");
    let built = format!("target/{TARGET}/release/{name}_guest.wasm");
    std::fs::read(krate.join(built)).expect("the guest")
}

/// One request for `target`; the bytes of the answer.
async fn ask(handler: &Arc<Handler>, label: &Arc<str>, target: &str) -> usize {
    let limits = HandlerLimits::default();
    let request = Request::get(format!("http://a.test{target}"))
        .body(())
        .expect("a request");
    let mut call = HandlerCall::new(handler, &limits, label, request, false, false);
    std::future::poll_fn(|cx| call.poll_head(cx))
        .await
        .expect("a head");
    let mut bytes = 0;
    loop {
        match std::future::poll_fn(|cx| call.poll_body(cx))
            .await
            .expect("a body")
        {
            Piece::Data(data) => bytes += data.len(),
            Piece::Trailers(_) => {}
            Piece::End => return bytes,
        }
    }
}

fn requests(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let host = HandlerHost::new(None, LogSink::tracing());
    let label: Arc<str> = "bench".into();
    for (name, version) in [("handler", "0.2"), ("service", "0.3")] {
        let handler = Handler::load(&host, name, &guest(name)).expect("a handler");
        c.bench_function(&format!("a request of {version}"), |b| {
            b.iter(|| runtime.block_on(ask(&handler, &label, "/")))
        });
    }
}

criterion_group!(benches, requests);
criterion_main!(benches);
