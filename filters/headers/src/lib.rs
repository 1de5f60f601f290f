//! Edits the header fields of requests and responses, with values that may name facts of the exchange.

use sluicegate_sdk::{
    Diagnostic, Diagnostics, Filter, Head, Http, Interest, Phase, Pointer, Request, RequestVerdict,
    Response, ResponseVerdict, Setup, Verdict,
};

mod template;

use template::{Template, Upstream};

/// Edits of one message: the proxy takes twice as many of one answer, and a prefix may remove many fields.
const EDITS_MAX: usize = 512;

/// Settings of `builtin:headers`.
#[sluicegate_sdk::settings]
pub struct Settings {
    /// Edits of the request, in order, before it is forwarded.
    #[serde(default)]
    request: Vec<Operation>,
    /// Edits of the response, in order, before it is sent to the client.
    #[serde(default)]
    response: Vec<Operation>,
}

/// One edit: exactly one of `set`, `append`, `add` and `remove` names the field.
#[sluicegate_sdk::settings]
pub struct Operation {
    /// Replaces every line of this field by one.
    set: Option<String>,
    /// One more line of this field after those that are there.
    append: Option<String>,
    /// A line of this field when there is none.
    add: Option<String>,
    /// Removes every line of this field; with a `*` at the end, of every field that starts so.
    remove: Option<String>,
    /// The value, with variables such as `${client.address}`; `$${` writes a literal `${`.
    value: Option<String>,
}

pub struct Headers {
    request: Vec<Edit>,
    response: Vec<Edit>,
}

enum Edit {
    Set(String, Template),
    Append(String, Template),
    Add(String, Template),
    Remove(String),
    RemovePrefix(String),
}

/// Which message an edit is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Request,
    Response,
}

#[sluicegate_sdk::filter]
impl Filter for Headers {
    type Settings = Settings;

    fn configure(settings: Settings, setup: &mut Setup) -> Result<Self, Diagnostics> {
        let request = edits(&settings.request, Side::Request, setup);
        let response = edits(&settings.response, Side::Response, setup);
        if request.is_empty() {
            setup.skip(Phase::Request);
        }
        if response.is_empty() {
            setup.skip(Phase::Response);
        }
        setup.request_fields(interest(&request));
        setup.response_fields(interest(&response));
        let templates = request.iter().chain(&response).filter_map(Edit::template);
        setup.facts(templates.flat_map(Template::facts));
        Ok(Self { request, response })
    }

    fn request(&mut self, request: &Request<'_>) -> RequestVerdict {
        apply(&self.request, request, Upstream::default())
    }

    fn response(&mut self, response: &Response<'_>) -> ResponseVerdict {
        let upstream = Upstream {
            endpoint: response.endpoint(),
            pool: response.pool(),
        };
        apply(&self.response, response, upstream)
    }
}

impl Edit {
    fn template(&self) -> Option<&Template> {
        match self {
            Self::Set(_, template) | Self::Append(_, template) | Self::Add(_, template) => {
                Some(template)
            }
            Self::Remove(_) | Self::RemovePrefix(_) => None,
        }
    }
}

fn apply<P: Http>(edits: &[Edit], head: &Head<'_>, upstream: Upstream<'_>) -> Verdict<P> {
    let mut verdict = Verdict::next();
    for edit in edits {
        verdict = match edit {
            Edit::Set(name, value) => {
                verdict.set_with(name, |out| value.write(head, upstream, out))
            }
            Edit::Append(name, value) => {
                verdict.append_with(name, |out| value.write(head, upstream, out))
            }
            Edit::Add(name, value) => {
                verdict.add_with(name, |out| value.write(head, upstream, out))
            }
            Edit::Remove(name) => verdict.remove(name),
            Edit::RemovePrefix(prefix) => remove_prefix(verdict, head, prefix),
        };
    }
    verdict
}

