//! The trait that every filter implements.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::handover::{NotRestored, Saved};
use crate::plan::{Diagnostics, Phases, Setup};
use crate::verdict::{
    RequestBodyVerdict, RequestVerdict, ResponseBodyVerdict, ResponseVerdict, StreamDataVerdict,
    StreamVerdict, TickVerdict, TrailersVerdict,
};
use crate::view::{
    Record, Request, RequestBody, RequestTrailers, Response, ResponseBody, ResponseTrailers,
    Stream, StreamData,
};

/// A filter: its settings, and the phases it takes part in.
///
/// Put [`#[sluicegate_sdk::filter]`](macro@crate::filter) on the impl. The attribute exports exactly the phases that
/// the impl writes out; the defaults here are never called.
///
/// The host makes one instance per worker thread and calls it for one exchange after the other, never from two places
/// at once and never from inside itself, so that `&mut self` needs no locks. An instance may be replaced at any time
/// (after a fault, on reload), so that what it remembers between exchanges is a cache, not a truth.
pub trait Filter: Sized + 'static {
    /// What stands under `settings:` in the YAML. [`#[settings]`](macro@crate::settings) derives what is needed.
    type Settings: DeserializeOwned + JsonSchema;

    /// Called once, before anything else. Everything that can be prepared belongs here: parsed templates, tables,
    /// ready-made replies.
    fn configure(settings: Self::Settings, setup: &mut Setup) -> Result<Self, Diagnostics>;

    /// The request head is there: after hop-by-hop fields are gone, before forwarding fields are written.
    fn request(&mut self, request: &Request<'_>) -> RequestVerdict {
        let _ = request;
        RequestVerdict::next()
    }

    /// The response head is there, before it is sent to the client.
    fn response(&mut self, response: &Response<'_>) -> ResponseVerdict {
        let _ = response;
        ResponseVerdict::next()
    }

    /// The body of a request that has one, in the way that [`Setup::request_body`] chose: at once, or piece by piece, each
    /// of at most 64 KiB as the network brought it. Without that choice it is not called.
    fn request_body(&mut self, body: &RequestBody<'_>) -> RequestBodyVerdict {
        let _ = body;
        RequestBodyVerdict::next()
    }

    /// The body of an endpoint's response that has one, in the way that [`Setup::response_body`] chose.
    fn response_body(&mut self, body: &ResponseBody<'_>) -> ResponseBodyVerdict {
        let _ = body;
        ResponseBodyVerdict::next()
    }

    /// The trailers of a request that has some, behind its body.
    fn request_trailers(&mut self, trailers: &RequestTrailers<'_>) -> TrailersVerdict {
        let _ = trailers;
        TrailersVerdict::next()
    }

    /// The trailers of a response that has some.
    fn response_trailers(&mut self, trailers: &ResponseTrailers<'_>) -> TrailersVerdict {
        let _ = trailers;
        TrailersVerdict::next()
    }

    /// The exchange ended, however it ended.
    fn log(&mut self, record: &Record<'_>) {
        let _ = record;
    }

    /// A connection was accepted, before TLS is looked at.
    fn connect(&mut self, stream: &Stream<'_>) -> StreamVerdict {
        let _ = stream;
        StreamVerdict::next()
    }

    /// The ClientHello was read, on a listener that peeks at TLS.
    fn client_hello(&mut self, stream: &Stream<'_>) -> StreamVerdict {
        let _ = stream;
        StreamVerdict::next()
    }

    /// The first bytes of the client are there, as many as [`Setup::first_bytes`] asked for, or fewer when the client
    /// ended or stayed silent.
    fn first_bytes(&mut self, stream: &Stream<'_>) -> StreamVerdict {
        let _ = stream;
        StreamVerdict::next()
    }

    /// A piece of the stream from the client to the endpoint, at most 64 KiB, cut as the network brought it.
    fn client_data(&mut self, data: &StreamData<'_>) -> StreamDataVerdict {
        let _ = data;
        StreamDataVerdict::next()
    }

    /// A piece of the stream from the endpoint to the client.
    fn server_data(&mut self, data: &StreamData<'_>) -> StreamDataVerdict {
        let _ = data;
        StreamDataVerdict::next()
    }

    /// Time went by: called at the interval that [`Setup::every`] asked for, on one worker of the proxy. It may wait for
    /// effects with [`TickVerdict::later`](crate::Verdict::later); there is no other tick meanwhile.
    fn tick(&mut self) -> TickVerdict {
        TickVerdict::next()
    }

    /// A reload replaces the filter: what the instance that takes its place on this worker is to know. It is called while
    /// exchanges of this instance may still run.
    fn save(&self) -> Option<Saved> {
        None
    }

    /// What the instance before saved, perhaps that of another build. An error is logged, and the filter goes on as it was
    /// configured.
    fn restore(&mut self, version: u32, state: &[u8]) -> Result<(), NotRestored> {
        let _ = (version, state);
        Err(NotRestored::new("this build takes no state"))
    }
}

/// Which phases a filter's impl wrote out. The attribute implements it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say which phases it exports",
    label = "this filter has no exports",
    note = "put `#[sluicegate_sdk::filter]` on `impl Filter for {Self}`"
)]
pub trait Exports {
    const PHASES: Phases;
}
