//! What a proxy does to fields: hop-by-hop removal, the client address, forwarding fields (RFC 9110 §7.6, RFC 7239).

use super::client::Client;
use super::client_origin::Origin;
use super::h1::framing::trim;
use crate::config::{Forwarded, HttpOptions};
use crate::connection::Connection;
use crate::generation::RequestId;
use crate::head::{Fields, RequestHead, Version};
use std::net::IpAddr;

/// What the hop-by-hop fields of a request asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Hop {
    /// `TE: trailers`: the client can take trailers.
    pub trailers: bool,
    /// The protocols of `Upgrade` in their order, when `Connection` names it.
    pub upgrade: Vec<Vec<u8>>,
    /// What `Connection` names, lower case: trailers of these names end here too.
    pub named: Vec<Vec<u8>>,
}

/// What is known of a request once its fields were made fit for filters.
#[derive(Debug)]
pub struct Arrived {
    pub client: Client,
    /// The id that a trusted peer gave it.
    pub id: Option<RequestId>,
    pub hop: Hop,
}

/// Everything that is done to a request's head before the filters.
pub fn arrive(connection: &Connection, options: &HttpOptions, head: &mut RequestHead) -> Arrived {
    let mut client = Client::of(connection, options, &head.fields);
    if options.trusts(connection.peer.ip()) {
        client.origin = Origin::claimed(connection, options, head);
    }
    let fields = &mut head.fields;
    distrust(connection, options, fields);
    let id = match fields.get(b"x-request-id").map(RequestId::from_client) {
        Some(None) => {
            // One exchange has one id: what the backend is told must be what the record says.
            fields.remove(b"x-request-id");
            None
        }
        given => given.flatten(),
    };
    let hop = strip_hop_by_hop(fields);
    Arrived { client, id, hop }
}

/// Everything that is done to a request's fields after the filters.
pub fn depart(
    connection: &Connection,
    options: &HttpOptions,
    client: &Client,
    request_id: &str,
    head: &mut RequestHead,
) {
    write_forwarded(connection, options, client, request_id, head);
    let version = head.version;
    write_via(&mut head.fields, version, &options.via);
    head.fields.remove(b"content-length");
}

/// Fields that `Connection` may not name away (they are end-to-end, and filters and backends decide by them).
fn is_protected(name: &[u8]) -> bool {
    matches!(
        name,
        b"host"
            | b"content-length"
            | b"content-type"
            | b"authorization"
            | b"cookie"
            | b"cache-control"
            | b"forwarded"
            | b"via"
    ) || name.starts_with(b"x-forwarded-")
}

/// Fields that concern one hop whether `Connection` names them or not.
fn is_hop_by_hop(name: &[u8]) -> bool {
    match name.len() {
        2 => name == b"te",
        7 => name == b"upgrade",
        10 => name == b"connection" || name == b"keep-alive",
        14 => name == b"http2-settings",
        16 => name == b"proxy-connection",
        17 => name == b"transfer-encoding",
        18 => name == b"proxy-authenticate",
        19 => name == b"proxy-authorization",
        _ => false,
    }
}

/// Removes hop-by-hop fields and what `Connection` names; says what they asked for. Runs before filters.
pub fn strip_hop_by_hop(fields: &mut Fields) -> Hop {
    let mut hop = Hop::default();
    let mut named: Vec<Vec<u8>> = Vec::new();
    let mut names_upgrade = false;
    let mut protocols = Vec::new();
    for (name, value) in fields.iter() {
        match name {
            b"connection" => {
                for option in value.split(|&b| b == b',').map(trim) {
                    if option.eq_ignore_ascii_case(b"upgrade") {
                        names_upgrade = true;
                    } else if !option.is_empty()
                        && !option.eq_ignore_ascii_case(b"close")
                        && !option.eq_ignore_ascii_case(b"keep-alive")
                    {
                        named.push(option.to_ascii_lowercase());
                    }
                }
            }
            b"te" => {
                hop.trailers |= value
                    .split(|&b| b == b',')
                    .any(|t| trim(t).eq_ignore_ascii_case(b"trailers"));
            }
            b"upgrade" => {
                let listed = value.split(|&b| b == b',').map(trim);
                protocols.extend(listed.filter(|p| !p.is_empty()).map(<[u8]>::to_vec));
            }
            _ => {}
        }
    }
    if names_upgrade {
        hop.upgrade = protocols;
    }
    fields.retain_lines(|name, _| {
        !is_hop_by_hop(name) && (named.is_empty() || !is_named(&named, name))
    });
    hop.named = named;
    hop
}

fn is_named(named: &[Vec<u8>], name: &[u8]) -> bool {
    !is_protected(name) && named.iter().any(|n| n == name)
}

