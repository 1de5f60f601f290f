//! What a rule does, prepared.

use sluicegate_sdk::settings::Duration;
use sluicegate_sdk::{Diagnostic, Pointer, Pool, Reply, Request, RequestVerdict, Setup, Text};

use crate::settings;

/// What happens to a request.
#[derive(Debug)]
pub struct Action {
    pools: Pools,
    rewrite: Option<NewPath>,
    host: Option<String>,
    redirect: Option<Redirect>,
    try_timeout_ms: Option<u32>,
    total_timeout_ms: Option<u32>,
    retries: Option<u32>,
}

#[derive(Debug)]
enum Pools {
    /// The listener's.
    Unchanged,
    One(Pool),
    /// Cumulated weights, and the sum.
    Split(Vec<(u64, Pool)>, u64),
}

#[derive(Debug)]
enum NewPath {
    Path(String),
    /// The replacement without its last `/`, and the length of what it replaces, likewise.
    Prefix(String, usize),
}

#[derive(Debug)]
struct Redirect {
    status: u16,
    location: Option<String>,
    scheme: Option<String>,
    host: Option<String>,
    port: Option<u16>,
    path: Option<NewPath>,
}

impl Action {
    /// `prefix` is what the rule's `path-prefix` matches. Mistakes are noted in `setup`.
    pub fn new(
        settings: settings::Action,
        prefix: Option<&str>,
        at: &Pointer,
        setup: &mut Setup,
    ) -> Self {
        let said = [
            settings.pool.is_some(),
            !settings.pools.is_empty(),
            settings.redirect.is_some(),
        ];
        if said.iter().filter(|said| **said).count() > 1 {
            setup.problem(
                Diagnostic::new(at, "this goes to several places at once")
                    .help("write one of `pool`, `pools`, `redirect`"),
            );
        }
        let pools = match &settings.pool {
            Some(name) => Pools::One(setup.pool(name, at.key("pool"))),
            None if settings.pools.is_empty() => Pools::Unchanged,
            None => split(&settings.pools, &at.key("pools"), setup),
        };
        let rewrite = settings.rewrite.map(|rewrite| match rewrite {
            settings::Rewrite::Path(path) => whole(path, &at.key("rewrite").key("path"), setup),
            settings::Rewrite::Prefix(new) => {
                part(&new, prefix, &at.key("rewrite").key("prefix"), setup)
            }
        });
        if let Some(host) = &settings.host {
            check_authority(host, at.key("host"), setup);
        }
        Self {
            pools,
            rewrite,
            host: settings.host,
            redirect: settings
                .redirect
                .map(|redirect| Redirect::new(redirect, prefix, &at.key("redirect"), setup)),
            try_timeout_ms: settings.timeouts.r#try.map(Duration::as_ms),
            total_timeout_ms: settings.timeouts.total.map(Duration::as_ms),
            retries: settings.retries,
        }
    }

    /// Whether this has something to do with the request: a redirect that leads where the request already is would go on
    /// for ever, so that its rule does not match there.
    pub fn applies(&self, request: &Request<'_>) -> bool {
        let redirect = self.redirect.as_ref();
        redirect.is_none_or(|redirect| !redirect.leads_to(request))
    }

    /// What the rule does to this request.
    pub fn verdict(&self, request: &Request<'_>) -> RequestVerdict {
        if let Some(redirect) = &self.redirect {
            return redirect.reply(request);
        }
        let mut verdict = RequestVerdict::next();
        match &self.pools {
            Pools::Unchanged => {}
            Pools::One(pool) => verdict = verdict.pool(*pool),
            Pools::Split(shares, sum) => {
                let point = scaled(request.request_id().as_bytes(), *sum);
                let at = shares.partition_point(|(above, _)| *above <= point);
                if let Some((_, pool)) = shares.get(at) {
                    verdict = verdict.pool(*pool);
                }
            }
        }
        if let Some(rewrite) = &self.rewrite {
            verdict = verdict.path_with(|out| {
                rewrite.write(request.path(), |bytes| out.push(bytes));
                if let Some(query) = request.query() {
                    out.push("?");
                    out.push(query);
                }
            });
        }
        if let Some(host) = &self.host {
            verdict = verdict.authority(host);
        }
        if let Some(ms) = self.try_timeout_ms {
            verdict = verdict.try_timeout_ms(ms);
        }
        if let Some(ms) = self.total_timeout_ms {
            verdict = verdict.total_timeout_ms(ms);
        }
        if let Some(retries) = self.retries {
            verdict = verdict.retries(retries);
        }
        verdict
    }
}

