//! The readable phases: facts as records, answers as records. An answer is rewritten into the packed form, so that
//! both forms are checked and applied by the same code.

use super::bad_verdict::Kind;
use super::bindings::{
    Field, FieldEdit, ReadableFacts, Reply, RequestVerdict, ResponseVerdict, Route, TlsFacts,
};
use super::facts::{Fact, Facts, Shown};
use super::verdict::Writer;

/// Strings of the component model are Unicode: bytes that are not UTF-8 show as U+FFFD.
pub(super) fn facts(facts: &Facts<'_>) -> ReadableFacts {
    let optional = |fact| {
        facts
            .value(fact)
            .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    };
    let text = |fact| optional(fact).unwrap_or_default();
    ReadableFacts {
        listener: text(Fact::Listener),
        request_id: text(Fact::RequestId),
        scheme: text(Fact::Scheme),
        method: text(Fact::Method),
        authority: text(Fact::Authority),
        path: text(Fact::Path),
        query: optional(Fact::Query),
        client_address: text(Fact::ClientAddress),
        client_port: facts.client_port,
        peer_address: text(Fact::PeerAddress),
        peer_port: facts.peer_port,
        local_address: text(Fact::LocalAddress),
        local_port: facts.local_port,
        tls: facts.tls.then(|| TlsFacts {
            sni: optional(Fact::Sni),
            alpn: optional(Fact::Alpn),
            version: text(Fact::TlsVersion),
            client_subject: optional(Fact::ClientSubject),
        }),
        state: facts.state,
    }
}

pub(super) fn endpoint(facts: &Facts<'_>) -> Option<String> {
    facts
        .value(Fact::Endpoint)
        .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}

pub(super) fn fields(shown: Shown<'_>) -> Vec<Field> {
    shown
        .lines()
        .map(|(name, value)| Field {
            name: String::from_utf8_lossy(name).into_owned(),
            value: value.to_vec(),
        })
        .collect()
}

pub(super) fn pack_request(verdict: RequestVerdict) -> Vec<u8> {
    match verdict {
        RequestVerdict::Next => Vec::new(),
        RequestVerdict::Drop => Writer::new(Kind::Drop).finish(),
        RequestVerdict::Reset => Writer::new(Kind::Reset).finish(),
        RequestVerdict::Reply(reply) => pack_reply(&reply),
        RequestVerdict::Edit(edits) => {
            let mut block = Writer::new(Kind::Next);
            pack_fields(&mut block, &edits.fields);
            if let Some(path) = &edits.path {
                block.op(16, b"", path.as_bytes());
            }
            if let Some(authority) = &edits.authority {
                block.op(17, b"", authority.as_bytes());
            }
            if let Some(route) = &edits.route {
                pack_route(&mut block, route);
            }
            pack_state(&mut block, edits.state);
            block.finish()
        }
    }
}

pub(super) fn pack_response(verdict: ResponseVerdict) -> Vec<u8> {
    match verdict {
        ResponseVerdict::Next => Vec::new(),
        ResponseVerdict::Drop => Writer::new(Kind::Drop).finish(),
        ResponseVerdict::Reset => Writer::new(Kind::Reset).finish(),
        ResponseVerdict::Reply(reply) => pack_reply(&reply),
        ResponseVerdict::Edit(edits) => {
            let mut block = Writer::new(Kind::Next);
            if let Some(status) = edits.status {
                block.op(48, b"", &status.to_le_bytes());
            }
            pack_fields(&mut block, &edits.fields);
            pack_state(&mut block, edits.state);
            block.finish()
        }
    }
}

fn pack_reply(reply: &Reply) -> Vec<u8> {
    let mut block = Writer::new(Kind::Reply);
    block.op(48, b"", &reply.status.to_le_bytes());
    for field in &reply.fields {
        block.op(2, field.name.as_bytes(), &field.value);
    }
    block.op(49, b"", &reply.body);
    block.finish()
}

fn pack_fields(block: &mut Writer, edits: &[FieldEdit]) {
    for edit in edits {
        match edit {
            FieldEdit::Set(field) => block.op(1, field.name.as_bytes(), &field.value),
            FieldEdit::Append(field) => block.op(2, field.name.as_bytes(), &field.value),
            FieldEdit::Add(field) => block.op(3, field.name.as_bytes(), &field.value),
            FieldEdit::Remove(name) => block.op(4, name.as_bytes(), b""),
        };
    }
}

fn pack_route(block: &mut Writer, route: &Route) {
    let numbers = [
        (32, route.pool),
        (35, route.try_timeout_ms),
        (36, route.total_timeout_ms),
        (37, route.retries),
    ];
    for (code, number) in numbers {
        if let Some(number) = number {
            block.op(code, b"", &number.to_le_bytes());
        }
    }
    if let Some(key) = &route.sticky_key {
        block.op(33, b"", key);
    }
    if let Some(endpoint) = &route.endpoint {
        block.op(34, b"", endpoint.as_bytes());
    }
}

fn pack_state(block: &mut Writer, state: Option<u64>) {
    if let Some(state) = state {
        block.op(64, b"", &state.to_le_bytes());
    }
}