/// Trailers obey the same rules as fields, and may not carry what frames, routes, authenticates or steers a message
/// (RFC 9110 §6.5.1), nor what says who the client is: that was settled with the head.
pub fn strip_trailers(trailers: &mut Fields, hop: &Hop) {
    trailers.retain_lines(|name, _| {
        !is_hop_by_hop(name) && !is_named(&hop.named, name) && !is_of_heads_alone(name)
    });
}

fn is_of_heads_alone(name: &[u8]) -> bool {
    matches!(
        name,
        b"authorization"
            | b"cache-control"
            | b"content-encoding"
            | b"content-length"
            | b"content-range"
            | b"content-type"
            | b"cookie"
            | b"expect"
            | b"forwarded"
            | b"host"
            | b"location"
            | b"max-forwards"
            | b"range"
            | b"set-cookie"
            | b"trailer"
            | b"via"
            | b"www-authenticate"
            | b"x-real-ip"
            | b"x-request-id"
    ) || name.starts_with(b"x-forwarded-")
}

/// Drops what an untrusted peer claims about itself. Runs before filters, so that they see only what can be believed.
pub fn distrust(connection: &Connection, options: &HttpOptions, fields: &mut Fields) {
    if options.trusts(connection.peer.ip()) {
        // A proxy that does not know this field passes on whatever its own client wrote into it.
        if writes(options.forwarded).0 {
            fields.remove(b"x-real-ip");
        }
    } else {
        fields.retain_lines(|name, _| {
            !(name.starts_with(b"x-forwarded-")
                || name == b"forwarded"
                || name == b"x-real-ip"
                || name == b"x-request-id")
        });
    }
}

/// Writes the forwarding fields. Runs after the request filters; what they set of these fields stays in front.
pub fn write_forwarded(
    connection: &Connection,
    options: &HttpOptions,
    client: &Client,
    request_id: &str,
    head: &mut RequestHead,
) {
    let (x, rfc) = writes(options.forwarded);
    let scheme = client.origin.scheme();
    if x {
        append_to_list(
            &mut head.fields,
            b"x-forwarded-for",
            connection.peer_text.as_bytes(),
        );
        if !head.asked_authority().is_empty() && !head.fields.contains(b"x-forwarded-host") {
            let authority = head.asked_authority().to_vec();
            head.fields.append(b"x-forwarded-host", &authority);
        }
        set_if_absent(
            &mut head.fields,
            b"x-forwarded-port",
            itoa::Buffer::new().format(client.origin.port).as_bytes(),
        );
        set_if_absent(&mut head.fields, b"x-forwarded-proto", scheme.as_bytes());
        set_if_absent(
            &mut head.fields,
            b"x-real-ip",
            client.text(connection).as_bytes(),
        );
        set_if_absent(&mut head.fields, b"x-request-id", request_id.as_bytes());
    }
    if rfc {
        let mut element = String::with_capacity(96);
        element.push_str("for=");
        push_node(&mut element, connection.peer.ip());
        element.push_str(";by=");
        push_node(&mut element, connection.local.ip());
        // An element that begins the list is all that is known of the client; a further one is about this hop.
        let (host, scheme) = match head.fields.contains(b"forwarded") {
            false => (head.asked_authority(), client.origin.scheme()),
            true => (
                head.received_authority(),
                Origin::of_connection(connection).scheme(),
            ),
        };
        if !host.is_empty() {
            element.push_str(";host=\"");
            element.push_str(&String::from_utf8_lossy(host));
            element.push('"');
        }
        element.push_str(";proto=");
        element.push_str(scheme);
        append_to_list(&mut head.fields, b"forwarded", element.as_bytes());
    }
}

/// Whether the `X-Forwarded-` fields are written, and whether `Forwarded` is.
fn writes(forwarded: Forwarded) -> (bool, bool) {
    match forwarded {
        Forwarded::X => (true, false),
        Forwarded::Rfc7239 => (false, true),
        Forwarded::Both => (true, true),
        Forwarded::None => (false, false),
    }
}

fn push_node(out: &mut String, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => out.push_str(&ip.to_string()),
        IpAddr::V6(ip) => {
            out.push_str("\"[");
            out.push_str(&ip.to_string());
            out.push_str("]\"");
        }
    }
}

fn set_if_absent(fields: &mut Fields, name: &[u8], value: &[u8]) {
    if !fields.contains(name) {
        fields.append(name, value);
    }
}

