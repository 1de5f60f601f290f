//! Why an exchange or session ended the way it did: one short code for logs, metrics and `Proxy-Status`. And what the
//! system's errors are called before people.

/// The machine-readable reason of a failure. `as_str` is what the access log, metrics and filters see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No route: no pool was chosen by a filter and the listener has none.
    NoRoute,
    /// The pool has no endpoint that may be used.
    NoHealthyEndpoint,
    /// A limit of the pool or the listener was reached.
    Overload,
    ConnectRefused,
    ConnectTimeout,
    /// The upstream connection broke before a response head.
    UpstreamReset,
    UpstreamTls,
    /// The response head was malformed, over a limit, or ended early.
    UpstreamMalformed,
    ResponseTimeout,
    /// The response body ended early or broke; the client's response was aborted.
    UpstreamTruncated,
    TotalTimeout,
    /// The request was malformed; nothing was forwarded.
    BadRequest,
    UnknownCoding,
    HeadersTooLarge,
    TargetTooLong,
    ExpectationFailed,
    MethodNotAllowed,
    VersionNotSupported,
    RequestHeadTimeout,
    RequestBodyTimeout,
    /// The body of the request is larger than a filter takes.
    RequestTooLarge,
    /// The body of the response is larger than a filter takes; nothing of it was sent.
    ResponseTooLarge,
    /// The client went away first (logged with status 499).
    ClientGone,
    /// The HTTP/2 connection was ended because its client sent more frames, or cancelled more streams, than what it moved
    /// pays for (logged with status 499).
    ClientFlood,
    /// The HTTP/2 connection was ended because its client broke the protocol (logged with status 499).
    ClientProtocol,
    /// A filter trapped, ran out of its limits or answered nonsense, and its policy is `fail`.
    FilterFault,
    FilterReply,
    FilterDrop,
    FilterReset,
    /// A handler trapped, or gave no response, or not a whole one.
    HandlerFault,
    /// A handler ran or computed for longer than it may.
    HandlerTimeout,
    /// A TLS handshake with the client failed.
    TlsHandshake,
    IdleTimeout,
    /// The drain deadline cut it.
    Drained,
}

