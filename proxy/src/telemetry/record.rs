//! One line of the access log: what an exchange or session was, and how it is written in each format.

use std::time::{Duration, SystemTime};

use super::clock::Clock;
use super::escape::{push_json, push_quoted, push_word};
use crate::config::LogFormat;
use crate::error::Reason;
use crate::head::Version;

/// Bytes of a request target that are logged; what is longer ends in `...`.
pub const TARGET_BYTES_MAX: usize = 4096;
/// Bytes of any other text that comes from outside.
pub const TEXT_BYTES_MAX: usize = 1024;

/// An exchange (`exchange` is set) or a session that ended. Borrows everything: making and writing one allocates nothing.
///
/// It has no place for `authorization`, `cookie` or `set-cookie`: what is not taken cannot leak. The query is part of
/// the target and is logged.
#[derive(Debug, Clone)]
pub struct Record<'a> {
    pub start: SystemTime,
    pub duration: Duration,
    pub listener: &'a str,
    /// The client's address after trust rules.
    pub client: &'a str,
    /// Who opened the connection, when that is not the client itself.
    pub peer: &'a str,
    /// Empty for sessions.
    pub request_id: &'a str,
    pub exchange: Option<Exchange<'a>>,
    /// Bytes of bodies (or of the relayed stream), read from the client and written to it.
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub pool: Option<&'a str>,
    /// The endpoint of the last try.
    pub endpoint: Option<&'a str>,
    /// Tries at endpoints; 0 when none was made.
    pub tries: u32,
    /// Time spent in filters.
    pub filter_time: Duration,
    /// What filters waited for beside that: calls, stores, sleep.
    pub filter_wait: Duration,
    /// From the request sent to the response head of the last try.
    pub upstream_time: Option<Duration>,
    pub reason: Option<Reason>,
    /// `1.2` or `1.3`.
    pub tls_version: Option<&'a str>,
    pub sni: Option<&'a str>,
    /// Trace id of `traceparent`.
    pub trace_id: Option<&'a str>,
}

/// The HTTP part of a [`Record`].
#[derive(Debug, Clone)]
pub struct Exchange<'a> {
    /// Empty when the request line could not be read, as `authority` and `target` then are.
    pub method: &'a [u8],
    /// What the client asked with, `http` or `https`; a trusted proxy may have said so.
    pub scheme: &'a str,
    pub authority: &'a [u8],
    pub target: &'a [u8],
    pub version: Version,
    /// What the client was sent; 499 when it went away first; 0 when it was answered nothing.
    pub status: u16,
    pub user_agent: Option<&'a [u8]>,
    pub referer: Option<&'a [u8]>,
    /// The connection became another protocol's (`101`).
    pub upgraded: bool,
    /// The byte of the target for which the request was refused, and its place from 0.
    pub bad_byte: Option<(u8, usize)>,
}

