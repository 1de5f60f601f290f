//! The one record of an exchange, however it ended.

use super::{Exchange, Kind, request_facts};
use crate::chain::{LogFacts, ResponseFacts};
use crate::connection::Connection;
use crate::error::Reason;
use crate::generation::Service;
use crate::head::Version;
use crate::protocol::http::client_origin::Origin;
use crate::protocol::http::client_side::ClientSide;
use crate::protocol::http::h1::parse::Refusal;
use crate::telemetry::{self, Record};
use crate::wasm::Phase;
use std::time::{Duration, SystemTime};

impl<C: ClientSide> Exchange<'_, C> {
    /// Tells the filters that want to know of the end.
    fn tell_filters(&mut self, duration: Duration) {
        let journal = &self.journal;
        let service = self.service;
        if service.chain.wants(Phase::Log) {
            let facts = LogFacts {
                response: ResponseFacts {
                    request: request_facts(self.connection, &self.client, &self.id, self.framing),
                    version: self.head.version,
                    method: self.head.method(),
                    authority: self.head.authority(),
                    target: self.head.target(),
                    endpoint: journal.endpoint.as_deref().unwrap_or(""),
                    pool: journal.pool.as_ref().map_or("", |p| &*p.config.name),
                },
                status: journal.status,
                duration,
                bytes_in: journal.bytes_in,
                bytes_out: journal.bytes_out,
                reason: journal.reason,
                fields: journal.fields.as_ref(),
            };
            service.chain.log(&mut self.state, &facts);
        }
    }

    /// The one record of this exchange.
    fn record(&mut self, duration: Duration) {
        let journal = &self.journal;
        let service = self.service;
        service.metrics.request(
            journal.status,
            duration,
            journal.bytes_in,
            journal.bytes_out,
        );
        if let Some(reason) = journal.reason {
            service.metrics.reason(reason);
        }
        if !service.worker.logs() {
            return;
        }
        let (head, connection) = (&self.head, self.connection);
        service.worker.log(&Record {
            start: journal.started_at,
            duration,
            listener: &connection.listener,
            client: self.client.text(connection),
            peer: &connection.peer_text,
            request_id: self.id.as_str(),
            exchange: Some(telemetry::Exchange {
                method: head.method(),
                scheme: self.client.origin.scheme(),
                authority: head.authority(),
                target: head.target(),
                version: head.version,
                status: journal.status,
                user_agent: head.fields.get(b"user-agent"),
                referer: head.fields.get(b"referer"),
                upgraded: journal.upgraded,
                bad_byte: None,
            }),
            bytes_in: journal.bytes_in,
            bytes_out: journal.bytes_out,
            pool: journal.pool.as_ref().map(|p| &*p.config.name),
            endpoint: journal.endpoint.as_deref(),
            tries: journal.tries,
            filter_time: self.state.filter_time,
            filter_wait: self.state.filter_wait,
            upstream_time: (journal.tries > 0).then_some(journal.upstream_time),
            reason: journal.reason,
            tls_version: connection.tls.as_ref().map(|tls| tls.version),
            sni: connection.tls.as_ref().and_then(|tls| tls.sni.as_deref()),
            trace_id: head.fields.get(b"traceparent").and_then(trace_id),
        });
    }
}

/// The trace id of a `traceparent` field (W3C Trace Context §3.2).
fn trace_id(value: &[u8]) -> Option<&str> {
    let id = std::str::from_utf8(value.get(3..35)?).ok()?;
    id.bytes().all(|b| b.is_ascii_hexdigit()).then_some(id)
}

/// The record of a request that could not be read, or not be accepted as one.
pub fn record_refused(
    service: &Service,
    connection: &Connection,
    version: Version,
    refusal: Refusal,
) {
    let reason = refusal.reason;
    service.metrics.exchange_started();
    service
        .metrics
        .request(reason.status(), Duration::ZERO, 0, 0);
    service.metrics.reason(reason);
    service.worker.log(&Record {
        start: SystemTime::now(),
        duration: Duration::ZERO,
        listener: &connection.listener,
        client: &connection.peer_text,
        peer: &connection.peer_text,
        request_id: "",
        exchange: Some(telemetry::Exchange {
            method: b"",
            scheme: Origin::of_connection(connection).scheme(),
            authority: b"",
            target: b"",
            version,
            status: reason.status(),
            user_agent: None,
            referer: None,
            upgraded: false,
            bad_byte: refusal.byte,
        }),
        bytes_in: 0,
        bytes_out: 0,
        pool: None,
        endpoint: None,
        tries: 0,
        filter_time: Duration::ZERO,
        filter_wait: Duration::ZERO,
        upstream_time: None,
        reason: Some(reason),
        tls_version: connection.tls.as_ref().map(|tls| tls.version),
        sni: connection.tls.as_ref().and_then(|tls| tls.sni.as_deref()),
        trace_id: None,
    });
}

impl<C: ClientSide> Drop for Exchange<'_, C> {
    fn drop(&mut self) {
        if !matches!(self.kind, Kind::Call) {
            self.close();
        }
        let fields = std::mem::take(&mut self.head.fields);
        self.service.worker.give_back(fields.into_arena());
    }
}

impl<C: ClientSide> Exchange<'_, C> {
    /// The end of a client's or middleware's exchange, however it came.
    fn close(&mut self) {
        if !self.ended && self.journal.reason.is_none() {
            // The connection's task was ended under us: a drain deadline, or HTTP/2 cancelling the stream.
            let drained = self.service.worker.is_draining();
            self.journal.reason = Some(if drained {
                Reason::Drained
            } else {
                self.why_gone()
            });
            if !self.journal.head_sent && !drained {
                self.journal.status = Reason::ClientGone.status();
            }
        }
        self.adopt_all();
        let duration = self.journal.started.elapsed();
        self.tell_filters(duration);
        match &self.kind {
            Kind::Behind(inner) => self.publish(inner),
            _ => self.record(duration),
        }
    }
}
