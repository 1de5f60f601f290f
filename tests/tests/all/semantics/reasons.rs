//! How each reason comes about, as a table.

use sluicegate::error::Reason;

use crate::rig::TLS;

/// How one reason comes about.
pub struct Case {
    pub reason: Reason,
    /// The status in the record; none when nothing was sent.
    pub status: Option<u16>,
    /// Whether it is the proxy's own answer.
    pub answered: bool,
    /// The backend, by what it does with each connection.
    pub backend: Does,
    pub listener: &'static str,
    pub pool: &'static str,
    pub client: Client,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Does {
    /// Answers.
    Serve,
    /// Says nothing.
    Silence,
    /// Reads a head, says this and closes.
    Say(&'static str),
    /// Reads a head, says this and waits.
    Stall(&'static str),
    Refuse,
    /// Takes no connection.
    Full,
    /// There is no pool at all.
    Nothing,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Client {
    Sends(&'static str),
    /// Leaves once its request has arrived.
    Leaves,
    /// Another exchange holds the one place there is.
    Second,
    /// The process is told to end, twice.
    Drains,
}

const GET: Client = Client::Sends("GET /x HTTP/1.1\r\nHost: x\r\n\r\n");

const BASE: Case = Case {
    reason: Reason::NoRoute,
    status: None,
    answered: true,
    backend: Does::Serve,
    listener: "",
    pool: "retries: 0",
    client: GET,
};

pub fn cases() -> Vec<Case> {
    use Does::*;
    use Reason::*;
    let upstream = |reason, backend, status: u16| Case {
        reason,
        backend,
        status: Some(status),
        ..BASE
    };
    let refusal = |reason, status: u16, sent| Case {
        reason,
        status: Some(status),
        client: Client::Sends(sent),
        ..BASE
    };
    let blocks = |reason, listener, status, answered| Case {
        reason,
        status,
        answered,
        listener,
        ..BASE
    };
    vec![
        Case {
            listener: "filters: [{module: idle.wasm}]",
            ..upstream(NoRoute, Nothing, 404)
        },
        Case {
            pool: "check: {tcp: {}, interval: 1h}",
            ..upstream(NoHealthyEndpoint, Refuse, 503)
        },
        Case {
            pool: "max-connections: 1",
            client: Client::Second,
            ..upstream(Overload, Silence, 503)
        },
        upstream(ConnectRefused, Refuse, 502),
        Case {
            pool: "connect-timeout: 200ms\nretries: 0",
            ..upstream(ConnectTimeout, Full, 504)
        },
        upstream(UpstreamReset, Say(""), 502),
        upstream(UpstreamMalformed, Say("nonsense\r\n\r\n"), 502),
        Case {
            listener: "timeouts: {response-head: 200ms}",
            ..upstream(ResponseTimeout, Silence, 504)
        },
        Case {
            answered: false,
            ..upstream(
                UpstreamTruncated,
                Say("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"),
                200,
            )
        },
        Case {
            listener: "timeouts: {total: 200ms}",
            ..upstream(TotalTimeout, Silence, 504)
        },
        refusal(BadRequest, 400, "GET /x HTTP/1.1\r\n\r\n"),
        refusal(
            UnknownCoding,
            501,
            "POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
        ),
        Case {
            listener: "limits: {header-fields: 2}",
            ..refusal(
                HeadersTooLarge,
                431,
                "GET /x HTTP/1.1\r\nHost: x\r\nA: b\r\nC: d\r\n\r\n",
            )
        },
        Case {
            listener: "limits: {target-bytes: 64B}",
            ..refusal(
                TargetTooLong,
                414,
                "GET /0123456789012345678901234567890123456789012345678901234567890123456789 HTTP/1.1\r\nHost: x\r\n\r\n",
            )
        },
        refusal(
            ExpectationFailed,
            417,
            "GET /x HTTP/1.1\r\nHost: x\r\nExpect: a-pony\r\n\r\n",
        ),
        refusal(
            MethodNotAllowed,
            405,
            "CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n",
        ),
        refusal(
            VersionNotSupported,
            505,
            "GET /x HTTP/3.0\r\nHost: x\r\n\r\n",
        ),
        Case {
            listener: "timeouts: {head: 200ms}",
            ..refusal(RequestHeadTimeout, 408, "GET /x HTTP/1.1\r\nHost:")
        },
        Case {
            listener: "timeouts: {body-idle: 200ms}",
            ..refusal(
                RequestBodyTimeout,
                408,
                "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf",
            )
        },
        Case {
            answered: false,
            client: Client::Leaves,
            ..upstream(ClientGone, Silence, 499)
        },
        blocks(
            FilterFault,
            "filters: [{module: trap.wasm}]",
            Some(500),
            true,
        ),
        blocks(
            FilterReply,
            "filters: [{module: \"builtin:ua-block\", settings: {missing: deny, action: reply}}]",
            Some(403),
            false,
        ),
        blocks(
            FilterDrop,
            "filters: [{module: \"builtin:ua-block\", settings: {missing: deny, action: drop}}]",
            None,
            false,
        ),
        blocks(
            FilterReset,
            "filters: [{module: \"builtin:ua-block\", settings: {missing: deny, action: reset}}]",
            None,
            false,
        ),
        Case {
            listener: TLS,
            answered: false,
            ..refusal(TlsHandshake, 0, "no ClientHello")
        },
        Case {
            answered: false,
            listener: "timeouts: {stream-idle: 200ms}",
            ..upstream(
                IdleTimeout,
                Stall("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"),
                200,
            )
        },
        Case {
            status: None,
            answered: false,
            client: Client::Drains,
            ..upstream(Drained, Silence, 0)
        },
    ]
}

/// Reasons that other tests bring about: those of bodies are in `bodies.rs`, those of HTTP/2 in `grpc.rs`.
pub const ELSEWHERE: &[Reason] = &[
    Reason::UpstreamTls,
    Reason::HandlerFault,
    Reason::HandlerTimeout,
    Reason::RequestTooLarge,
    Reason::ResponseTooLarge,
    Reason::ClientFlood,
    Reason::ClientProtocol,
];
