//! An HTTP request, step by step as `http::exchange` takes it.

use std::sync::Arc;

use crate::chain::{Outcome as Decided, Reply, RequestFacts, ResponseFacts, Subject, Suspension};
use crate::connection::Connection;
use crate::error::Reason;
use crate::generation::{Generation, Member, RequestId};
use crate::head::{RequestHead, ResponseHead, Version};
use crate::protocol::http::client_origin::Origin;
use crate::protocol::http::exchange::{
    allowed_upgrade, body_framing, host_for, is_bodiless, request_facts,
};
use crate::protocol::http::forward::{self, Arrived};
use crate::protocol::http::h1::framing::Framing;
use crate::protocol::http::h1::parse::ParsedRequest;
use crate::protocol::http::h1::write::{self, BodyFraming, Persistence};
use crate::protocol::http::{grpc, respond};
use crate::wasm::Phase;

use super::arrival::{connection, read};
use super::compare;
use super::effects;
use super::route;
use super::walk::Walk;
use super::{
    Asked, Choice, Explanation, Kind, Later, ListenerTold, Message, Outcome, RouteTold, Step,
};

/// Stands for the id that is made anew for each request.
const REQUEST_ID: &[u8] = b"00000000000000000000000000000000";

/// What would become of the request.
pub fn explain_request(
    generation: &Arc<Generation>,
    choice: &Choice,
    asked: &Asked,
) -> Explanation {
    let connection = connection(choice, asked);
    let mut teller = Teller {
        generation,
        choice,
        connection: &connection,
        walk: Walk::new(generation, &choice.listener),
        steps: Vec::new(),
        assumed: Vec::new(),
        client: connection.peer_text.clone(),
        route: None,
    };
    if let Some(sni) = connection.tls.as_ref().map(|tls| tls.sni.as_deref()) {
        teller.assumed.push(format!(
            "TLS 1.3 and HTTP/1.1 are agreed on, {}",
            match sni {
                Some(name) => format!("with the server name \"{name}\""),
                None => "without a server name".to_owned(),
            }
        ));
    }
    for member in generation.chain(&choice.listener) {
        if let Member::Middleware(middleware) = member {
            teller.assumed.push(format!(
                "the middleware \"{}\", which is not run here, passes the request and its response on as they are",
                middleware.name()
            ));
        }
    }
    let outcome = match read(choice, asked) {
        Ok(parsed) => teller.exchange(parsed),
        Err(reason) => teller.refused(reason),
    };
    teller.finish(outcome)
}

struct Teller<'a> {
    generation: &'a Arc<Generation>,
    choice: &'a Choice,
    connection: &'a Connection,
    walk: Walk,
    steps: Vec<Step>,
    assumed: Vec<String>,
    client: String,
    route: Option<RouteTold>,
}

/// A request past its head: what every phase is told of it.
struct Told<'a> {
    facts: RequestFacts<'a>,
    framing: Framing,
    hop: &'a forward::Hop,
}

