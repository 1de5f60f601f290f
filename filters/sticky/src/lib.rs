//! Sends a client to the same endpoint again: by its address, by a cookie of the proxy's own, or by a value that the
//! application keeps.
//!
//! `source`, `header` and `app-cookie` give the host a sticky key, which it hashes consistently over the pool. `cookie`
//! names the endpoint itself, in a token that only this proxy can read (see `token`), and issues the cookie anew when
//! another endpoint answered.

use sluicegate_sdk::serde::{Deserialize, Deserializer};
use sluicegate_sdk::settings::text_or_map;
use sluicegate_sdk::{
    Diagnostic, Diagnostics, Fact, Filter, Head, Interest, Phase, Pointer, Request, RequestVerdict,
    Response, ResponseVerdict, Setup, Stream, StreamVerdict, schemars,
};

mod token;

use token::Sealer;

const SECRET_MIN: usize = 16;
/// Cookies of one name that are tried; a browser sends one or two, an attacker as many as fit a head.
const CANDIDATES_MAX: usize = 4;

/// Settings of `builtin:sticky`.
#[sluicegate_sdk::settings]
pub struct Settings {
    /// What makes two exchanges belong together.
    by: By,
}

/// What makes two exchanges belong together.
#[derive(Debug)]
pub enum By {
    Source,
    Long(Long),
}

/// The ways that need settings of their own.
#[sluicegate_sdk::settings]
#[derive(Debug)]
pub enum Long {
    /// A cookie that the proxy sets and signs.
    Cookie(CookieSettings),
    /// The value of this request header.
    Header(String),
    /// The value of this cookie, which the application sets.
    AppCookie(String),
}

/// The proxy's cookie.
#[sluicegate_sdk::settings]
#[derive(Debug)]
pub struct CookieSettings {
    /// Name of the cookie.
    name: String,
    /// At least 16 bytes. Everything that shares it (other listeners, other proxies) reads the same cookies.
    secret: String,
    /// `Path` of the cookie.
    #[serde(default = "root_path")]
    path: String,
    /// `Domain` of the cookie; without it the cookie is the host's alone.
    domain: Option<String>,
    /// `Secure`: always or never; when left out, on HTTPS.
    secure: Option<bool>,
    /// `HttpOnly`.
    #[serde(default = "yes")]
    http_only: bool,
    /// `SameSite`.
    #[serde(default)]
    same_site: SameSite,
    /// `Max-Age` in seconds; without it the cookie ends with the browser's session.
    max_age: Option<u64>,
}

/// `SameSite`.
#[sluicegate_sdk::settings]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SameSite {
    #[default]
    Lax,
    Strict,
    None,
}

pub enum Sticky {
    Source,
    Header(String),
    AppCookie(String),
    Cookie(Box<Cookie>),
}

pub struct Cookie {
    name: String,
    sealer: Sealer,
    /// What stands after `name=token` in Set-Cookie, without `Secure`.
    attributes: String,
    secure: Option<bool>,
}

#[sluicegate_sdk::filter]
impl Filter for Sticky {
    type Settings = Settings;

    fn configure(settings: Settings, setup: &mut Setup) -> Result<Self, Diagnostics> {
        let by = Pointer::root().key("by");
        let sticky = match settings.by {
            By::Source => Self::Source,
            By::Long(Long::Header(name)) => {
                check_token(&name, "header", by.key("header"), setup);
                Self::Header(name.to_ascii_lowercase())
            }
            By::Long(Long::AppCookie(name)) => {
                check_token(&name, "cookie", by.key("app-cookie"), setup);
                Self::AppCookie(name)
            }
            By::Long(Long::Cookie(settings)) => {
                let cookie = Cookie::new(settings, &by.key("cookie"), setup);
                Self::Cookie(Box::new(cookie))
            }
        };
        setup.request_fields(match &sticky {
            Self::Source => Interest::None,
            Self::Header(name) => Interest::some([name]),
            Self::AppCookie(_) | Self::Cookie(_) => Interest::some(["cookie"]),
        });
        setup.response_fields(Interest::None);
        setup.facts(match &sticky {
            Self::Source => vec![Fact::ClientAddress],
            Self::Header(_) | Self::AppCookie(_) => Vec::new(),
            Self::Cookie(_) => vec![Fact::Endpoint, Fact::Scheme],
        });
        if !matches!(sticky, Self::Cookie(_)) {
            setup.skip(Phase::Response);
        }
        if !matches!(sticky, Self::Source) {
            setup.skip(Phase::Connect);
        }
        Ok(sticky)
    }

    fn request(&mut self, request: &Request<'_>) -> RequestVerdict {
        let next = RequestVerdict::next();
        match self {
            Self::Source => next.sticky_key(request.client_address()),
            Self::Header(name) => match request.field(name) {
                Some(value) => next.sticky_key(value),
                None => next,
            },
            Self::AppCookie(name) => match cookies(request, name).next() {
                Some(value) => next.sticky_key(value),
                None => next,
            },
            Self::Cookie(cookie) => match cookie.endpoint(request) {
                Some(endpoint) => next.endpoint(&endpoint).state(fingerprint(&endpoint)),
                None => next,
            },
        }
    }