impl NewPath {
    fn write(&self, old: Text<'_>, mut out: impl FnMut(&[u8])) {
        match self {
            Self::Path(path) => out(path.as_bytes()),
            Self::Prefix(new, replaced) => {
                let rest = old.get(*replaced..).unwrap_or_default();
                out(new.as_bytes());
                // The rest begins at a segment boundary; between two parts stands exactly one slash.
                if !rest.starts_with(b"/") && (new.is_empty() || !rest.is_empty()) {
                    out(b"/");
                }
                out(rest);
            }
        }
    }
}

impl Redirect {
    fn new(
        settings: settings::Redirect,
        prefix: Option<&str>,
        at: &Pointer,
        setup: &mut Setup,
    ) -> Self {
        if ![301, 302, 303, 307, 308].contains(&settings.status) {
            setup.problem(
                Diagnostic::new(
                    at.key("status"),
                    format!("{} is no status of a redirect", settings.status),
                )
                .help("use 301, 302, 303, 307 or 308"),
            );
        }
        let parts = settings.scheme.is_some()
            || settings.host.is_some()
            || settings.port.is_some()
            || settings.path.is_some()
            || settings.prefix.is_some();
        match &settings.location {
            Some(_) if parts => setup.problem(
                Diagnostic::new(at.key("location"), "`location` is the whole URL already")
                    .help("leave the parts out, or `location`"),
            ),
            Some(location) => {
                setup.check_value(location, at.key("location"));
            }
            None if !parts => setup.problem(
                Diagnostic::new(at, "this redirects to the same URL again")
                    .help("give `location`, or one of `scheme`, `host`, `port`, `path`, `prefix`"),
            ),
            None => {}
        }
        if let Some(scheme) = &settings.scheme
            && !["http", "https"].contains(&scheme.as_str())
        {
            setup.problem(
                Diagnostic::new(at.key("scheme"), format!("no redirect to \"{scheme}\""))
                    .help("use `http` or `https`"),
            );
        }
        if let Some(host) = &settings.host {
            check_authority(host, at.key("host"), setup);
        }
        if settings.path.is_some() && settings.prefix.is_some() {
            setup.problem(Diagnostic::new(
                at.key("prefix"),
                "`path` replaces the prefix already",
            ));
        }
        let path = match (settings.path, settings.prefix) {
            (Some(path), _) => Some(whole(path, &at.key("path"), setup)),
            (None, Some(new)) => Some(part(&new, prefix, &at.key("prefix"), setup)),
            (None, None) => None,
        };
        Self {
            status: settings.status,
            location: settings.location,
            scheme: settings.scheme,
            host: settings.host,
            port: settings.port,
            path,
        }
    }

    fn reply(&self, request: &Request<'_>) -> RequestVerdict {
        let reply = Reply::new(self.status);
        match &self.location {
            Some(location) => reply.field("location", location),
            None => reply.field("location", self.location_of(request)),
        }
        .into()
    }

    /// Whether every part that is given is the request's own already.
    fn leads_to(&self, request: &Request<'_>) -> bool {
        if let Some(location) = &self.location {
            return is_url_of(location.as_bytes(), request);
        }
        let (scheme, host) = (self.scheme.as_ref(), self.host.as_ref());
        scheme.is_none_or(|scheme| scheme == request.scheme())
            && host.is_none_or(|host| host.as_bytes().eq_ignore_ascii_case(&request.host()))
            && self.port.is_none_or(|port| Some(port) == port_of(request))
            && self.path.as_ref().is_none_or(|path| {
                let mut new = Vec::new();
                path.write(request.path(), |bytes| new.extend_from_slice(bytes));
                new == request.path().as_bytes()
            })
    }

    fn location_of(&self, request: &Request<'_>) -> Vec<u8> {
        let mut url = Vec::with_capacity(128);
        let scheme = self.scheme.as_deref().unwrap_or(request.scheme());
        url.extend_from_slice(scheme.as_bytes());
        url.extend_from_slice(b"://");
        match (&self.host, self.port, &self.scheme) {
            (None, None, None) => url.extend_from_slice(&request.authority()),
            (host, port, _) => {
                match host {
                    Some(host) => url.extend_from_slice(host.as_bytes()),
                    None => url.extend_from_slice(&request.host()),
                }
                if let Some(port) = port {
                    url.extend_from_slice(format!(":{port}").as_bytes());
                }
            }
        }
        match &self.path {
            Some(path) => path.write(request.path(), |bytes| url.extend_from_slice(bytes)),
            None => url.extend_from_slice(&request.path()),
        }
        if let Some(query) = request.query() {
            url.push(b'?');
            url.extend_from_slice(&query);
        }
        url
    }
}

