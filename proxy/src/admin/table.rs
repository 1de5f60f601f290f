//! The table of paths: which route a request is for, and what its path's parameters are.

use std::rc::Rc;

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};

use super::Process;
use super::answer::{Answer, error, not_allowed};

/// One path of the admin interface and what it does.
pub struct Route {
    pub access: Access,
    /// Segments in braces are parameters: `/pools/{pool}`.
    pub path: &'static str,
    /// What it answers, in Markdown, for docs/operations.md.
    pub about: &'static str,
    pub call: for<'a> fn(Call<'a>) -> LocalBoxFuture<'a, Answer>,
}

/// What a route does to the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reads: GET and HEAD.
    Read,
    /// Changes: POST.
    Change,
}

/// A request for a route.
pub struct Call<'a> {
    /// All that there are.
    pub routes: &'a [&'a Route],
    pub process: &'a Rc<dyn Process>,
    pub head: &'a Parts,
    /// At most 64 KiB.
    #[cfg_attr(not(test), allow(dead_code))]
    pub body: Bytes,
    /// In the order of the path; percent-encoding is undone.
    #[cfg_attr(not(test), allow(dead_code))]
    pub parameters: Vec<String>,
}

impl Access {
    pub fn method(self) -> Method {
        match self {
            Access::Read => Method::GET,
            Access::Change => Method::POST,
        }
    }

    fn takes(self, method: &Method) -> bool {
        match self {
            Access::Read => *method == Method::GET || *method == Method::HEAD,
            Access::Change => *method == Method::POST,
        }
    }

    fn allow(self) -> &'static str {
        match self {
            Access::Read => "GET, HEAD",
            Access::Change => "POST",
        }
    }
}

/// Answers by the route of `routes` that the head is for.
pub async fn answer(
    routes: &[&Route],
    process: &Rc<dyn Process>,
    head: &Parts,
    body: Bytes,
) -> Answer {
    let path = head.uri.path();
    let here = routes
        .iter()
        .filter_map(|route| Some((route, matched(route.path, path)?)));
    let mut allow = Vec::new();
    for (route, parameters) in here {
        if route.access.takes(&head.method) {
            let call = Call {
                routes,
                process,
                head,
                body,
                parameters,
            };
            return (route.call)(call).await;
        }
        allow.push(route.access.allow());
    }
    match allow.is_empty() {
        true => error(StatusCode::NOT_FOUND, &no_such(routes)),
        false => not_allowed(&allow.join(", ")),
    }
}

fn no_such(routes: &[&Route]) -> String {
    let mut paths: Vec<&str> = routes.iter().map(|route| route.path).collect();
    paths.dedup();
    match paths.split_last() {
        Some((last, rest)) if !rest.is_empty() => {
            format!("no such path; there are {} and {last}", rest.join(", "))
        }
        _ => format!("no such path; there is {}", paths.join("")),
    }
}

/// The parameters, when `path` is one of `pattern`. A parameter is one segment and never empty.
fn matched(pattern: &str, path: &str) -> Option<Vec<String>> {
    let (mut wanted, mut given) = (pattern.split('/'), path.split('/'));
    let mut parameters = Vec::new();
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return Some(parameters),
            (Some(segment), Some(value)) if segment.starts_with('{') => {
                let value = decoded(value).filter(|value| !value.is_empty())?;
                parameters.push(value);
            }
            (Some(segment), Some(value)) if segment == value => {}
            _ => return None,
        }
    }
}

/// `segment` without percent-encoding; none when that is broken.
fn decoded(segment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.bytes();
    while let Some(b) = rest.next() {
        bytes.push(match b {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            b => b,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::answer::{TEXT, reply};
    use http_body_util::BodyExt;

    const SAYS: Route = Route {
        access: Access::Change,
        path: "/pools/{pool}",
        about: "what came",
        call: |call| {
            let text = format!("{} {}", call.parameters.join(","), call.body.len());
            Box::pin(async { reply(StatusCode::OK, TEXT, text) })
        },
    };
    const READS: Route = Route {
        access: Access::Read,
        path: "/pools/{pool}",
        about: "the pool",
        call: |call| Box::pin(async move { reply(StatusCode::OK, TEXT, call.parameters.concat()) }),
    };

    struct Nothing;

    impl Process for Nothing {
        fn readiness(&self) -> crate::admin::Readiness {
            crate::admin::Readiness::Ready
        }
        fn metrics(&self, _: crate::telemetry::Exposition) -> String {
            String::new()
        }
        fn reload(&self) -> LocalBoxFuture<'static, crate::admin::ReloadAnswer> {
            unreachable!()
        }
    }

    #[tokio::test]
    async fn a_route_is_a_path_and_a_method() {
        let process: Rc<dyn Process> = Rc::new(Nothing);
        let ask = async |method: &str, path: &str, routes: &[&Route]| {
            let request = hyper::Request::builder().method(method).uri(path).body(());
            let (head, ()) = request.expect("a request").into_parts();
            let answer = answer(routes, &process, &head, Bytes::from_static(b"12345")).await;
            let allow = answer.headers().get(hyper::header::ALLOW);
            let allow = allow
                .map_or("", |allow| allow.to_str().expect("text"))
                .to_owned();
            let status = answer.status().as_u16();
            let body = answer
                .into_body()
                .collect()
                .await
                .expect("a body")
                .to_bytes();
            (status, allow, String::from_utf8_lossy(&body).into_owned())
        };
        let told =
            |status: u16, allow: &str, text: &str| (status, allow.to_owned(), text.to_owned());
        assert_eq!(
            ask("POST", "/pools/web", &[&SAYS]).await,
            told(200, "", "web 5")
        );
        assert_eq!(
            ask("HEAD", "/pools/a%20b", &[&SAYS, &READS]).await,
            told(200, "", "a b")
        );
        let (status, allow, text) = ask("GET", "/pools/web", &[&SAYS]).await;
        assert_eq!((status, &*allow), (405, "POST"), "{text}");
        let (status, allow, _) = ask("PUT", "/pools/web", &[&SAYS, &READS]).await;
        assert_eq!((status, &*allow), (405, "POST, GET, HEAD"));
        let (status, _, text) = ask("GET", "/other", &[&SAYS, &READS]).await;
        assert_eq!(status, 404);
        assert!(text.contains("there is /pools/{pool}"), "{text}");
    }

    #[test]
    fn parameters_are_segments() {
        let one = |path: &str| matched("/pools/{pool}/endpoints/{endpoint}", path);
        let two = |a: &str, b: &str| Some(vec![a.to_owned(), b.to_owned()]);
        assert_eq!(
            one("/pools/web/endpoints/10.0.0.1:80"),
            two("web", "10.0.0.1:80")
        );
        assert_eq!(
            one("/pools/a%2Fb/endpoints/%5B::1%5D:80"),
            two("a/b", "[::1]:80")
        );
        for path in [
            "/pools/web/endpoints",
            "/pools/web/endpoints/",
            "/pools//endpoints/x",
            "/pools/web/endpoints/x/y",
            "/pools/%/endpoints/x",
            "/pools/%f/endpoints/x",
            "/pools/%ff/endpoints/x",
            "/pools/%+1/endpoints/x",
            "/other/web/endpoints/x",
            "",
        ] {
            assert_eq!(one(path), None, "{path}");
        }
        assert_eq!(matched("/ready", "/ready"), Some(Vec::new()));
        assert_eq!(matched("/ready", "/ready/"), None);
    }
}
