//! What comes out of a handler.

use bytes::Bytes;
use http::HeaderMap;
use wasmtime_wasi_http::WasiBody;

/// What comes of a response's body.
pub enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
    End,
}

/// What a guest answers: a response, or the name of its error.
pub(super) type Answer = Result<http::Response<WasiBody>, String>;
