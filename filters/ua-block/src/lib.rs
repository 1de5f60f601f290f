//! Refuses clients by their User-Agent.
//!
//! The globs are anchored and case-sensitive: `badcurl` does not match `badcurl/1.0`, `badcurl*` does. With several
//! User-Agent lines, one that is denied is enough, and one that is allowed saves only itself.

use std::collections::BTreeMap;

use sluicegate_sdk::serde::{Deserialize, Deserializer};
use sluicegate_sdk::settings::text_or_map;
use sluicegate_sdk::{
    Diagnostic, Diagnostics, Filter, Glob, Interest, Match, Pointer, Reply, Request,
    RequestVerdict, Setup, schemars,
};

const USER_AGENT: &str = "user-agent";

/// Settings of `builtin:ua-block`.
#[sluicegate_sdk::settings]
pub struct Settings {
    /// Globs of the User-Agents to refuse: `*` any run of characters, `?` one, `\` quotes the next.
    #[serde(default)]
    deny: Vec<String>,
    /// Globs of User-Agents to let pass although they are denied.
    #[serde(default)]
    allow: Vec<String>,
    /// What a refused client gets.
    #[serde(default)]
    action: Action,
    /// What happens to requests without User-Agent.
    #[serde(default)]
    missing: Missing,
}

/// `drop` closes without a byte, `reset` closes with a TCP reset, `reply` answers 403 or as it says.
#[derive(Debug, Clone, Default)]
pub enum Action {
    #[default]
    Drop,
    Reset,
    Reply(ReplySettings),
}

/// The answer to a refused request.
#[sluicegate_sdk::settings]
#[derive(Debug, Clone, Default)]
pub struct ReplySettings {
    /// 200 to 999; 403 when left out.
    status: Option<u16>,
    /// Empty when left out.
    body: Option<String>,
    /// `text/plain; charset=utf-8` when left out and there is a body.
    content_type: Option<String>,
    /// Further header fields.
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

/// What happens to requests without User-Agent.
#[sluicegate_sdk::settings]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Missing {
    /// They pass.
    #[default]
    Allow,
    /// They are refused like the others.
    Deny,
}

pub struct UaBlock {
    deny: Vec<Glob>,
    allow: Vec<Glob>,
    missing: Missing,
    refusal: RequestVerdict,
}

#[sluicegate_sdk::filter]
impl Filter for UaBlock {
    type Settings = Settings;

    fn configure(settings: Settings, setup: &mut Setup) -> Result<Self, Diagnostics> {
        if settings.deny.is_empty() && settings.missing == Missing::Allow {
            setup.problem(
                Diagnostic::new("", "nothing is denied")
                    .help("list the User-Agents to refuse under `deny`"),
            );
        }
        setup.request_fields(Interest::some([USER_AGENT]));
        setup.facts([]);
        if settings.missing == Missing::Allow {
            setup.only_when(Match::header(USER_AGENT));
        }
        let refusal = match settings.action {
            Action::Drop => RequestVerdict::drop(),
            Action::Reset => RequestVerdict::reset(),
            Action::Reply(reply) => reply_of(&reply, setup),
        };
        Ok(Self {
            deny: settings.deny.iter().map(|glob| Glob::new(glob)).collect(),
            allow: settings.allow.iter().map(|glob| Glob::new(glob)).collect(),
            missing: settings.missing,
            refusal,
        })
    }

    fn request(&mut self, request: &Request<'_>) -> RequestVerdict {
        let mut seen = false;
        for agent in request.fields_named(USER_AGENT) {
            seen = true;
            if self.refuses(&agent) {
                return self.refusal.clone();
            }
        }
        if !seen && self.missing == Missing::Deny {
            return self.refusal.clone();
        }
        RequestVerdict::next()
    }
}

impl UaBlock {
    fn refuses(&self, agent: &[u8]) -> bool {
        let any = |globs: &[Glob]| globs.iter().any(|glob| glob.matches(agent));
        any(&self.deny) && !any(&self.allow)
    }
}

/// The reply, made once: a refusal then costs one copy.
fn reply_of(settings: &ReplySettings, setup: &mut Setup) -> RequestVerdict {
    let at = Pointer::root().key("action").key("reply");
    let status = settings.status.unwrap_or(403);
    if !(200..=999).contains(&status) {
        setup.problem(
            Diagnostic::new(at.key("status"), format!("{status} is no final status"))
                .help("use 200 to 999"),
        );
    }
    let body = settings.body.as_deref().unwrap_or("");
    let mut reply = Reply::new(status);
    if settings.content_type.is_some() || !body.is_empty() {
        let content_type = settings.content_type.as_deref();
        let content_type = content_type.unwrap_or("text/plain; charset=utf-8");
        setup.check_value(content_type, at.key("content-type"));
        reply = reply.field("content-type", content_type);
    }
    for (name, value) in &settings.headers {
        let at = at.key("headers").key(name);
        setup.check_field(name, &at);
        setup.check_value(value, &at);
        reply = reply.field(name, value);
    }
    reply.body(body).into()
}

impl<'de> Deserialize<'de> for Action {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[sluicegate_sdk::settings]
        enum Long {
            Reply(ReplySettings),
        }
        text_or_map(
            deserializer,
            "`drop`, `reset`, `reply` or a map with `reply`",
            |text| match text {
                "drop" => Ok(Action::Drop),
                "reset" => Ok(Action::Reset),
                "reply" => Ok(Action::Reply(ReplySettings::default())),
                other => Err(format!(
                    "unknown variant `{other}`, expected one of `drop`, `reset`, `reply`"
                )),
            },
            |Long::Reply(reply)| Action::Reply(reply),
        )
    }
}

impl schemars::JsonSchema for Action {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Action".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let reply = generator.subschema_for::<ReplySettings>();
        schemars::json_schema!({
            "description": "What a refused client gets: `drop` closes without a byte, `reset` closes with a TCP reset, \
                            `reply` answers 403 or as it says.",
            "anyOf": [
                {"enum": ["drop", "reset", "reply"]},
                {
                    "type": "object",
                    "properties": {"reply": reply},
                    "required": ["reply"],
                    "additionalProperties": false,
                },
            ],
        })
    }
}

#[cfg(test)]
mod tests;
