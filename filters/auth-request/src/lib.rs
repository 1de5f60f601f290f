//! Asks an HTTP service whether a request may pass, and copies what it says about the client onto the request.

use std::collections::BTreeSet;

use sluicegate_sdk::http::{self, CallRequest, CallResponse};
use sluicegate_sdk::settings::Duration;
use sluicegate_sdk::{
    CalledPool, Diagnostic, Diagnostics, Fact, Filter, Interest, Pointer, Reply, Request,
    RequestVerdict, Setup,
};

/// Fields of the request that the service is shown when nothing else is said.
const FORWARD: [&str; 2] = ["authorization", "cookie"];
/// Fields of a refusal that the client is given.
const RELAYED: [&str; 4] = ["www-authenticate", "location", "set-cookie", "content-type"];
/// What the body of a refusal may have.
const BODY_BYTES_MAX: u32 = 64 * 1024;

/// Settings of `builtin:auth-request`.
#[sluicegate_sdk::settings]
pub struct Settings {
    /// The pool of the service.
    pool: String,
    /// Path with query that is asked for.
    path: String,
    /// The method of the question.
    #[serde(default = "get")]
    method: String,
    /// Request headers that the service is shown; `authorization` and `cookie` when left out. The original request is told
    /// in X-Original-Method, X-Original-URL, X-Forwarded-For, X-Forwarded-Proto and X-Forwarded-Host.
    forward: Option<Vec<String>>,
    /// Response headers of the service that the request is given. What the client sent under these names is removed.
    #[serde(default)]
    copy: Vec<String>,
    /// For the whole question; 1s when left out, at most 60s.
    timeout: Option<Duration>,
    /// What happens when the service cannot be asked, or answers neither 2xx, 3xx, 401 nor 403.
    #[serde(default)]
    on_failure: OnFailure,
}

#[sluicegate_sdk::settings]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFailure {
    /// The client is answered 503.
    #[default]
    Deny,
    /// The request passes, without what the service would have said.
    Allow,
}

fn get() -> String {
    "GET".to_owned()
}

pub struct AuthRequest {
    pool: CalledPool,
    path: String,
    method: String,
    forward: Vec<String>,
    copy: Vec<String>,
    timeout: std::time::Duration,
    on_failure: OnFailure,
}

#[sluicegate_sdk::filter]
impl Filter for AuthRequest {
    type Settings = Settings;

    fn configure(settings: Settings, setup: &mut Setup) -> Result<Self, Diagnostics> {
        let root = Pointer::root();
        if !settings.path.starts_with('/') || !settings.path.bytes().all(|b| b.is_ascii_graphic()) {
            let problem = Diagnostic::new(
                root.key("path"),
                format!("\"{}\" is no path", settings.path.escape_debug()),
            );
            setup.problem(problem.help("write one that starts with `/`, such as `/verify`"));
        }
        let forward = match settings.forward {
            Some(names) => lower(names, root.key("forward"), setup),
            None => FORWARD.map(str::to_owned).to_vec(),
        };
        let copy = lower(settings.copy, root.key("copy"), setup);
        let timeout = settings.timeout.map_or(1000, Duration::as_ms);
        if !(1..=60_000).contains(&timeout) {
            let problem = Diagnostic::new(root.key("timeout"), "a question takes 1ms to 60s");
            setup.problem(problem);
        }
        if !sluicegate_sdk::field::is_token(&settings.method) {
            let message = format!("\"{}\" is no method", settings.method.escape_debug());
            setup.problem(Diagnostic::new(root.key("method"), message));
        }
        setup.request_fields(Interest::some(&forward));
        setup.facts([
            Fact::Method,
            Fact::Scheme,
            Fact::Authority,
            Fact::Path,
            Fact::Query,
            Fact::ClientAddress,
        ]);
        Ok(Self {
            pool: setup.called_pool(&settings.pool, root.key("pool")),
            path: settings.path,
            method: settings.method,
            forward,
            copy,
            timeout: std::time::Duration::from_millis(timeout.into()),
            on_failure: settings.on_failure,
        })
    }

    fn request(&mut self, request: &Request<'_>) -> RequestVerdict {
        let (pool, question) = (self.pool, self.question(request));
        let (copy, on_failure) = (self.copy.clone(), self.on_failure);
        RequestVerdict::later(async move {
            match http::call(pool, question).await {
                Ok(answer) => match answer.status() {
                    200..=299 => passed(&answer, &copy),
                    300..=399 | 401 | 403 => refused(&answer),
                    _ => failed(on_failure, &copy),
                },
                Err(_) => failed(on_failure, &copy),
            }
        })
    }
}

impl AuthRequest {
    fn question(&self, request: &Request<'_>) -> CallRequest {
        let mut url = Vec::new();
        url.extend_from_slice(request.scheme().as_bytes());
        url.extend_from_slice(b"://");
        url.extend_from_slice(request.authority().as_bytes());
        url.extend_from_slice(request.path().as_bytes());
        if let Some(query) = request.query() {
            url.push(b'?');
            url.extend_from_slice(query.as_bytes());
        }
        let mut question = CallRequest::new(&self.method, &self.path)
            .timeout(self.timeout)
            .response_max(BODY_BYTES_MAX)
            .header("x-original-method", request.method())
            .header("x-original-url", url)
            .header("x-forwarded-for", request.client_address())
            .header("x-forwarded-proto", request.scheme())
            .header("x-forwarded-host", request.authority());
        for (name, value) in request.fields() {
            if let Some(name) = name
                .to_str()
                .filter(|name| self.forward.iter().any(|n| n == name))
            {
                question = question.header(name, value);
            }
        }
        question
    }
}

/// The request goes on with what the service said, and with nothing that the client said under the same names.
fn passed(answer: &CallResponse, copy: &[String]) -> RequestVerdict {
    let mut verdict = without(copy);
    for (name, value) in answer.fields() {
        if let Some(name) = copy.iter().find(|copied| name == ***copied) {
            verdict = verdict.append(name, value);
        }
    }
    verdict
}

fn without(copy: &[String]) -> RequestVerdict {
    let next = RequestVerdict::next();
    copy.iter().fold(next, |verdict, name| verdict.remove(name))
}

/// The client is told what the service told.
fn refused(answer: &CallResponse) -> RequestVerdict {
    let mut reply = Reply::new(answer.status());
    for (name, value) in answer.fields() {
        if let Some(name) = RELAYED.iter().find(|relayed| name == **relayed) {
            reply = reply.field(name, value);
        }
    }
    reply.body(answer.body()).into()
}

fn failed(on_failure: OnFailure, copy: &[String]) -> RequestVerdict {
    match on_failure {
        OnFailure::Allow => without(copy),
        OnFailure::Deny => Reply::new(503)
            .field("content-type", "text/plain; charset=utf-8")
            .field("retry-after", "5")
            .body("the service that decides about this request does not answer\n")
            .into(),
    }
}

/// Names of headers in lower case, each once.
fn lower(names: Vec<String>, at: Pointer, setup: &mut Setup) -> Vec<String> {
    let mut seen = BTreeSet::new();
    for (i, name) in names.iter().enumerate() {
        setup.check_field(name, at.index(i));
        seen.insert(name.to_ascii_lowercase());
    }
    seen.into_iter().collect()
}

#[cfg(test)]
mod tests;