impl Teller<'_> {
    fn exchange(&mut self, parsed: ParsedRequest) -> Outcome {
        let (mut head, framing) = (parsed.head, parsed.framing);
        let options = &self.choice.listener.config.http;
        let before = head.clone();
        let Arrived { client, id, hop } = forward::arrive(self.connection, options, &mut head);
        let own = Origin::of_connection(self.connection);
        let mut changes = compare::origins(own, client.origin);
        changes.extend(compare::requests(&before, &head));
        self.own_step("receive", changes);
        self.client = client.text(self.connection).to_owned();
        let Some(id) = id.or_else(|| RequestId::from_client(REQUEST_ID)) else {
            return self.refused(Reason::BadRequest);
        };
        let connection = self.connection;
        let told = Told {
            facts: request_facts(connection, &client, &id, framing),
            framing,
            hop: &hop,
        };
        match self.request_filters(&told, &mut head) {
            (_, Decided::Continue) => {}
            (by, Decided::Reply(reply)) => {
                return self.reply(&told, &head, reply, by, Reason::FilterReply);
            }
            (by, Decided::Drop) => return drop_by(by),
            (by, Decided::Reset) => return reset_by(by),
            (by, Decided::Fault { .. }) => {
                return self.failure(&told, &head, Reason::FilterFault, by);
            }
            (_, Decided::Suspend(suspension)) => return suspended(self.generation, &suspension),
        }
        let routed = route::find(
            self.generation,
            &self.choice.listener.config,
            &self.walk.route,
            &self.walk.chosen,
            client.ip,
        );
        let routed = match routed {
            Ok(routed) => routed,
            Err(reason) => return self.failure(&told, &head, reason, None),
        };
        self.route = Some(routed.told);
        let Some(authority) = routed.authority else {
            return self.failure(&told, &head, Reason::NoHealthyEndpoint, None);
        };
        let mut before = head.clone();
        // It is written anew with the body's framing.
        before.fields.remove(b"content-length");
        forward::depart(self.connection, options, &client, id.as_str(), &mut head);
        self.own_step("forward", compare::requests(&before, &head));
        let mut bytes = Vec::new();
        write::request(
            &mut bytes,
            &head,
            host_for(&head, &routed.pool.config, &authority).as_ref(),
            body_framing(told.framing),
            allowed_upgrade(head.version, told.hop, options, &routed.pool.config).as_deref(),
            told.hop.trailers,
        );
        Outcome::Forward {
            request: message(&bytes, None),
        }
    }

    /// The request phase, filter by filter; with the filter that ended it.
    fn request_filters(
        &mut self,
        told: &Told<'_>,
        head: &mut RequestHead,
    ) -> (Option<String>, Decided) {
        let Walk {
            members,
            route,
            chosen,
            ..
        } = &mut self.walk;
        for member in members {
            let (head_before, route_before) = (head.clone(), route.clone());
            let filter = member.filter.clone();
            let predicate = &filter.plan().predicate;
            let subject = Subject {
                head: Some(head),
                client: told.facts.client,
            };
            member.matched = !matches!(predicate.matches(&subject), Ok(false));
            let (outcome, seen) = member.run(route, |chain, state| {
                chain.request(state, &told.facts, head)
            });
            chosen.note(&filter, &route_before, route);
            let mut changes = compare::requests(&head_before, head);
            changes.extend(compare::routes(&route_before, route, self.generation));
            let step = member.step("request", seen, changes, || match member.matched {
                false => format!("it wants only requests where {}", shortened(predicate)),
                true => "it does not want the request phase".to_owned(),
            });
            self.steps.push(step);
            if !matches!(outcome, Decided::Continue) {
                return (Some(filter.name().to_string()), outcome);
            }
        }
        (None, Decided::Continue)
    }

    /// A failure that the proxy answers itself.
    fn failure(
        &mut self,
        told: &Told<'_>,
        head: &RequestHead,
        reason: Reason,
        by: Option<String>,
    ) -> Outcome {
        let via = &self.choice.listener.config.http.via;
        let reply = respond::failure(reason, via, told.facts.request_id);
        self.reply(told, head, reply, by, reason)
    }

    /// A reply passes the response filters, last to first, as a response of an endpoint would.
    fn reply(
        &mut self,
        told: &Told<'_>,
        request: &RequestHead,
        reply: Reply,
        mut by: Option<String>,
        mut reason: Reason,
    ) -> Outcome {
        let mut body = reply.body;
        let mut head = ResponseHead {
            version: Version::Http11,
            status: reply.status,
            fields: reply.fields,
        };
        let route = &mut self.walk.route;
        for member in self.walk.members.iter_mut().rev() {
            let facts = ResponseFacts {
                request: told.facts,
                version: request.version,
                method: request.method(),
                authority: request.authority(),
                target: request.target(),
                endpoint: "",
                pool: self.route.as_ref().map_or("", |route| &route.pool),
            };
            if !member.matched || !member.filter.plan().wants(Phase::Response) {
                continue;
            }
            let before = head.clone();
            let (outcome, seen) = member.run(route, |chain, state| {
                chain.response(state, &facts, &mut head)
            });
            let name = Some(member.filter.name().to_string());
            match outcome {
                Decided::Continue => {}
                Decided::Reply(instead) => {
                    head.status = instead.status;
                    head.fields = instead.fields;
                    body = instead.body;
                    (by, reason) = (name, Reason::FilterReply);
                }
                Decided::Drop => {
                    self.steps
                        .push(member.step("response", seen, Vec::new(), String::new));
                    return drop_by(name);
                }
                Decided::Reset => {
                    self.steps
                        .push(member.step("response", seen, Vec::new(), String::new));
                    return reset_by(name);
                }
                Decided::Fault { .. } => {
                    self.steps
                        .push(member.step("response", seen, Vec::new(), String::new));
                    let via = &self.choice.listener.config.http.via;
                    let own = respond::failure(Reason::FilterFault, via, told.facts.request_id);
                    head.status = own.status;
                    head.fields = own.fields;
                    return answer(request, head, own.body, name, Reason::FilterFault);
                }
                Decided::Suspend(suspension) => {
                    self.steps
                        .push(member.step("response", seen, Vec::new(), String::new));
                    return suspended(self.generation, &suspension);
                }
            }
            let changes = compare::responses(&before, &head);
            let step = member.step("response", seen, changes, || {
                "it ended the request itself".to_owned()
            });
            self.steps.push(step);
        }
        answer(request, head, body, by, reason)
    }

    /// A head that cannot be served: it is answered before any filter, and without a request id.
    fn refused(&mut self, reason: Reason) -> Outcome {
        let reply = respond::failure(reason, &self.choice.listener.config.http.via, "");
        let mut bytes = Vec::new();
        write::response(
            &mut bytes,
            reply.status,
            &reply.fields,
            BodyFraming::Length(reply.body.len() as u64),
            Persistence::Close,
        );
        Outcome::Reply {
            by: None,
            reason: reason.as_str(),
            response: message(&bytes, Some(&reply.body)),
        }
    }

    fn own_step(&mut self, phase: &'static str, changes: Vec<super::Change>) {
        self.steps.push(Step {
            phase,
            filter: None,
            verdict: None,
            because: None,
            changes,
        });
    }

    fn finish(mut self, outcome: Outcome) -> Explanation {
        let forwarded = matches!(outcome, Outcome::Forward { .. });
        let wanting = |phase: Phase| -> Vec<String> {
            let members = self.walk.members.iter().rev();
            members
                .filter(|m| m.matched && m.filter.plan().wants(phase))
                .map(|m| m.filter.name().to_string())
                .collect()
        };
        let forwarded_to = |phase: Phase| match forwarded {
            true => wanting(phase),
            false => Vec::new(),
        };
        let mut request_body = forwarded_to(Phase::RequestBody);
        request_body.reverse();
        let later = Later {
            request_body,
            response: forwarded_to(Phase::Response),
            response_body: forwarded_to(Phase::ResponseBody),
            log: wanting(Phase::Log),
        };
        let writes_id = |step: &Step| {
            let mut changes = step.changes.iter();
            changes.any(|c| c.change == Kind::Add && c.name.as_deref() == Some("x-request-id"))
        };
        if self.steps.iter().any(writes_id) {
            let note = "each request gets an id of its own; zeros stand for it, so that a share by weight may fall otherwise";
            self.assumed.push(note.to_owned());
        }
        assume(&mut self.assumed, &self.steps, self.route.as_ref());
        Explanation {
            listener: listener_told(self.choice),
            peer: self.connection.peer.to_string(),
            client: self.client,
            steps: self.steps,
            route: self.route,
            outcome,
            later,
            assumed: self.assumed,
        }
    }
}

