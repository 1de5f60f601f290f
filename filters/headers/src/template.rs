//! Values with variables: `${client.address}:${client.port}`. Parsed once, written straight into the verdict.

use sluicegate_sdk::settings::nearest;
use sluicegate_sdk::{Fact, Head, Value};

/// What a variable can name, with the phases that know it.
const VARIABLES: [(&str, Variable); 20] = [
    ("client.address", Variable::ClientAddress),
    ("client.port", Variable::ClientPort),
    ("peer.address", Variable::PeerAddress),
    ("peer.port", Variable::PeerPort),
    ("server.address", Variable::ServerAddress),
    ("server.port", Variable::ServerPort),
    ("host", Variable::Host),
    ("authority", Variable::Authority),
    ("scheme", Variable::Scheme),
    ("method", Variable::Method),
    ("path", Variable::Path),
    ("query", Variable::Query),
    ("protocol", Variable::Protocol),
    ("request.id", Variable::RequestId),
    ("listener", Variable::Listener),
    ("tls.sni", Variable::TlsSni),
    ("tls.version", Variable::TlsVersion),
    ("tls.client-subject", Variable::TlsClientSubject),
    ("endpoint", Variable::Endpoint),
    ("pool", Variable::Pool),
];

#[derive(Debug, Clone, PartialEq, Eq)]
enum Variable {
    ClientAddress,
    ClientPort,
    PeerAddress,
    PeerPort,
    ServerAddress,
    ServerPort,
    Host,
    Authority,
    Scheme,
    Method,
    Path,
    Query,
    Protocol,
    RequestId,
    Listener,
    TlsSni,
    TlsVersion,
    TlsClientSubject,
    /// Responses only.
    Endpoint,
    /// Responses only.
    Pool,
    Header(String),
}

/// A parsed value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Variable(Variable),
}

/// Why a text is no template.
#[derive(Debug, PartialEq, Eq)]
pub struct Mistake {
    pub message: String,
    pub help: Option<String>,
}

/// What only one phase can say.
#[derive(Debug, Clone, Copy, Default)]
pub struct Upstream<'a> {
    pub endpoint: &'a str,
    pub pool: &'a str,
}

impl Template {
    /// `$${` writes a literal `${`; a `$` before anything else is itself.
    pub fn parse(text: &str) -> Result<Self, Mistake> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            if rest[..at].ends_with('$') {
                literal.push_str(&rest[..at - 1]);
                literal.push_str("${");
                rest = &rest[at + 2..];
                continue;
            }
            literal.push_str(&rest[..at]);
            let Some(end) = rest[at..].find('}') else {
                return Err(Mistake {
                    message: format!("\"{}\" has no closing `}}`", &rest[at..]),
                    help: Some("write `$${` for a literal `${`".into()),
                });
            };
            let variable = variable(rest[at + 2..at + end].trim())?;
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal)));
            }
            parts.push(Part::Variable(variable));
            rest = &rest[at + end + 1..];
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Ok(Self { parts })
    }

    /// The fields that it reads.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Variable(Variable::Header(name)) => Some(name.as_str()),
            _ => None,
        })
    }

    /// The facts that it reads.
    pub fn facts(&self) -> impl Iterator<Item = Fact> {
        self.parts.iter().filter_map(|part| match part {
            Part::Variable(variable) => variable.fact(),
            Part::Text(_) => None,
        })
    }

    /// A variable that a request does not have yet.
    pub fn known_only_in_responses(&self) -> Option<&'static str> {
        self.parts.iter().find_map(|part| match part {
            Part::Variable(Variable::Endpoint) => Some("endpoint"),
            Part::Variable(Variable::Pool) => Some("pool"),
            _ => None,
        })
    }

    /// Writes the value. A variable without a value writes nothing; several lines of a field are joined by `, `.
    pub fn write(&self, head: &Head<'_>, upstream: Upstream<'_>, out: &mut Value<'_>) {
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push(text),
                Part::Variable(variable) => variable.write(head, upstream, out),
            }
        }
    }
}

impl Variable {
    /// The fact it names; ports are told in any case.
    fn fact(&self) -> Option<Fact> {
        Some(match self {
            Self::ClientAddress => Fact::ClientAddress,
            Self::PeerAddress => Fact::PeerAddress,
            Self::ServerAddress => Fact::LocalAddress,
            Self::Host | Self::Authority => Fact::Authority,
            Self::Scheme => Fact::Scheme,
            Self::Method => Fact::Method,
            Self::Path => Fact::Path,
            Self::Query => Fact::Query,
            Self::Protocol => Fact::Protocol,
            Self::RequestId => Fact::RequestId,
            Self::Listener => Fact::Listener,
            Self::TlsSni => Fact::Sni,
            Self::TlsVersion => Fact::TlsVersion,
            Self::TlsClientSubject => Fact::ClientSubject,
            Self::Endpoint => Fact::Endpoint,
            Self::Pool => Fact::Pool,
            Self::ClientPort | Self::PeerPort | Self::ServerPort | Self::Header(_) => return None,
        })
    }

