//! Chooses the pool by host, path, method, headers and query; rewrites and redirects.

use sluicegate_sdk::{
    Diagnostic, Diagnostics, Fact, Filter, Interest, Pointer, Request, RequestVerdict, Setup,
};

mod action;
mod condition;
mod settings;
mod table;

use action::Action;
use condition::Condition;
use settings::{Match, Settings};
use table::{Path, Table};

pub struct Router {
    table: Table,
    /// What the rules of the table do, by their number.
    actions: Vec<Action>,
    default: Option<Action>,
}

#[sluicegate_sdk::filter]
impl Filter for Router {
    type Settings = Settings;

    fn configure(settings: Settings, setup: &mut Setup) -> Result<Self, Diagnostics> {
        if settings.rules.is_empty() && settings.default.is_none() {
            setup.problem(
                Diagnostic::new("", "nothing is routed").help("list `rules`, or give a `default`"),
            );
        }
        let mut table = Table::default();
        let mut actions = Vec::with_capacity(settings.rules.len());
        let mut fields: Vec<String> = Vec::new();
        let rules = Pointer::root().key("rules");
        for (i, rule) in settings.rules.into_iter().enumerate() {
            let at = rules.index(i);
            let (matches, action) = rule.into();
            let path = path_of(&matches, &at.key("match"), setup);
            let prefix = matches.path_prefix.as_deref();
            actions.push(Action::new(action, prefix, &at, setup));
            let conditions = conditions_of(&matches, &at.key("match"), setup);
            fields.extend(matches.headers.keys().cloned());
            table.add(i, matches.host.as_deref(), path, conditions);
        }
        let default = settings
            .default
            .map(|action| Action::new(action, None, &Pointer::root().key("default"), setup));
        setup.request_fields(Interest::some(fields));
        setup.facts([
            Fact::Method,
            Fact::Scheme,
            Fact::Authority,
            Fact::Path,
            Fact::Query,
            Fact::RequestId,
        ]);
        Ok(Self {
            table,
            actions,
            default,
        })
    }

    fn request(&mut self, request: &Request<'_>) -> RequestVerdict {
        let actions = &self.actions;
        let applies = |rule: usize| {
            actions
                .get(rule)
                .is_some_and(|action| action.applies(request))
        };
        let action = match self.table.find(request, &applies) {
            Some(rule) => actions.get(rule),
            None => self
                .default
                .as_ref()
                .filter(|action| action.applies(request)),
        };
        action.map_or_else(RequestVerdict::next, |action| action.verdict(request))
    }
}

fn path_of<'a>(matches: &'a Match, at: &Pointer, setup: &mut Setup) -> Path<'a> {
    let (path, key, text) = match (&matches.path, &matches.path_prefix, &matches.path_glob) {
        (None, None, None) => return Path::Any,
        (Some(path), None, None) => (Path::Exact(path), "path", path),
        (None, Some(prefix), None) => (Path::Prefix(prefix), "path-prefix", prefix),
        (None, None, Some(glob)) => return Path::Glob(glob),
        _ => {
            setup.problem(
                Diagnostic::new(at, "the path is matched in several ways")
                    .help("write one of `path`, `path-prefix`, `path-glob`"),
            );
            return Path::Any;
        }
    };
    action::check_path(text, &at.key(key), setup);
    path
}

fn conditions_of(matches: &Match, at: &Pointer, setup: &mut Setup) -> Vec<Condition> {
    let mut conditions = Vec::new();
    if let Some(methods) = &matches.method {
        if methods.0.is_empty() {
            setup.problem(Diagnostic::new(at.key("method"), "no method ever matches"));
        }
        conditions.push(Condition::Method(methods.0.clone()));
    }
    for (name, test) in &matches.headers {
        if !sluicegate_sdk::field::is_token(name) {
            setup.problem(Diagnostic::new(
                at.key("headers").key(name),
                format!("\"{}\" is not a header name", name.escape_debug()),
            ));
        }
        let name = name.to_ascii_lowercase();
        conditions.push(Condition::Header(name, test.clone().into()));
    }
    for (name, test) in &matches.query {
        conditions.push(Condition::Query(name.clone(), test.clone().into()));
    }
    conditions
}

#[cfg(test)]
mod tests;