/// What is assumed about everything but the request itself.
pub(super) fn assume(assumed: &mut Vec<String>, steps: &[Step], route: Option<&RouteTold>) {
    if route.is_some_and(|route| route.of > 0) {
        assumed.push("no endpoint is checked here: every one counts as up and idle".to_owned());
    }
    if steps.iter().any(|step| step.filter.is_some()) {
        assumed.push("filters are new: what running ones remember is not known".to_owned());
    }
}

pub(super) fn listener_told(choice: &Choice) -> ListenerTold {
    let config = &choice.listener.config;
    ListenerTold {
        name: config.name.to_string(),
        address: choice.address.to_string(),
        protocol: crate::protocol::of(config).name(),
        tls: config.tls.is_some(),
    }
}

/// The predicate in words, cut when there is no end to it.
fn shortened(predicate: &impl std::fmt::Display) -> String {
    const CHARACTERS_MAX: usize = 300;
    let text = predicate.to_string();
    match text.char_indices().nth(CHARACTERS_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

fn answer(
    request: &RequestHead,
    head: ResponseHead,
    body: bytes::Bytes,
    by: Option<String>,
    reason: Reason,
) -> Outcome {
    let (mut head, mut body) = (head, body);
    if grpc::is_call(request.fields.get(b"content-type")) {
        let reply = grpc::answer(Reply {
            status: head.status,
            fields: head.fields,
            body,
        });
        (head.status, head.fields, body) = (reply.status, reply.fields, reply.body);
    }
    let status = head.status;
    let framing = if is_bodiless(status) {
        BodyFraming::None
    } else {
        BodyFraming::Length(body.len() as u64)
    };
    let bodiless = is_bodiless(status) || request.method() == b"HEAD";
    let mut bytes = Vec::new();
    write::response(
        &mut bytes,
        status,
        &head.fields,
        framing,
        Persistence::Implied,
    );
    Outcome::Reply {
        by,
        reason: reason.as_str(),
        response: message(&bytes, (!bodiless).then_some(&body)),
    }
}

/// The end of what can be told.
pub(super) fn suspended(generation: &Generation, suspension: &Suspension) -> Outcome {
    Outcome::Suspend {
        by: suspension.filter().name().to_string(),
        effects: effects::told(generation, suspension),
    }
}

fn drop_by(by: Option<String>) -> Outcome {
    Outcome::Drop {
        by,
        reason: Reason::FilterDrop.as_str(),
    }
}

fn reset_by(by: Option<String>) -> Outcome {
    Outcome::Reset {
        by,
        reason: Reason::FilterReset.as_str(),
    }
}

/// A serialised head, line by line.
fn message(head: &[u8], body: Option<&[u8]>) -> Message {
    let text = compare::lossy(head);
    let mut lines = text.split("\r\n");
    Message {
        start: lines.next().unwrap_or_default().to_owned(),
        fields: lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        body: body.map(compare::lossy),
    }
}