/// Removes the fields that start with `prefix`, but those that the host owns. Lines of a field that an earlier edit of
/// this filter made are not seen, unless the message had that field already.
fn remove_prefix<P: Http>(mut verdict: Verdict<P>, head: &Head<'_>, prefix: &str) -> Verdict<P> {
    for (name, _) in head.fields() {
        let Some(name) = name.to_str() else { continue };
        if name.starts_with(prefix) && !sluicegate_sdk::field::HOST_OWNED.contains(&name) {
            verdict = verdict.remove(name);
        }
    }
    verdict
}

/// The fields that the edits read.
fn interest(edits: &[Edit]) -> Interest {
    if edits.iter().any(|e| matches!(e, Edit::RemovePrefix(_))) {
        return Interest::All;
    }
    Interest::some(
        edits
            .iter()
            .filter_map(Edit::template)
            .flat_map(Template::fields),
    )
}

fn edits(operations: &[Operation], side: Side, setup: &mut Setup) -> Vec<Edit> {
    let at = Pointer::root().key(match side {
        Side::Request => "request",
        Side::Response => "response",
    });
    if operations.len() > EDITS_MAX {
        let message = format!("{} edits, more than {EDITS_MAX}", operations.len());
        setup.problem(Diagnostic::new(&at, message));
        return Vec::new();
    }
    operations
        .iter()
        .enumerate()
        .filter_map(|(i, operation)| edit(operation, side, &at.index(i), setup))
        .collect()
}

fn edit(operation: &Operation, side: Side, at: &Pointer, setup: &mut Setup) -> Option<Edit> {
    let named: Vec<(&str, &String)> = [
        ("set", &operation.set),
        ("append", &operation.append),
        ("add", &operation.add),
        ("remove", &operation.remove),
    ]
    .into_iter()
    .filter_map(|(key, name)| Some((key, name.as_ref()?)))
    .collect();
    let [(key, name)] = named[..] else {
        let message = match named.len() {
            0 => "this edit does nothing".to_owned(),
            _ => "this edit does several things at once".to_owned(),
        };
        setup.problem(
            Diagnostic::new(at, message)
                .help("write exactly one of `set`, `append`, `add`, `remove`"),
        );
        return None;
    };
    let stem = match key {
        "remove" => name.strip_suffix('*').unwrap_or(name),
        _ => name,
    };
    let whole = stem.len() == name.len();
    // A bare `*` removes everything that is not the host's.
    if (whole || !stem.is_empty()) && !setup.check_field(stem, at.key(key)) {
        return None;
    }
    let name = stem.to_ascii_lowercase();
    if key == "remove" {
        if operation.value.is_some() {
            setup.problem(
                Diagnostic::new(at.key("value"), "`remove` takes no value")
                    .help("leave `value` out"),
            );
        }
        return Some(match whole {
            true => Edit::Remove(name),
            false => Edit::RemovePrefix(name),
        });
    }
    let Some(value) = &operation.value else {
        setup.problem(
            Diagnostic::new(at, format!("`{key}` needs a value"))
                .help("add `value: …`; it may be empty"),
        );
        return None;
    };
    if !setup.check_value(value, at.key("value")) {
        return None;
    }
    let template = match Template::parse(value) {
        Ok(template) => template,
        Err(mistake) => {
            let problem = Diagnostic::new(at.key("value"), mistake.message);
            setup.problem(match mistake.help {
                Some(help) => problem.help(help),
                None => problem,
            });
            return None;
        }
    };
    if let (Side::Request, Some(variable)) = (side, template.known_only_in_responses()) {
        setup.problem(
            Diagnostic::new(
                at.key("value"),
                format!("\"{variable}\" is not known before a request is sent"),
            )
            .help("use it under `response`"),
        );
    }
    Some(match key {
        "set" => Edit::Set(name, template),
        "append" => Edit::Append(name, template),
        _ => Edit::Add(name, template),
    })
}

#[cfg(test)]
mod tests;
