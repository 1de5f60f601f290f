//! What a worker counts of a listener: connections, exchanges, sessions, and how they ended.

use std::time::Duration;

use super::exposition::Visitor;
use super::shards::Shard;
use crate::error::Reason;

/// Upper bounds of request durations in microseconds; one more bucket takes what is longer.
const DURATION_BOUNDS_US: [u64; 15] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000, 30_000_000,
];
/// `none` is an exchange that was answered nothing; `other` a status over 599.
const CODE_CLASSES: [&str; 7] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx", "other"];
const HANDSHAKES: [&str; 3] = ["full", "resumed", "failed"];

// Where each counter of a listener lies. What is counted later in a life has the higher index (see `Cells::add_to`).
const ACCEPTED: usize = 0;
const EXCHANGES: usize = 1;
const SESSIONS: usize = 2;
const SESSIONS_ENDED: usize = 3;
const BYTES_IN: usize = 4;
const BYTES_OUT: usize = 5;
const DURATION_US: usize = 6;
const HANDSHAKE: usize = 7;
const REASON: usize = HANDSHAKE + HANDSHAKES.len();
const BUCKET: usize = REASON + Reason::ALL.len();
const CODE: usize = BUCKET + DURATION_BOUNDS_US.len() + 1;
const GOAWAY: usize = CODE + CODE_CLASSES.len();
const CLOSED: usize = GOAWAY + GoAway::ALL.len();
pub(super) const LISTENER_CELLS: usize = CLOSED + 1;

/// A worker's counters of one listener. One per worker and listener; not shared between threads.
#[derive(Debug)]
pub struct ListenerMetrics(pub(super) Shard<LISTENER_CELLS>);

/// How a TLS handshake with a client ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handshake {
    Full,
    Resumed,
    Failed,
}

/// Why this side ends an HTTP/2 connection with GOAWAY.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GoAway {
    Drain,
    /// Nothing was asked for as long as `timeouts.keep-alive`.
    Idle,
    /// Frames that what was moved does not pay for.
    Flood,
    /// Streams that the client cancelled as soon as it had opened them.
    Cancellations,
    /// The client broke the protocol.
    Protocol,
}

impl GoAway {
    const ALL: [GoAway; 5] = [
        GoAway::Drain,
        GoAway::Idle,
        GoAway::Flood,
        GoAway::Cancellations,
        GoAway::Protocol,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            GoAway::Drain => "drain",
            GoAway::Idle => "idle",
            GoAway::Flood => "flood",
            GoAway::Cancellations => "cancellations",
            GoAway::Protocol => "protocol",
        }
    }
}

impl ListenerMetrics {
    pub fn name(&self) -> &str {
        self.0.name()
    }

    pub fn connection_opened(&self) {
        self.0.add(ACCEPTED, 1);
    }

    pub fn connection_closed(&self) {
        self.0.add(CLOSED, 1);
    }

    pub fn handshake(&self, how: Handshake) {
        self.0.add(HANDSHAKE + how as usize, 1);
    }

    /// A GOAWAY goes out to a client.
    pub fn goes_away(&self, why: GoAway) {
        self.0.add(GOAWAY + why as usize, 1);
    }

    /// An exchange began; [`ListenerMetrics::request`] ends it, exactly once.
    pub fn exchange_started(&self) {
        self.0.add(EXCHANGES, 1);
    }

    /// An exchange ended. `status` is what the client was sent: 499 when it went away, 0 when it was answered nothing.
    pub fn request(&self, status: u16, duration: Duration, bytes_in: u64, bytes_out: u64) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.0.add(BYTES_IN, bytes_in);
        self.0.add(BYTES_OUT, bytes_out);
        self.0.add(DURATION_US, us);
        self.0
            .add(BUCKET + DURATION_BOUNDS_US.partition_point(|&b| b < us), 1);
        let class = usize::from(status / 100).min(CODE_CLASSES.len() - 1);
        self.0.add(CODE + class, 1);
    }

    /// Why an exchange or session ended as it did, when there is a reason.
    pub fn reason(&self, reason: Reason) {
        self.0.add(REASON + reason as usize, 1);
    }

    /// A session began; [`ListenerMetrics::session_ended`] ends it, exactly once.
    pub fn session_started(&self) {
        self.0.add(SESSIONS, 1);
    }

    pub fn session_ended(&self, bytes_in: u64, bytes_out: u64) {
        self.0.add(BYTES_IN, bytes_in);
        self.0.add(BYTES_OUT, bytes_out);
        self.0.add(SESSIONS_ENDED, 1);
    }
}