/// Adds an element to a list field as one comma-joined line.
fn append_to_list(fields: &mut Fields, name: &[u8], element: &[u8]) {
    if !fields.contains(name) {
        fields.append(name, element);
        return;
    }
    let mut joined = Vec::new();
    let lines = fields.get_all(name).filter(|line| !line.is_empty());
    for part in lines.chain([element]) {
        if !joined.is_empty() {
            joined.extend_from_slice(b", ");
        }
        joined.extend_from_slice(part);
    }
    fields.set(name, &joined);
}

/// Adds this proxy to `Via` (RFC 9110 §7.6.3), with the version the message came in.
pub fn write_via(fields: &mut Fields, version: Version, name: &str) {
    let protocol: &[u8] = match version {
        Version::Http10 => b"1.0 ",
        Version::Http11 => b"1.1 ",
        Version::Http2 => b"2 ",
    };
    let mut value: smallvec::SmallVec<[u8; 64]> = smallvec::SmallVec::from_slice(protocol);
    value.extend_from_slice(name.as_bytes());
    fields.append(b"via", &value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(lines: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::default();
        for (name, value) in lines {
            fields.append(name.as_bytes(), value.as_bytes());
        }
        fields
    }

    fn options(trusted: &[&str]) -> HttpOptions {
        HttpOptions {
            forwarded: Forwarded::Both,
            trusted_proxies: trusted.iter().map(|t| t.parse().unwrap()).collect(),
            http2: true,
            trace: false,
            upgrade: vec![],
            via: "sluicegate".into(),
        }
    }

    fn connection(peer: &str) -> Connection {
        Connection::new(
            "l".into(),
            peer.parse().unwrap(),
            "10.0.0.1:80".parse().unwrap(),
        )
    }

    #[test]
    fn removes_what_connection_names_but_not_what_is_protected() {
        let mut f = fields(&[
            ("connection", "X-A, Authorization, host"),
            ("connection", "upgrade, x-forwarded-for"),
            ("upgrade", "h2c,, WebSocket"),
            ("upgrade", "tcp"),
            ("x-a", "1"),
            ("authorization", "a"),
            ("x-forwarded-for", "1.1.1.1"),
            ("te", "trailers, deflate"),
            ("proxy-authorization", "p"),
            ("transfer-encoding", "chunked"),
            ("accept", "*/*"),
        ]);
        let hop = strip_hop_by_hop(&mut f);
        assert!(hop.trailers);
        assert_eq!(hop.upgrade, [&b"h2c"[..], b"WebSocket", b"tcp"]);
        assert_eq!(hop.named[0], b"x-a");
        let names: Vec<_> = f
            .iter()
            .map(|(n, _)| String::from_utf8_lossy(n).into_owned())
            .collect();
        assert_eq!(names, ["authorization", "x-forwarded-for", "accept"]);
    }

    #[test]
    fn forwarding_fields_are_set_anew_or_appended() {
        let mut head = RequestHead::new(
            Version::Http11,
            b"GET",
            b"h:8",
            b"/",
            fields(&[("x-forwarded-for", "1.1.1.1"), ("x-real-ip", "1.1.1.1")]),
        );
        let c = connection("[2001:db8::9]:5");
        let o = options(&[]);
        distrust(&c, &o, &mut head.fields);
        let who = Client::of(&c, &o, &head.fields);
        write_forwarded(&c, &o, &who, "id1", &mut head);
        let text = |n: &str| {
            head.fields
                .get(n.as_bytes())
                .map(|v| String::from_utf8_lossy(v).into_owned())
                .unwrap()
        };
        assert_eq!(text("x-forwarded-for"), "2001:db8::9");
        assert_eq!(text("x-real-ip"), "2001:db8::9");
        assert_eq!(text("x-forwarded-host"), "h:8");
        assert_eq!(text("x-forwarded-port"), "80");
        assert_eq!(text("x-forwarded-proto"), "http");
        assert_eq!(
            text("forwarded"),
            "for=\"[2001:db8::9]\";by=10.0.0.1;host=\"h:8\";proto=http"
        );

        let o = options(&["2001:db8::/32"]);
        let mut head = RequestHead::new(
            Version::Http11,
            b"GET",
            b"h",
            b"/",
            fields(&[
                ("x-forwarded-for", "1.1.1.1"),
                ("x-forwarded-for", "2.2.2.2"),
            ]),
        );
        distrust(&c, &o, &mut head.fields);
        let who = Client::of(&c, &o, &head.fields);
        write_forwarded(&c, &o, &who, "id1", &mut head);
        assert_eq!(
            head.fields.get_all(b"x-forwarded-for").collect::<Vec<_>>(),
            [b"1.1.1.1, 2.2.2.2, 2001:db8::9"]
        );
        assert_eq!(who.text(&c), "2.2.2.2");
    }
}