impl Reason {
    pub const ALL: &'static [Reason] = &[
        Reason::NoRoute,
        Reason::NoHealthyEndpoint,
        Reason::Overload,
        Reason::ConnectRefused,
        Reason::ConnectTimeout,
        Reason::UpstreamReset,
        Reason::UpstreamTls,
        Reason::UpstreamMalformed,
        Reason::ResponseTimeout,
        Reason::UpstreamTruncated,
        Reason::TotalTimeout,
        Reason::BadRequest,
        Reason::UnknownCoding,
        Reason::HeadersTooLarge,
        Reason::TargetTooLong,
        Reason::ExpectationFailed,
        Reason::MethodNotAllowed,
        Reason::VersionNotSupported,
        Reason::RequestHeadTimeout,
        Reason::RequestBodyTimeout,
        Reason::RequestTooLarge,
        Reason::ResponseTooLarge,
        Reason::ClientGone,
        Reason::ClientFlood,
        Reason::ClientProtocol,
        Reason::FilterFault,
        Reason::FilterReply,
        Reason::FilterDrop,
        Reason::FilterReset,
        Reason::HandlerFault,
        Reason::HandlerTimeout,
        Reason::TlsHandshake,
        Reason::IdleTimeout,
        Reason::Drained,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Reason::NoRoute => "no-route",
            Reason::NoHealthyEndpoint => "no-healthy-endpoint",
            Reason::Overload => "overload",
            Reason::ConnectRefused => "connect-refused",
            Reason::ConnectTimeout => "connect-timeout",
            Reason::UpstreamReset => "upstream-reset",
            Reason::UpstreamTls => "upstream-tls",
            Reason::UpstreamMalformed => "upstream-malformed",
            Reason::ResponseTimeout => "response-timeout",
            Reason::UpstreamTruncated => "upstream-truncated",
            Reason::TotalTimeout => "total-timeout",
            Reason::BadRequest => "bad-request",
            Reason::UnknownCoding => "unknown-coding",
            Reason::HeadersTooLarge => "headers-too-large",
            Reason::TargetTooLong => "target-too-long",
            Reason::ExpectationFailed => "expectation-failed",
            Reason::MethodNotAllowed => "method-not-allowed",
            Reason::VersionNotSupported => "version-not-supported",
            Reason::RequestHeadTimeout => "request-head-timeout",
            Reason::RequestBodyTimeout => "request-body-timeout",
            Reason::RequestTooLarge => "request-too-large",
            Reason::ResponseTooLarge => "response-too-large",
            Reason::ClientGone => "client-gone",
            Reason::ClientFlood => "client-flood",
            Reason::ClientProtocol => "client-protocol",
            Reason::FilterFault => "filter-fault",
            Reason::FilterReply => "filter-reply",
            Reason::FilterDrop => "filter-drop",
            Reason::FilterReset => "filter-reset",
            Reason::HandlerFault => "handler-fault",
            Reason::HandlerTimeout => "handler-timeout",
            Reason::TlsHandshake => "tls-handshake",
            Reason::IdleTimeout => "idle-timeout",
            Reason::Drained => "drained",
        }
    }

    /// True when an endpoint failed, so that its health should suffer.
    pub fn is_upstream(self) -> bool {
        matches!(
            self,
            Reason::ConnectRefused
                | Reason::ConnectTimeout
                | Reason::UpstreamReset
                | Reason::UpstreamTls
                | Reason::UpstreamMalformed
                | Reason::UpstreamTruncated
                | Reason::ResponseTimeout
        )
    }

    /// The status a client gets when nothing was sent yet; 499 is for the log alone.
    pub fn status(self) -> u16 {
        match self {
            Reason::NoRoute => 404,
            Reason::NoHealthyEndpoint | Reason::Overload | Reason::Drained => 503,
            Reason::ConnectRefused
            | Reason::UpstreamReset
            | Reason::UpstreamTls
            | Reason::UpstreamMalformed
            | Reason::UpstreamTruncated
            | Reason::HandlerFault
            | Reason::ResponseTooLarge => 502,
            Reason::ConnectTimeout
            | Reason::ResponseTimeout
            | Reason::TotalTimeout
            | Reason::HandlerTimeout => 504,
            Reason::BadRequest | Reason::TlsHandshake => 400,
            Reason::UnknownCoding => 501,
            Reason::HeadersTooLarge => 431,
            Reason::TargetTooLong => 414,
            Reason::ExpectationFailed => 417,
            Reason::MethodNotAllowed => 405,
            Reason::VersionNotSupported => 505,
            Reason::RequestHeadTimeout | Reason::RequestBodyTimeout | Reason::IdleTimeout => 408,
            Reason::RequestTooLarge => 413,
            Reason::ClientGone | Reason::ClientFlood | Reason::ClientProtocol => 499,
            Reason::FilterFault => 500,
            Reason::FilterReply | Reason::FilterDrop | Reason::FilterReset => 403,
        }
    }

    /// The error type of `Proxy-Status` (RFC 9209 §2.3) that says the same, where there is one.
    pub fn proxy_status(self) -> Option<&'static str> {
        Some(match self {
            Reason::NoRoute => "destination_not_found",
            Reason::NoHealthyEndpoint => "destination_unavailable",
            Reason::Overload => "connection_limit_reached",
            Reason::ConnectRefused => "connection_refused",
            Reason::ConnectTimeout => "connection_timeout",
            Reason::UpstreamReset => "connection_terminated",
            Reason::UpstreamTls => "tls_protocol_error",
            Reason::UpstreamMalformed => "http_protocol_error",
            Reason::UpstreamTruncated => "http_response_incomplete",
            Reason::ResponseTimeout | Reason::TotalTimeout | Reason::HandlerTimeout => {
                "http_response_timeout"
            }
            Reason::FilterFault | Reason::HandlerFault => "proxy_internal_error",
            Reason::ResponseTooLarge => "http_response_body_size",
            Reason::BadRequest
            | Reason::UnknownCoding
            | Reason::HeadersTooLarge
            | Reason::TargetTooLong
            | Reason::ExpectationFailed
            | Reason::MethodNotAllowed
            | Reason::VersionNotSupported
            | Reason::RequestHeadTimeout
            | Reason::RequestBodyTimeout
            | Reason::RequestTooLarge => "http_request_error",
            _ => return None,
        })
    }
}

/// An error of the system as people read it: without the number that only programs need.
pub fn why(error: &std::io::Error) -> String {
    let mut text = error.to_string();
    if error.raw_os_error().is_some()
        && let Some(at) = text.rfind(" (os error ")
    {
        text.truncate(at);
    }
    // It stands behind a colon.
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_lowercase();
    }
    text
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