impl Record<'_> {
    /// Appends the record's line with its newline. The line is bounded (64 KiB at worst, usually 300 bytes).
    pub fn write(&self, format: LogFormat, clock: &mut Clock, out: &mut Vec<u8>) {
        match format {
            LogFormat::Text => self.write_text(clock, out),
            LogFormat::Json => self.write_json(clock, out),
            LogFormat::Combined => self.write_combined(clock, out),
        }
        out.push(b'\n');
    }

    /// The time, then the request as one reads it, then `key=value` of what is known.
    fn write_text(&self, clock: &mut Clock, out: &mut Vec<u8>) {
        clock.push_rfc3339(out, self.start);
        space_word(out, self.listener.as_bytes());
        space_word(out, self.client.as_bytes());
        match &self.exchange {
            Some(exchange) => {
                space_word(out, exchange.method);
                out.push(b' ');
                push_word(out, exchange.authority, TEXT_BYTES_MAX);
                if !exchange.target.is_empty() {
                    push_word(out, exchange.target, TARGET_BYTES_MAX);
                }
                out.push(b' ');
                out.extend_from_slice(exchange.version.as_str().as_bytes());
                out.push(b' ');
                match exchange.status {
                    0 => out.push(b'-'),
                    status => push_number(out, status.into()),
                }
            }
            None => out.extend_from_slice(b" session"),
        }
        out.push(b' ');
        push_millis(out, self.duration);
        out.extend_from_slice(b"ms in=");
        push_number(out, self.bytes_in);
        out.extend_from_slice(b" out=");
        push_number(out, self.bytes_out);
        let word = |out: &mut Vec<u8>, key: &str, value: &str| {
            if !value.is_empty() {
                out.push(b' ');
                out.extend_from_slice(key.as_bytes());
                out.push(b'=');
                push_word(out, value.as_bytes(), TEXT_BYTES_MAX);
            }
        };
        word(out, "pool", self.pool.unwrap_or_default());
        word(out, "endpoint", self.endpoint.unwrap_or_default());
        out.extend_from_slice(b" tries=");
        push_number(out, self.tries.into());
        out.extend_from_slice(b" filter_us=");
        push_number(out, micros(self.filter_time));
        if !self.filter_wait.is_zero() {
            out.extend_from_slice(b" filter_wait_us=");
            push_number(out, micros(self.filter_wait));
        }
        if let Some(time) = self.upstream_time {
            out.extend_from_slice(b" upstream_us=");
            push_number(out, micros(time));
        }
        word(out, "reason", self.reason.map_or("", Reason::as_str));
        if self.peer != self.client {
            word(out, "peer", self.peer);
        }
        let own_scheme = self.tls_version.map_or("http", |_| "https");
        if let Some(exchange) = &self.exchange
            && exchange.scheme != own_scheme
        {
            word(out, "scheme", exchange.scheme);
        }
        word(out, "tls", self.tls_version.unwrap_or_default());
        word(out, "sni", self.sni.unwrap_or_default());
        word(out, "id", self.request_id);
        word(out, "trace", self.trace_id.unwrap_or_default());
        if let Some(exchange) = &self.exchange {
            if exchange.upgraded {
                out.extend_from_slice(b" upgraded");
            }
            if let Some((byte, at)) = exchange.bad_byte {
                out.extend_from_slice(b" bad_byte=");
                push_byte(out, byte);
                out.extend_from_slice(b" bad_byte_at=");
                push_number(out, at as u64);
            }
            for (key, value) in [("ua", exchange.user_agent), ("referer", exchange.referer)] {
                if let Some(value) = value {
                    out.push(b' ');
                    out.extend_from_slice(key.as_bytes());
                    out.extend_from_slice(b"=\"");
                    push_quoted(out, value, TEXT_BYTES_MAX);
                    out.push(b'"');
                }
            }
        }
    }

    /// One object; what is unknown is left out, except that an exchange always has `status` (null for no answer).
    fn write_json(&self, clock: &mut Clock, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"time\":\"");
        clock.push_rfc3339(out, self.start);
        out.extend_from_slice(b"\",\"kind\":\"");
        let kind: &[u8] = match self.exchange {
            Some(_) => b"exchange",
            None => b"session",
        };
        out.extend_from_slice(kind);
        out.push(b'"');
        json_text(out, "listener", Some(self.listener.as_bytes()));
        json_text(out, "client", Some(self.client.as_bytes()));
        if self.peer != self.client {
            json_text(out, "peer", Some(self.peer.as_bytes()));
        }
        json_text(out, "request_id", some_text(self.request_id));
        json_text(out, "trace_id", self.trace_id.map(str::as_bytes));
        if let Some(exchange) = &self.exchange {
            json_text(out, "method", Some(exchange.method));
            json_text(out, "scheme", Some(exchange.scheme.as_bytes()));
            json_text(out, "authority", Some(exchange.authority));
            json_key(out, "target");
            out.push(b'"');
            push_json(out, exchange.target, TARGET_BYTES_MAX);
            out.push(b'"');
            json_text(out, "version", Some(exchange.version.as_str().as_bytes()));
            json_key(out, "status");
            match exchange.status {
                0 => out.extend_from_slice(b"null"),
                status => push_number(out, status.into()),
            }
            json_text(out, "user_agent", exchange.user_agent);
            json_text(out, "referer", exchange.referer);
            if exchange.upgraded {
                json_key(out, "upgraded");
                out.extend_from_slice(b"true");
            }
            if let Some((byte, at)) = exchange.bad_byte {
                json_key(out, "bad_byte");
                out.push(b'"');
                push_byte(out, byte);
                out.push(b'"');
                json_number(out, "bad_byte_at", at as u64);
            }
        }
        json_number(out, "bytes_in", self.bytes_in);
        json_number(out, "bytes_out", self.bytes_out);
        json_number(out, "duration_us", micros(self.duration));
        json_number(out, "filter_us", micros(self.filter_time));
        if !self.filter_wait.is_zero() {
            json_number(out, "filter_wait_us", micros(self.filter_wait));
        }
        if let Some(time) = self.upstream_time {
            json_number(out, "upstream_us", micros(time));
        }
        json_text(out, "pool", self.pool.map(str::as_bytes));
        json_text(out, "endpoint", self.endpoint.map(str::as_bytes));
        json_number(out, "tries", self.tries.into());
        json_text(out, "reason", self.reason.map(|r| r.as_str().as_bytes()));
        json_text(out, "tls", self.tls_version.map(str::as_bytes));
        json_text(out, "sni", self.sni.map(str::as_bytes));
        out.push(b'}');
    }

    /// NCSA combined. A drop has status 444, since readers want a number there and that one means "closed without an
    /// answer" to them; a session has `-` for its request and status 000.
    fn write_combined(&self, clock: &mut Clock, out: &mut Vec<u8>) {
        push_word(out, self.client.as_bytes(), TEXT_BYTES_MAX);
        out.extend_from_slice(b" - - [");
        clock.push_common(out, self.start);
        out.extend_from_slice(b"] \"");
        match &self.exchange {
            Some(exchange) if !exchange.method.is_empty() => {
                push_quoted(out, exchange.method, TEXT_BYTES_MAX);
                out.push(b' ');
                push_word(out, exchange.target, TARGET_BYTES_MAX);
                out.push(b' ');
                out.extend_from_slice(match exchange.version {
                    Version::Http2 => b"HTTP/2.0",
                    other => other.as_str().as_bytes(),
                });
            }
            _ => out.push(b'-'),
        }
        out.extend_from_slice(b"\" ");
        match self.exchange.as_ref().map(|e| e.status) {
            Some(0) => out.extend_from_slice(b"444"),
            Some(status) => push_number(out, status.into()),
            None => out.extend_from_slice(b"000"),
        }
        out.push(b' ');
        push_number(out, self.bytes_out);
        let exchange = self.exchange.as_ref();
        for value in [
            exchange.and_then(|e| e.referer),
            exchange.and_then(|e| e.user_agent),
        ] {
            out.extend_from_slice(b" \"");
            match value {
                Some(value) if !value.is_empty() => push_quoted(out, value, TEXT_BYTES_MAX),
                _ => out.push(b'-'),
            }
            out.push(b'"');
        }
    }
}