    fn write(&self, head: &Head<'_>, upstream: Upstream<'_>, out: &mut Value<'_>) {
        match self {
            Self::ClientAddress => out.push(head.client_address()),
            Self::ClientPort => out.push_number(head.client_port().into()),
            Self::PeerAddress => out.push(head.peer_address()),
            Self::PeerPort => out.push_number(head.peer_port().into()),
            Self::ServerAddress => out.push(head.local_address()),
            Self::ServerPort => out.push_number(head.local_port().into()),
            Self::Host => out.push(head.host()),
            Self::Authority => out.push(head.authority()),
            Self::Scheme => out.push(head.scheme()),
            Self::Method => out.push(head.method()),
            Self::Path => out.push(head.path()),
            Self::Query => out.push(head.query().unwrap_or_default()),
            Self::Protocol => out.push(head.protocol()),
            Self::RequestId => out.push(head.request_id()),
            Self::Listener => out.push(head.listener()),
            Self::TlsSni => out.push(head.tls().and_then(|tls| tls.sni()).unwrap_or("")),
            Self::TlsVersion => out.push(head.tls().map_or("", |tls| tls.version())),
            Self::TlsClientSubject => {
                out.push(
                    head.tls()
                        .and_then(|tls| tls.client_subject())
                        .unwrap_or(""),
                );
            }
            Self::Endpoint => out.push(upstream.endpoint),
            Self::Pool => out.push(upstream.pool),
            Self::Header(name) => {
                for (i, line) in head.fields_named(name).enumerate() {
                    if i > 0 {
                        out.push(", ");
                    }
                    out.push(line);
                }
            }
        }
    }
}

fn variable(name: &str) -> Result<Variable, Mistake> {
    if let Some(field) = name.strip_prefix("header:") {
        if sluicegate_sdk::field::is_token(field) {
            return Ok(Variable::Header(field.to_ascii_lowercase()));
        }
        return Err(Mistake {
            message: format!("\"{field}\" is not a header name"),
            help: Some("write `${header:x-name}`".into()),
        });
    }
    if let Some((_, variable)) = VARIABLES.iter().find(|(known, _)| *known == name) {
        return Ok(variable.clone());
    }
    let known = VARIABLES.iter().map(|(known, _)| *known);
    Err(Mistake {
        message: format!("there is no variable \"{name}\""),
        help: Some(match nearest(name, known.clone()) {
            Some(near) => format!("did you mean \"${{{near}}}\"?"),
            None => format!(
                "variables are {} and header:NAME; write `$${{` for a literal `${{`",
                known.collect::<Vec<_>>().join(", ")
            ),
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_and_variables_are_told_apart() {
        let text = |text: &str| Part::Text(text.to_owned());
        for (given, parts) in [
            ("", vec![]),
            ("plain", vec![text("plain")]),
            ("$5 $$ $", vec![text("$5 $$ $")]),
            ("a$${b}", vec![text("a${b}")]),
            (
                "${host}:${ server.port }",
                vec![
                    Part::Variable(Variable::Host),
                    text(":"),
                    Part::Variable(Variable::ServerPort),
                ],
            ),
            (
                "<${header:X-A}",
                vec![text("<"), Part::Variable(Variable::Header("x-a".into()))],
            ),
        ] {
            assert_eq!(Template::parse(given).unwrap().parts, parts, "{given}");
        }
    }

    #[test]
    fn mistakes_say_what_was_meant() {
        for (given, message, help) in [
            ("${", "no closing", "`$${`"),
            (
                "${clent.address}",
                "no variable \"clent.address\"",
                "did you mean \"${client.address}\"?",
            ),
            (
                "${banana}",
                "no variable \"banana\"",
                "variables are client.address",
            ),
            ("${header:}", "not a header name", "${header:x-name}"),
        ] {
            let mistake = Template::parse(given).unwrap_err();
            assert!(mistake.message.contains(message), "{mistake:?}");
            assert!(mistake.help.as_ref().unwrap().contains(help), "{mistake:?}");
        }
    }
}