/// Adds every family about `listener`.
pub(super) fn visit_listener(visitor: &mut Visitor, listener: &str, sums: &[u64; LISTENER_CELLS]) {
    let only = &[("listener", listener)];
    let codes = &sums[CODE..GOAWAY];
    let ended: u64 = codes.iter().sum();
    for (name, help, value) in [
        (
            "sluicegate_connections_accepted",
            "Client connections accepted",
            sums[ACCEPTED],
        ),
        ("sluicegate_sessions", "Sessions begun", sums[SESSIONS]),
        (
            "sluicegate_received_bytes",
            "Bytes of bodies and streams read from clients",
            sums[BYTES_IN],
        ),
        (
            "sluicegate_sent_bytes",
            "Bytes of bodies and streams written to clients",
            sums[BYTES_OUT],
        ),
    ] {
        visitor.counter(name, help, only, value);
    }
    for (name, help, begun, ended) in [
        (
            "sluicegate_connections_active",
            "Client connections open now",
            sums[ACCEPTED],
            sums[CLOSED],
        ),
        (
            "sluicegate_exchanges_active",
            "Exchanges running now",
            sums[EXCHANGES],
            ended,
        ),
        (
            "sluicegate_sessions_active",
            "Sessions running now",
            sums[SESSIONS],
            sums[SESSIONS_ENDED],
        ),
    ] {
        visitor.gauge(name, help, only, begun.saturating_sub(ended) as f64);
    }
    for (result, &count) in HANDSHAKES.iter().zip(&sums[HANDSHAKE..REASON]) {
        visitor.counter(
            "sluicegate_tls_handshakes",
            "TLS handshakes with clients",
            &[("listener", listener), ("result", result)],
            count,
        );
    }
    for (&code, &count) in CODE_CLASSES.iter().zip(codes) {
        visitor.counter(
            "sluicegate_requests",
            "Exchanges ended, by class of the status the client got",
            &[("listener", listener), ("code", code)],
            count,
        );
    }
    for (why, &count) in GoAway::ALL.iter().zip(&sums[GOAWAY..CLOSED]) {
        // Most never happen: a series begins with its first count.
        if count > 0 {
            visitor.counter(
                "sluicegate_http2_goaways",
                "HTTP/2 connections of clients that this side ended with GOAWAY, by reason",
                &[("listener", listener), ("reason", why.as_str())],
                count,
            );
        }
    }
    for (&reason, &count) in Reason::ALL.iter().zip(&sums[REASON..BUCKET]) {
        // Most never happen: a series begins with its first count.
        if count > 0 {
            visitor.counter(
                "sluicegate_endings",
                "Exchanges, sessions and handshakes that ended for a reason of their own: failures, and filters that \
                 replied, dropped or reset",
                &[("listener", listener), ("reason", reason.as_str())],
                count,
            );
        }
    }
    let bounds = DURATION_BOUNDS_US.iter().map(|&us| us as f64 / 1e6);
    let buckets = bounds
        .chain([f64::INFINITY])
        .zip(sums[BUCKET..CODE].iter().copied())
        .collect();
    visitor.histogram(
        "sluicegate_request_duration_seconds",
        "From the first byte of a request to the end of its response",
        only,
        buckets,
        sums[DURATION_US] as f64 / 1e6,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_cell() {
        for (i, &reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(reason as usize, i, "{reason}");
        }
    }
}
