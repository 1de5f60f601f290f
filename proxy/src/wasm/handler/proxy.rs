//! A request to a component of `wasi:http/proxy` 0.2.

use http::Request;
use tokio::sync::oneshot;
use wasmtime::Store;
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;

use super::guest::Guest;
use super::piece::Answer;
use super::upload::UploadBody;

/// From the instance to the end of its function; the response goes through `answers` in between.
pub(super) async fn handle(
    pre: ProxyPre<Guest>,
    mut store: Store<Guest>,
    request: Request<UploadBody>,
    secure: bool,
    answers: oneshot::Sender<Answer>,
) -> wasmtime::Result<()> {
    let scheme = match secure {
        true => Scheme::Https,
        false => Scheme::Http,
    };
    let mut http = store.data_mut().http();
    let request = http.new_incoming_request(scheme, request)?;
    let answer = http.new_response_outparam_from_callback(move |answer| {
        let _ = answers.send(answer.map_err(|code| format!("{code:?}")));
    })?;
    let proxy = pre.instantiate_async(&mut store).await?;
    let called = proxy
        .wasi_http_incoming_handler()
        .call_handle(&mut store, request, answer);
    called.await
}