fn some_text(value: &str) -> Option<&[u8]> {
    (!value.is_empty()).then_some(value.as_bytes())
}

fn space_word(out: &mut Vec<u8>, value: &[u8]) {
    out.push(b' ');
    push_word(out, value, TEXT_BYTES_MAX);
}

fn json_key(out: &mut Vec<u8>, key: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(b"\":");
}

fn json_text(out: &mut Vec<u8>, key: &str, value: Option<&[u8]>) {
    if let Some(value) = value {
        json_key(out, key);
        out.push(b'"');
        push_json(out, value, TEXT_BYTES_MAX);
        out.push(b'"');
    }
}

fn json_number(out: &mut Vec<u8>, key: &str, value: u64) {
    json_key(out, key);
    push_number(out, value);
}

/// `0x3c`
fn push_byte(out: &mut Vec<u8>, byte: u8) {
    let digit = |n: u8| b"0123456789abcdef"[usize::from(n)];
    out.extend_from_slice(&[b'0', b'x', digit(byte >> 4), digit(byte & 15)]);
}

fn push_number(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Milliseconds with three decimals.
fn push_millis(out: &mut Vec<u8>, time: Duration) {
    let us = micros(time);
    push_number(out, us / 1000);
    let rest = us % 1000;
    out.extend_from_slice(&[
        b'.',
        b'0' + (rest / 100) as u8,
        b'0' + (rest / 10 % 10) as u8,
        b'0' + (rest % 10) as u8,
    ]);
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::UNIX_EPOCH;

    pub fn sample<'a>() -> Record<'a> {
        Record {
            start: UNIX_EPOCH + Duration::from_millis(1_795_446_000_123),
            duration: Duration::from_micros(1234),
            listener: "web",
            client: "203.0.113.9",
            peer: "10.0.0.1",
            request_id: "abc123",
            exchange: Some(Exchange {
                method: b"GET",
                scheme: "https",
                authority: b"www.example.org",
                target: b"/a?b=c",
                version: Version::Http11,
                status: 200,
                user_agent: Some(b"curl/8 \"x\"\n"),
                referer: None,
                upgraded: false,
                bad_byte: None,
            }),
            bytes_in: 0,
            bytes_out: 512,
            pool: Some("web"),
            endpoint: Some("10.1.0.1:80"),
            tries: 1,
            filter_time: Duration::from_micros(12),
            filter_wait: Duration::ZERO,
            upstream_time: Some(Duration::from_micros(800)),
            reason: None,
            tls_version: Some("1.3"),
            sni: Some("www.example.org"),
            trace_id: None,
        }
    }

    fn line(record: &Record, format: LogFormat) -> String {
        let mut out = Vec::new();
        record.write(format, &mut Clock::default(), &mut out);
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn text() {
        assert_eq!(
            line(&sample(), LogFormat::Text),
            "2026-11-23T15:00:00.123Z web 203.0.113.9 GET www.example.org/a?b=c HTTP/1.1 200 1.234ms in=0 out=512 \
             pool=web endpoint=10.1.0.1:80 tries=1 filter_us=12 upstream_us=800 peer=10.0.0.1 tls=1.3 \
             sni=www.example.org id=abc123 ua=\"curl/8 \\x22x\\x22\\x0a\"\n"
        );
    }

    #[test]
    fn combined() {
        assert_eq!(
            line(&sample(), LogFormat::Combined),
            "203.0.113.9 - - [23/Nov/2026:15:00:00 +0000] \"GET /a?b=c HTTP/1.1\" 200 512 \"-\" \
             \"curl/8 \\x22x\\x22\\x0a\"\n"
        );
        let mut dropped = sample();
        if let Some(exchange) = &mut dropped.exchange {
            exchange.status = 0;
            exchange.version = Version::Http2;
            exchange.user_agent = None;
        }
        assert_eq!(
            line(&dropped, LogFormat::Combined),
            "203.0.113.9 - - [23/Nov/2026:15:00:00 +0000] \"GET /a?b=c HTTP/2.0\" 444 512 \"-\" \"-\"\n"
        );
    }

    #[test]
    fn json() {
        let value: serde_json::Value =
            serde_json::from_str(&line(&sample(), LogFormat::Json)).expect("JSON");
        assert_eq!(value["time"], "2026-11-23T15:00:00.123Z");
        assert_eq!(value["kind"], "exchange");
        assert_eq!(value["status"], 200);
        assert_eq!(value["user_agent"], "curl/8 \"x\"\n");
        assert_eq!(value["duration_us"], 1234);
        assert_eq!(value["upstream_us"], 800);
        assert_eq!(value.get("reason"), None);
    }

    #[test]
    fn a_scheme_that_is_not_the_connection_s_is_told() {
        let mut record = sample();
        assert!(!line(&record, LogFormat::Text).contains("scheme="));
        record.tls_version = None;
        let text = line(&record, LogFormat::Text);
        assert!(text.contains(" peer=10.0.0.1 scheme=https "), "{text}");
        let value: serde_json::Value =
            serde_json::from_str(&line(&record, LogFormat::Json)).expect("JSON");
        assert_eq!(value["scheme"], "https");
    }

    #[test]
    fn what_filters_waited_for_is_told_apart() {
        let mut record = sample();
        record.filter_wait = Duration::from_micros(5000);
        let text = line(&record, LogFormat::Text);
        assert!(
            text.contains(" filter_us=12 filter_wait_us=5000 "),
            "{text}"
        );
        let value: serde_json::Value =
            serde_json::from_str(&line(&record, LogFormat::Json)).expect("JSON");
        assert_eq!(value["filter_wait_us"], 5000);
    }

    #[test]
    fn sessions() {
        let mut session = sample();
        session.exchange = None;
        session.reason = Some(Reason::IdleTimeout);
        let text = line(&session, LogFormat::Text);
        assert!(text.contains(" session 1.234ms "), "{text}");
        assert!(text.contains(" reason=idle-timeout "), "{text}");
        let value: serde_json::Value =
            serde_json::from_str(&line(&session, LogFormat::Json)).expect("JSON");
        assert_eq!(value["kind"], "session");
        assert_eq!(value.get("status"), None);
        assert!(line(&session, LogFormat::Combined).contains("\"-\" 000 512 \"-\" \"-\"\n"));
    }

    #[test]
    fn a_request_that_could_not_be_read() {
        let mut record = sample();
        record.exchange = Some(Exchange {
            method: b"",
            scheme: "http",
            authority: b"",
            target: b"",
            version: Version::Http11,
            status: 400,
            user_agent: None,
            referer: None,
            upgraded: false,
            bad_byte: Some((b'<', 7)),
        });
        assert!(line(&record, LogFormat::Text).contains(" 203.0.113.9 - - HTTP/1.1 400 "));
        assert!(line(&record, LogFormat::Text).contains(" bad_byte=0x3c bad_byte_at=7"));
        let json = line(&record, LogFormat::Json);
        assert!(
            json.contains("\"bad_byte\":\"0x3c\",\"bad_byte_at\":7"),
            "{json}"
        );
        assert!(line(&record, LogFormat::Combined).contains("] \"-\" 400 "));
    }

    proptest! {
        #[test]
        fn one_line_whatever_came_in(
            method in proptest::collection::vec(any::<u8>(), 0..20),
            target in proptest::collection::vec(any::<u8>(), 0..9000),
            agent in proptest::collection::vec(any::<u8>(), 0..2000),
            sni in ".*",
        ) {
            let mut record = sample();
            record.sni = Some(&sni);
            let Some(exchange) = &mut record.exchange else { unreachable!() };
            exchange.method = &method;
            exchange.target = &target;
            exchange.user_agent = Some(&agent);
            for format in [LogFormat::Text, LogFormat::Json, LogFormat::Combined] {
                let line = line(&record, format);
                prop_assert!(line.len() < 40_000);
                prop_assert_eq!(line.find(|c: char| c.is_control()), Some(line.len() - 1));
                match format {
                    LogFormat::Json => {
                        serde_json::from_str::<serde_json::Value>(&line).expect("JSON");
                    }
                    LogFormat::Combined => prop_assert_eq!(line.matches('"').count(), 6),
                    LogFormat::Text => prop_assert_eq!(line.matches('"').count(), 2),
                }
            }
        }
    }
}