/// The port that was asked for, the scheme's own when none was named.
fn port_of(request: &Request<'_>) -> Option<u16> {
    let authority = request.authority().as_bytes();
    match authority.get(request.host().as_bytes().len()..) {
        Some([b':', digits @ ..]) if !digits.is_empty() => {
            std::str::from_utf8(digits).ok()?.parse().ok()
        }
        _ if request.scheme() == "https" => Some(443),
        _ => Some(80),
    }
}

/// Whether `url` is the one that was asked for.
fn is_url_of(url: &[u8], request: &Request<'_>) -> bool {
    let rest = url.strip_prefix(request.scheme().as_bytes());
    let Some(rest) = rest.and_then(|rest| rest.strip_prefix(b"://")) else {
        return false;
    };
    let authority = request.authority().as_bytes();
    let Some((host, rest)) = rest.split_at_checked(authority.len()) else {
        return false;
    };
    // A URL without a path is that of the root (RFC 9110 §4.2.3).
    let (rest, root) = match rest {
        [] | [b'?' | b'#', ..] => (Some(rest), true),
        _ => (rest.strip_prefix(request.path().as_bytes()), false),
    };
    if root && request.path().as_bytes() != b"/" {
        return false;
    }
    // What stands behind a `#` is the client's own affair.
    let rest = rest.map(|rest| rest.split(|&b| b == b'#').next().unwrap_or(rest));
    let query = request.query();
    host.eq_ignore_ascii_case(authority)
        && match rest {
            Some([b'?', rest @ ..]) => query.is_some_and(|query| query.as_bytes() == rest),
            Some([]) => query.is_none(),
            _ => false,
        }
}

fn split(shares: &[settings::Share], at: &Pointer, setup: &mut Setup) -> Pools {
    let mut sum = 0;
    let mut cumulated = Vec::with_capacity(shares.len());
    for (i, share) in shares.iter().enumerate() {
        let pool = setup.pool(&share.name, at.index(i).key("name"));
        sum += u64::from(share.weight);
        cumulated.push((sum, pool));
    }
    if sum == 0 {
        setup.problem(Diagnostic::new(at, "all weights are 0"));
    }
    Pools::Split(cumulated, sum)
}

fn whole(path: String, at: &Pointer, setup: &mut Setup) -> NewPath {
    check_path(&path, at, setup);
    NewPath::Path(path)
}

fn part(new: &str, prefix: Option<&str>, at: &Pointer, setup: &mut Setup) -> NewPath {
    check_path(new, at, setup);
    let stem = |text: &str| text.strip_suffix('/').unwrap_or(text).len();
    let Some(prefix) = prefix else {
        setup.problem(
            Diagnostic::new(at, "there is no prefix to replace")
                .help("match with `path-prefix`, or replace the whole `path`"),
        );
        return NewPath::Prefix(String::new(), 0);
    };
    NewPath::Prefix(new[..stem(new)].to_owned(), stem(prefix))
}

/// Notes a problem when `path` cannot stand in a request line.
pub fn check_path(path: &str, at: &Pointer, setup: &mut Setup) {
    if !path.starts_with('/') {
        setup.problem(
            Diagnostic::new(
                at,
                format!("the path \"{}\" is not absolute", path.escape_debug()),
            )
            .help("start it with `/`"),
        );
    } else if path
        .bytes()
        .any(|b| !(b'!'..=b'~').contains(&b) || b"?#".contains(&b))
    {
        setup.problem(
            Diagnostic::new(at, "a path is printable ASCII without spaces, `?` and `#`")
                .help("write other characters percent-encoded"),
        );
    }
}

fn check_authority(host: &str, at: Pointer, setup: &mut Setup) {
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"-._~:[]".contains(&b);
    if host.is_empty() || !host.bytes().all(fine) {
        setup.problem(Diagnostic::new(
            at,
            format!("\"{}\" is no host", host.escape_debug()),
        ));
    }
}

/// A number below `sum` that depends on every bit of `id`: FNV-1a, mixed as MurmurHash3 does, scaled without bias worth
/// speaking of.
fn scaled(id: &[u8], sum: u64) -> u64 {
    let mut hash = id.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^= hash >> 33;
    ((u128::from(hash) * u128::from(sum)) >> 64) as u64
}
