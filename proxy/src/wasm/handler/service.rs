//! A request to a component of `wasi:http/service` 0.3.

use http::uri::Scheme;
use tokio::sync::oneshot;
use wasmtime::Store;
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::p3::Request;
use wasmtime_wasi_http::p3::bindings::ServicePre;

use super::guest::Guest;
use super::piece::Answer;
use super::upload::UploadBody;

/// From the instance to the end of its function, and then for as long as it is polled: the tasks that write the response's
/// body run beside it. The response goes through `answers`.
pub(super) async fn handle(
    pre: ServicePre<Guest>,
    mut store: Store<Guest>,
    request: http::Request<UploadBody>,
    secure: bool,
    answers: oneshot::Sender<Answer>,
) -> wasmtime::Result<()> {
    let service = pre.instantiate_async(&mut store).await?;
    let (mut request, _) = Request::from_http(store.data_mut().http().hooks, request);
    request.scheme = Some(match secure {
        true => Scheme::HTTPS,
        false => Scheme::HTTP,
    });
    let called = store.run_concurrent(async |accessor| {
        let answer = match service.handle(accessor, request).await? {
            Ok(response) => {
                // Whoever reads the body ends the guest with it: there is nobody left to be told how that went.
                let taken = std::future::pending();
                Ok(accessor.with(|store| response.into_http(store, taken))?)
            }
            Err(code) => Err(format!("{code:?}")),
        };
        let whole = answer.is_err();
        let _ = answers.send(answer);
        if !whole {
            std::future::pending::<()>().await;
        }
        wasmtime::Result::Ok(())
    });
    called.await?
}