    fn response(&mut self, response: &Response<'_>) -> ResponseVerdict {
        let next = ResponseVerdict::next();
        let Self::Cookie(cookie) = self else {
            return next;
        };
        let endpoint = response.endpoint();
        if endpoint.is_empty() || response.state() == fingerprint(endpoint) {
            return next;
        }
        let Some(token) = cookie.sealer.seal(endpoint) else {
            return next;
        };
        let secure = cookie.secure.unwrap_or(response.scheme() == "https");
        next.append_with("set-cookie", |out| {
            out.push(&cookie.name);
            out.push("=");
            out.push(&token);
            out.push(&cookie.attributes);
            if secure {
                out.push("; Secure");
            }
        })
    }

    fn connect(&mut self, stream: &Stream<'_>) -> StreamVerdict {
        StreamVerdict::next().sticky_key(stream.client_address())
    }
}

impl Cookie {
    fn new(settings: CookieSettings, at: &Pointer, setup: &mut Setup) -> Self {
        check_token(&settings.name, "cookie", at.key("name"), setup);
        if settings.secret.len() < SECRET_MIN {
            setup.problem(
                Diagnostic::new(
                    at.key("secret"),
                    format!("the secret has fewer than {SECRET_MIN} bytes"),
                )
                .help("make one with `openssl rand -base64 24` and keep it out of the YAML with `${VAR}`"),
            );
        }
        check_attribute(&settings.path, at.key("path"), setup);
        if let Some(domain) = &settings.domain {
            check_attribute(domain, at.key("domain"), setup);
        }
        if settings.same_site == SameSite::None && settings.secure == Some(false) {
            setup.problem(
                Diagnostic::new(
                    at.key("same-site"),
                    "browsers refuse `same-site: none` without Secure",
                )
                .help("set `secure: true`, or another `same-site`"),
            );
        }
        Self {
            sealer: Sealer::new(settings.secret.as_bytes(), &settings.name),
            attributes: attributes(&settings),
            // SameSite=None is only taken with Secure.
            secure: match settings.same_site {
                SameSite::None => Some(true),
                _ => settings.secure,
            },
            name: settings.name,
        }
    }

    fn endpoint(&self, request: &Request<'_>) -> Option<String> {
        cookies(request, &self.name)
            .take(CANDIDATES_MAX)
            .find_map(|token| self.sealer.open(token))
    }
}

fn attributes(settings: &CookieSettings) -> String {
    let mut text = format!("; Path={}", settings.path);
    if let Some(domain) = &settings.domain {
        text.push_str("; Domain=");
        text.push_str(domain);
    }
    if let Some(seconds) = settings.max_age {
        text.push_str(&format!("; Max-Age={seconds}"));
    }
    if settings.http_only {
        text.push_str("; HttpOnly");
    }
    text.push_str(match settings.same_site {
        SameSite::Lax => "; SameSite=Lax",
        SameSite::Strict => "; SameSite=Strict",
        SameSite::None => "; SameSite=None",
    });
    text
}

/// The values of the request's cookies of this name, without quotes, those that are empty left out.
fn cookies<'a>(head: &Head<'a>, name: &str) -> impl Iterator<Item = &'a [u8]> {
    head.fields_named("cookie")
        .flat_map(|line| line.as_bytes().split(|b| *b == b';'))
        .filter_map(move |pair| {
            let value = pair
                .trim_ascii()
                .strip_prefix(name.as_bytes())?
                .strip_prefix(b"=")?;
            let value = match value {
                [b'"', quoted @ .., b'"'] => quoted,
                plain => plain,
            };
            (!value.is_empty()).then_some(value)
        })
}

/// FNV-1a, never 0, since 0 is what an exchange without a valid cookie has. Both sides of the comparison are addresses
/// of endpoints, so that nobody gains from a collision.
fn fingerprint(endpoint: &str) -> u64 {
    let hash = endpoint.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    hash | 1
}

fn check_token(name: &str, what: &str, at: Pointer, setup: &mut Setup) {
    if !sluicegate_sdk::field::is_token(name) {
        setup.problem(
            Diagnostic::new(
                at,
                format!("\"{}\" is not a {what} name", name.escape_debug()),
            )
            .help("use letters, digits, `-` and `_`"),
        );
    }
}

fn check_attribute(value: &str, at: Pointer, setup: &mut Setup) {
    if value
        .bytes()
        .any(|b| b == b';' || !(b' '..=b'~').contains(&b))
    {
        setup.problem(Diagnostic::new(
            at,
            "an attribute of a cookie is printable ASCII without `;`",
        ));
    }
}

fn root_path() -> String {
    "/".into()
}

fn yes() -> bool {
    true
}

impl<'de> Deserialize<'de> for By {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_map(
            deserializer,
            "`source` or a map with `cookie`, `header` or `app-cookie`",
            |text| match text {
                "source" => Ok(By::Source),
                "cookie" | "header" | "app-cookie" => Err(format!(
                    "\"{text}\" needs settings of its own: write `{text}: …`"
                )),
                other => Err(format!(
                    "unknown variant `{other}`, expected one of `source`, `cookie`, `header`, `app-cookie`"
                )),
            },
            By::Long,
        )
    }
}

impl schemars::JsonSchema for By {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "By".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let long = generator.subschema_for::<Long>();
        schemars::json_schema!({
            "anyOf": [
                {"const": "source", "description": "The client's address."},
                long,
            ],
        })
    }
}

#[cfg(test)]
mod tests;
