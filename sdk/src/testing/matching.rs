//! The plan's predicate, evaluated as the host does.

use std::net::IpAddr;

use super::message::TestRequest;
use crate::glob::Glob;
use crate::predicate::Test;

/// Whether the filter is called for `request`. Panics on a predicate that the host would refuse.
#[track_caller]
pub fn matches(nodes: &[Test], request: &TestRequest) -> bool {
    if nodes.is_empty() {
        return true;
    }
    let mut stack: Vec<bool> = Vec::new();
    for node in nodes {
        let value = match node {
            Test::All(n) => take(&mut stack, *n).into_iter().all(|v| v),
            Test::Any(n) => take(&mut stack, *n).into_iter().any(|v| v),
            Test::Negate => !take(&mut stack, 1)[0],
            test => holds(test, request),
        };
        stack.push(value);
    }
    match stack[..] {
        [value] => value,
        _ => panic!("the predicate leaves {} values", stack.len()),
    }
}

fn take(stack: &mut Vec<bool>, n: u32) -> Vec<bool> {
    match stack.len().checked_sub(n as usize) {
        Some(from) => stack.split_off(from),
        None => panic!("the predicate pops more than it pushed"),
    }
}

fn holds(test: &Test, request: &TestRequest) -> bool {
    let lines = |name: &str, fits: &dyn Fn(&[u8]) -> bool| {
        request
            .fields
            .iter()
            .any(|(n, value)| n == name && fits(value))
    };
    match test {
        Test::Method(methods) => methods.iter().any(|method| method == request.method()),
        Test::Path(path) => path == request.path(),
        Test::PathPrefix(prefix) => under(request.path(), prefix),
        Test::PathGlob(glob) => Glob::new(glob).matches(request.path().as_bytes()),
        Test::Host(glob) => {
            let host = request.host().to_ascii_lowercase();
            Glob::new(&glob.to_ascii_lowercase()).matches(host.as_bytes())
        }
        Test::HeaderPresent(name) => lines(name, &|_| true),
        Test::HeaderEquals(name, value) => lines(name, &|line| line == value.as_bytes()),
        Test::HeaderPrefix(name, value) => lines(name, &|line| line.starts_with(value.as_bytes())),
        Test::HeaderContains(name, values) => lines(name, &|line| {
            values.iter().any(|value| contains(line, value.as_bytes()))
        }),
        Test::Client(networks) => networks.iter().any(|n| inside(request.client_ip(), n)),
        Test::All(_) | Test::Any(_) | Test::Negate => unreachable!("operators are not tests"),
    }
}

fn under(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || prefix.ends_with('/'))
}

fn contains(line: &[u8], value: &[u8]) -> bool {
    value.is_empty() || line.windows(value.len()).any(|window| window == value)
}

fn inside(client: &str, network: &str) -> bool {
    let (address, bits) = network.split_once('/').unwrap_or((network, "128"));
    let (Ok(client), Ok(address), Ok(bits)) = (
        client.parse::<IpAddr>(),
        address.parse::<IpAddr>(),
        bits.parse::<u32>(),
    ) else {
        panic!("`{network}` is no network");
    };
    let (client, address, width) = match (client, address) {
        (IpAddr::V4(c), IpAddr::V4(a)) => (c.to_bits().into(), a.to_bits().into(), 32),
        (IpAddr::V6(c), IpAddr::V6(a)) => (c.to_bits(), a.to_bits(), 128),
        _ => return false,
    };
    let differ: u128 = client ^ address;
    let bits = bits.min(width);
    bits == 0 || differ >> (width - bits) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::predicate::Match;

    #[track_caller]
    fn check(predicate: Match, request: &TestRequest, expected: bool) {
        assert_eq!(
            matches(&predicate.nodes(), request),
            expected,
            "{predicate:?}"
        );
    }

    #[test]
    fn predicates_hold_as_the_contract_says() {
        let request = TestRequest::get("/api/x?q")
            .authority("WWW.example:8080")
            .client("10.1.2.3:4")
            .field("X-A", "one two");
        for (predicate, expected) in [
            (Match::method(["POST", "GET"]), true),
            (Match::method(["get"]), false),
            (Match::path("/api/x"), true),
            (Match::path_prefix("/api"), true),
            (Match::path_prefix("/ap"), false),
            (Match::path_prefix("/"), true),
            (Match::path_glob("/api/?"), true),
            (Match::path_glob("/api"), false),
            (Match::host("*.EXAMPLE"), true),
            (Match::host("example"), false),
            (Match::header("x-a"), true),
            (Match::header("x-b"), false),
            (Match::header_equals("x-a", "one two"), true),
            (Match::header_equals("x-a", "one"), false),
            (Match::header_prefix("X-A", "one"), true),
            (Match::header_contains("x-a", ["zwei", "two"]), true),
            (Match::client(["10.0.0.0/8"]), true),
            (Match::client(["10.2.0.0/16", "::/0"]), false),
            (Match::client(["0.0.0.0/0"]), true),
            (!Match::path("/api/x"), false),
            (!!Match::path("/api/x"), true),
            (Match::path("/").or(Match::header("x-a")), true),
            (Match::path("/").and(Match::header("x-a")), false),
            (
                Match::method(["GET"])
                    .and(!Match::path("/").or(Match::path("/y")))
                    .and(Match::header("x-a")),
                true,
            ),
            (Match::all([]), true),
            (Match::any([]), false),
        ] {
            check(predicate, &request, expected);
        }
        assert!(matches(&[], &request));
    }
}
