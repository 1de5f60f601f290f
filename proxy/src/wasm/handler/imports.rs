//! What middleware imports: the handler behind it.

use http::Response;
use tokio::sync::oneshot;
use wasmtime::component::{Accessor, Linker, Resource};
use wasmtime_wasi_http::p3::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::{Error, p3};

use super::guest::Guest;
use super::upload::UploadBody;

/// Offers the imported `handle`. Guests without anything behind them are refused when they are loaded.
pub(super) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    linker
        .instance("wasi:http/handler@0.3.0")?
        .func_wrap_concurrent(
            "handle",
            |accessor, (request,): (Resource<p3::Request>,)| {
                Box::pin(async move { Ok((handle(accessor, request).await?,)) })
            },
        )
}

/// One call of the import, from the request's resource to the response's.
async fn handle(
    accessor: &Accessor<Guest>,
    request: Resource<p3::Request>,
) -> wasmtime::Result<Result<Resource<p3::Response>, ErrorCode>> {
    type Asked = Result<oneshot::Receiver<Response<UploadBody>>, ErrorCode>;
    let asked = accessor.with(|mut store| -> wasmtime::Result<Asked> {
        let request = store.data_mut().table().delete(request)?;
        let (sent, outcome) = oneshot::channel();
        let outcome = async { outcome.await.unwrap_or(Err(Error::ConnectionTerminated)) };
        let request = match request.into_http(&mut store, outcome) {
            Ok((request, _)) => request,
            Err(error) => return Ok(Err(error.downcast()?)),
        };
        let Some(asker) = store.data_mut().asker() else {
            return Ok(Err(ErrorCode::HttpRequestDenied));
        };
        Ok(asker.ask(request, sent))
    })?;
    let answered = match asked {
        Ok(answered) => answered.await,
        Err(code) => return Ok(Err(code)),
    };
    let Ok(response) = answered else {
        return Ok(Err(ErrorCode::ConnectionTerminated));
    };
    accessor.with(|mut store| {
        let (hooks, table) = store.data_mut().hooks_and_table();
        let (response, _) = p3::Response::from_http(hooks, response);
        Ok(Ok(table.push(response)?))
    })
}
