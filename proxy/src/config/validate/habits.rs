//! What people who come from other proxies write, and where it belongs here. Found by place, not by likeness.

use crate::config::model::ConfigPath;

/// What to do instead of `key` in the map at `map`; none when it is nobody's habit.
pub(super) fn key(map: &ConfigPath, key: &str) -> Option<&'static str> {
    let mut steps = map.0.split('/').skip(1);
    let place = (steps.next()?, steps.next(), steps.next(), steps.next());
    Some(match (place, key) {
        (("listeners", Some(_), None, None), "listen" | "address" | "addr" | "port") => {
            "an address is `bind: \":8080\"` or `bind: 192.0.2.1:8080`"
        }
        (
            ("listeners", Some(_), None, None),
            "backend" | "upstream" | "default_backend" | "default-backend",
        ) => "the backends are a pool: name it with `pool`",
        (("listeners", Some(_), None, None), "mode") => "use `protocol: http` or `protocol: tcp`",
        (("listeners", Some(_), None, None), "ssl") => {
            "use `tls: {certificates: [{cert: FILE, key: FILE}]}`"
        }
        (("listeners", Some(_), None, None), "routes" | "rules" | "location" | "locations") => {
            "routes are settings of the filter `builtin:router`"
        }
        (("listeners", Some(_), Some("tls"), None), "cert" | "key" | "certificate" | "crt") => {
            "certificates are a list: `certificates: [{cert: FILE, key: FILE}]`"
        }
        (("pools", Some(_), Some("check"), None), "path" | "method" | "status" | "host") => {
            "it belongs to the kind of check: `http: {path: /, method: GET, status: 200}`"
        }
        (("pools", Some(_), Some("check"), None), "inter") => "use `interval`",
        (("pools", Some(_), Some("check"), None), "fastinter") => "use `fast-interval`",
        (("pools", Some(_), None, None), "servers" | "server" | "backends" | "targets") => {
            "use `endpoints`: a list of addresses"
        }
        (("pools", Some(_), None, None), "lb_policy" | "algorithm" | "strategy" | "policy") => {
            "use `balance`"
        }
        (
            ("pools", Some(_), None, None),
            "health_check" | "healthCheck" | "health-check" | "healthcheck",
        ) => "use `check`",
        (("pools", Some(_), None, None), "maxconn" | "max_conns") => "use `max-connections`",
        _ => return None,
    })
}

/// What to write instead of the word `value` at `at`.
pub(super) fn value(at: &ConfigPath, value: &str) -> Option<&'static str> {
    let mut steps = at.0.split('/').skip(1);
    let place = (steps.next()?, steps.next().is_some(), steps.next()?);
    Some(match (place, value.to_ascii_lowercase().as_str()) {
        (("listeners", true, "protocol"), "https" | "tls" | "ssl") => {
            "use `protocol: http`, or `tcp`, and give the listener `tls` with its certificates"
        }
        (("listeners", true, "protocol"), "http2" | "h2" | "h2c" | "grpc") => {
            "use `protocol: http`: HTTP/2 is a part of it"
        }
        (("pools", true, "protocol"), "https") => {
            "use `protocol: http1` and give the pool `tls: {}`"
        }
        (("pools", true, "protocol"), "h2" | "h2c" | "grpc") => "use `protocol: http2`",
        (("pools", true, "balance"), "roundrobin" | "rr") => "use `round-robin`",
        (("pools", true, "balance"), "leastconn" | "least_conn") => "use `least-request`",
        (("pools", true, "balance"), "ip_hash" | "source") => {
            "use `hash`: without a sticky key it goes by the client address"
        }
        _ => return None,
    })
}
