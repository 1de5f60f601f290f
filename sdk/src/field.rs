//! Checks of fields that settings name, so that a mistake is a diagnostic at load and not a fault at the first exchange.

use crate::plan::{Diagnostic, Pointer, Setup};

/// The fields that the host writes itself; a verdict that touches one is a fault.
pub const HOST_OWNED: [&str; 10] = [
    "connection",
    "content-length",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Whether `name` is a token (RFC 9110 §5.6.2), in either case.
pub fn is_token(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

impl Setup {
    /// Notes a problem at `path` when `name` is not a field name or a field that the host owns.
    pub fn check_field(&mut self, name: &str, path: impl Into<Pointer>) -> bool {
        let lower = name.to_ascii_lowercase();
        if !is_token(name) {
            self.problem(
                Diagnostic::new(
                    path,
                    format!("\"{}\" is not a header name", name.escape_debug()),
                )
                .help("use letters, digits and `-`"),
            );
            return false;
        }
        if HOST_OWNED.contains(&lower.as_str()) {
            let problem = Diagnostic::new(
                path,
                format!("\"{lower}\" belongs to the proxy: filters cannot change it"),
            );
            self.problem(match lower.as_str() {
                "host" => problem.help("the router filter rewrites the host with `host:`"),
                _ => problem,
            });
            return false;
        }
        true
    }

    /// Notes a problem at `path` when `value` cannot stand in a field line.
    pub fn check_value(&mut self, value: &str, path: impl Into<Pointer>) -> bool {
        let fine = !value.bytes().any(|b| matches!(b, b'\r' | b'\n' | 0));
        if !fine {
            self.problem(Diagnostic::new(
                path,
                "a field value has no line breaks and no NUL",
            ));
        }
        fine
    }
}
