//! A connection to a `tcp` listener, step by step as `stream::session` takes it.

use std::sync::Arc;

use crate::chain::{StreamFacts, StreamOutcome, Subject};
use crate::error::Reason;
use crate::generation::Generation;
use crate::wasm::Phase;

use super::arrival::connection;
use super::compare;
use super::request::{assume, listener_told, suspended};
use super::route;
use super::walk::Walk;
use super::{Asked, Choice, Explanation, Later, Outcome, Step};

/// What would become of the connection.
pub fn explain_session(
    generation: &Arc<Generation>,
    choice: &Choice,
    asked: &Asked,
) -> Explanation {
    let connection = connection(choice, asked);
    let mut walk = Walk::new(generation, &choice.listener);
    let mut steps = Vec::new();
    let mut assumed = Vec::new();
    let facts = StreamFacts {
        connection: &connection,
        client: connection.peer.ip(),
        client_text: &connection.peer_text,
        client_port: connection.peer.port(),
        sni: None,
        offered_alpn: None,
    };
    let mut ended = phase(
        generation,
        &mut walk,
        &mut steps,
        Phase::Connect,
        &facts,
        &[],
    );
    // Where TLS ends at the listener, its ClientHello is not the filters' to see.
    if ended.is_none() && connection.tls.is_none() && wants(&walk, Phase::ClientHello) {
        match asked.sni.as_deref() {
            Some(sni) => {
                let facts = StreamFacts {
                    sni: Some(sni),
                    offered_alpn: Some(""),
                    ..facts
                };
                let hello = Phase::ClientHello;
                ended = phase(generation, &mut walk, &mut steps, hello, &facts, &[]);
            }
            None => assumed.push(
                "the client does not speak TLS; --sni NAME makes it begin with a ClientHello"
                    .to_owned(),
            ),
        }
    }
    if ended.is_none() && wants(&walk, Phase::FirstBytes) {
        if asked.first_bytes.is_none() {
            assumed.push("the client sends nothing first; --first-bytes TEXT makes it".to_owned());
        }
        let bytes = asked.first_bytes.as_deref().unwrap_or_default();
        let first = Phase::FirstBytes;
        ended = phase(generation, &mut walk, &mut steps, first, &facts, bytes);
    }
    let mut told = None;
    let outcome = ended.unwrap_or_else(|| {
        let config = &choice.listener.config;
        let client = connection.peer.ip();
        match route::find(generation, config, &walk.route, &walk.chosen, client) {
            Ok(routed) => {
                let found = routed.authority.is_some();
                told = Some(routed.told);
                match found {
                    true => Outcome::Relay,
                    false => dropped(None, Reason::NoHealthyEndpoint),
                }
            }
            Err(reason) => dropped(None, reason),
        }
    });
    assume(&mut assumed, &steps, told.as_ref());
    Explanation {
        listener: listener_told(choice),
        peer: connection.peer.to_string(),
        client: connection.peer_text.clone(),
        steps,
        route: told,
        outcome,
        later: Later::default(),
        assumed,
    }
}

fn wants(walk: &Walk, phase: Phase) -> bool {
    walk.members.iter().any(|m| m.chain.wants(phase))
}

/// One phase through all filters that want it; how the session ends, if it does.
fn phase(
    generation: &Generation,
    walk: &mut Walk,
    steps: &mut Vec<Step>,
    phase: Phase,
    facts: &StreamFacts<'_>,
    bytes: &[u8],
) -> Option<Outcome> {
    let Walk {
        members,
        route,
        chosen,
        ..
    } = walk;
    for member in members {
        if !member.chain.wants(phase) {
            continue;
        }
        let before = route.clone();
        let (outcome, seen) = member.run(route, |chain, state| match phase {
            Phase::ClientHello => chain.client_hello(state, facts),
            Phase::FirstBytes => chain.first_bytes_seen(state, facts, bytes),
            _ => chain.connect(state, facts),
        });
        chosen.note(&member.filter, &before, route);
        let changes = compare::routes(&before, route, generation);
        let predicate = &member.filter.plan().predicate;
        let step = member.step(phase_name(phase), seen, changes, || {
            let subject = Subject {
                head: None,
                client: facts.client,
            };
            debug_assert!(matches!(predicate.matches(&subject), Ok(false)));
            format!("it wants only connections where {predicate}")
        });
        steps.push(step);
        let name = Some(member.filter.name().to_string());
        match outcome {
            StreamOutcome::Continue => {}
            StreamOutcome::Drop => return Some(dropped(name, Reason::FilterDrop)),
            StreamOutcome::Reset => {
                return Some(Outcome::Reset {
                    by: name,
                    reason: Reason::FilterReset.as_str(),
                });
            }
            StreamOutcome::Fault { .. } => return Some(dropped(name, Reason::FilterFault)),
            StreamOutcome::Suspend(waits) => return Some(suspended(generation, &waits)),
        }
    }
    None
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::ClientHello => "client-hello",
        Phase::FirstBytes => "first-bytes",
        _ => "connect",
    }
}

fn dropped(by: Option<String>, reason: Reason) -> Outcome {
    Outcome::Drop {
        by,
        reason: reason.as_str(),
    }
}
