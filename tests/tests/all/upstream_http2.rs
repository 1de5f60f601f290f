//! HTTP/2 towards endpoints: nghttpd, and this proxy itself in front of an HTTP/1.1 backend.

use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use sluicegate_tests::addresses::Addresses;
use sluicegate_tests::backend::{Backend, response};
use sluicegate_tests::client::{Raw, curl};
use sluicegate_tests::proxy::Start;
use sluicegate_tests::wait::{DEADLINE, eventually};

use super::rig::{Plan, Rig, TLS, with_certificate};

const SECURE: &str = "tls: {ca: c.pem, server-name: localhost}";

/// `outer`, whose pool speaks HTTP/2 to `inner`, whose backend this is.
fn chain(backend: &Backend, inner_listener: &str, outer_pool: &str) -> (Rig, Rig) {
    let start = with_certificate(Start::new());
    let pem = std::fs::read_to_string(start.directory().join("c.pem")).expect("a certificate");
    let inner = Plan::new(&[backend.address()])
        .listener(inner_listener)
        .run_with(start);
    let outer = Plan::new(&[inner.bind])
        .pool(outer_pool)
        .top("workers: 1")
        .run_with(Start::new().file("c.pem", pem));
    (outer, inner)
}

#[test]
fn the_protocol_is_what_the_pool_says_or_alpn_agrees_on() {
    let backend = Backend::http("web1");
    let tls1 = format!("{TLS}\nhttp2: false");
    let secure = |protocol: &str| format!("protocol: {protocol}\nretries: 0\n{SECURE}");
    for (inner, outer, version) in [
        ("", "protocol: http1".to_owned(), "HTTP/1.1"),
        ("", "protocol: http2".to_owned(), "HTTP/2"),
        (TLS, secure("http1"), "HTTP/1.1"),
        (TLS, secure("http2"), "HTTP/2"),
        (TLS, secure("auto"), "HTTP/2"),
        (&tls1, secure("auto"), "HTTP/1.1"),
    ] {
        let (outer, inner) = chain(&backend, inner, &outer);
        let paths = ["/a", "/b", "/c"];
        for path in paths {
            assert_eq!(outer.get(path).text(), "web1", "{version}");
        }
        for path in paths {
            let record = inner.record(path);
            assert_eq!(record["version"], version, "{record}");
        }
        let received = backend.take_received().pop().expect("a request");
        let via = received.fields("via").collect::<Vec<_>>().join(", ");
        assert_eq!(via, format!("1.1 sluicegate, {} sluicegate", &version[5..]));
    }
}

#[test]
fn an_endpoint_that_refuses_http2_by_alpn_is_502() {
    let backend = Backend::http("web1");
    let (outer, _inner) = chain(
        &backend,
        &format!("{TLS}\nhttp2: false"),
        &format!("protocol: http2\nretries: 0\n{SECURE}"),
    );
    assert_eq!(outer.get("/x").status, 502);
    assert_eq!(outer.record("/x")["reason"], "upstream-tls");
}

#[test]
fn bodies_heads_and_methods_arrive_whole() {
    let backend = Backend::http_with(|r| {
        let body = String::from_utf8_lossy(&r.body).into_owned();
        match r.head.split(' ').next() {
            Some("HEAD") => b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n".to_vec(),
            _ => response(200, &body),
        }
    });
    let big = "0123456789abcdef".repeat(100_000);
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), &big).expect("write");
    let upload = format!("@{}", file.path().display());
    for pool in [
        "protocol: http2".to_owned(),
        format!("protocol: auto\n{SECURE}"),
    ] {
        let inner = if pool.contains("tls") { TLS } else { "" };
        let (outer, _inner) = chain(&backend, inner, &pool);
        for client in ["--http1.1", "--http2-prior-knowledge"] {
            let post = |more: &[&str]| {
                let fixed = ["-X", "PUT", "--data-binary", &upload, client];
                curl(&[&fixed[..], more].concat())
            };
            let counted = post(&[&outer.url("/counted")]);
            assert!(counted.body == big, "{client}: {}", counted.stderr);
            let chunked = post(&["-H", "Transfer-Encoding: chunked", &outer.url("/chunked")]);
            assert!(chunked.body == big, "{client}: {}", chunked.stderr);
            let head = curl(&["--head", client, &outer.url("/head")]);
            assert!(head.body.contains("content-length: 7"), "{head:?}");
            let empty = curl(&["-X", "POST", "-d", "", client, &outer.url("/empty")]);
            assert_eq!((empty.code, empty.body.as_str()), (0, ""));
        }
        outer.settles();
    }
}

#[test]
fn a_slow_client_holds_the_endpoint_back() {
    let backend = Backend::raw(|stream, _| {
        let mut raw = Raw::over(stream);
        while let Ok(head) = raw.head() {
            if !head.contains("/endless") {
                let _ = raw.send(response(200, "ok"));
                continue;
            }
            let _ = raw.send("HTTP/1.1 200 OK\r\nContent-Length: 4294967296\r\n\r\n");
            while raw.send(vec![0; 1 << 20]).is_ok() {}
        }
    });
    let (outer, inner) = chain(&backend, "", "protocol: http2");
    assert_eq!(outer.get("/").text(), "ok");
    let before = outer.proxy.settled().resident_bytes;
    let mut slow: Vec<Raw> = (0..20).map(|_| outer.raw()).collect();
    for raw in &mut slow {
        raw.send("GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
            .expect("send");
    }
    for raw in &mut slow {
        raw.head().expect("head");
    }
    // Others are not held up by those that do not read.
    for _ in 0..20 {
        assert_eq!(outer.get("/").text(), "ok");
    }
    let now = outer.proxy.resources().resident_bytes;
    assert!(now < before + (64 << 20), "{now} bytes");
    drop(slow);
    outer.settles();
    // The connection between the two stays, its streams do not.
    let streams = "sluicegate_exchanges_active{listener=\"web\"}";
    assert!(eventually(DEADLINE, || inner.proxy.metric(streams) == 0.0));
}

#[test]
fn trailers_pass_both_ways() {
    let backend = Backend::raw(|stream, _| {
        let mut raw = Raw::over(stream);
        while let Ok(head) = raw.head() {
            let mut seen = Vec::new();
            while !seen.ends_with(b"\r\n\r\n") {
                match raw.exactly(1) {
                    Ok(byte) => seen.extend(byte),
                    Err(_) => return,
                }
            }
            let took = head.contains("te: trailers")
                && String::from_utf8_lossy(&seen).contains("x-check: 7");
            let _ = raw.send(format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{took:5}\r\n0\r\ngrpc-status: 0\r\n\r\n"
            ));
        }
    });
    let (outer, _inner) = chain(&backend, "", "protocol: http2");
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "hello").expect("write");
    let done = Command::new("nghttp")
        .args(["-v", "-d"])
        .arg(file.path())
        .args(["--trailer", "x-check: 7", "-H", "te: trailers"])
        .arg(outer.url("/"))
        .output()
        .expect("nghttp runs");
    let text = String::from_utf8_lossy(&done.stdout);
    assert!(text.contains("grpc-status: 0"), "{text}");
    assert!(text.contains("true"), "{text}");
}

#[test]
fn upgrades_take_http1_where_alpn_offers_it() {
    let backend = Backend::raw(|stream, _| {
        let mut raw = Raw::over(stream.try_clone().expect("clone"));
        if let Ok(head) = raw.head() {
            if !head.contains("upgrade: websocket") {
                let _ = raw.send(response(426, "upgrade"));
                return;
            }
            let _ = raw.send("HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
            let _ = std::io::copy(&mut &stream, &mut &stream);
        }
    });
    let ask = "GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    let (outer, _inner) = chain(&backend, TLS, &format!("protocol: auto\n{SECURE}"));
    let mut raw = outer.raw();
    raw.send(ask).expect("send");
    assert!(raw.head().expect("head").starts_with("HTTP/1.1 101"));
    raw.send("ping").expect("send");
    assert_eq!(raw.exactly(4).expect("echo"), b"ping");
    // Over HTTP/2 alone there is no such thing: the request arrives without its wish.
    let (outer, _inner) = chain(&backend, "", "protocol: http2");
    assert_eq!(outer.ask(ask).status, 426);
}

#[test]
fn checks_speak_http2() {
    let backend = Backend::http("web1");
    for (inner, pool, status) in [
        ("", "protocol: http2".to_owned(), 200),
        (TLS, format!("protocol: auto\n{SECURE}"), 200),
        ("http2: false", "protocol: http2".to_owned(), 503),
    ] {
        let (outer, _inner) = chain(&backend, inner, &format!("{pool}\ncheck: http"));
        assert_eq!(outer.get("/").status, status, "{inner} {pool}");
    }
}

#[test]
fn a_reload_that_changes_the_protocol_changes_it_for_the_next_request() {
    let backend = Backend::http("web1");
    let inner = Plan::new(&[backend.address()]).run();
    let plan = Plan::new(&[inner.bind]).top("workers: 1");
    let outer = plan.clone().run();
    for (n, (protocol, version)) in [
        ("http1", "HTTP/1.1"),
        ("http2", "HTTP/2"),
        ("http1", "HTTP/1.1"),
        ("http2", "HTTP/2"),
    ]
    .iter()
    .enumerate()
    {
        let yaml = plan.clone().pool(&format!("protocol: {protocol}"));
        let done = outer.proxy.reload(&yaml.yaml(outer.bind));
        assert_eq!(done.code, 0, "{}", done.stderr);
        let path = format!("/{n}");
        assert_eq!(outer.get(&path).text(), "web1");
        assert_eq!(inner.record(&path)["version"], *version);
    }
}

#[test]
fn nghttpd_is_a_backend() {
    let start = with_certificate(Start::new());
    let folder = start.directory().to_owned();
    let pem = std::fs::read_to_string(folder.join("c.pem")).expect("a certificate");
    let big = "nghttpd".repeat(100_000);
    std::fs::write(folder.join("big"), &big).expect("write");
    let plain = nghttpd(&folder, &["--no-tls", "--echo-upload"], &[]);
    let tls = nghttpd(&folder, &["--trailer=x-end: 1"], &["k.pem", "c.pem"]);
    for (server, pool) in [
        (&plain, "protocol: http2".to_owned()),
        (&tls, format!("protocol: auto\n{SECURE}")),
    ] {
        let rig = Plan::new(&[server.address])
            .pool(&pool)
            .run_with(Start::new().file("c.pem", &pem));
        for client in ["--http1.1", "--http2-prior-knowledge"] {
            let done = curl(&[client, &rig.url("/big")]);
            assert!(done.body == big, "{client}: {}", done.stderr);
            let missing = curl(&[
                client,
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                &rig.url("/no"),
            ]);
            assert_eq!(missing.body, "404");
        }
        if server.address == plain.address {
            let file = format!("@{}", folder.join("big").display());
            let done = curl(&["--data-binary", &file, &rig.url("/echo")]);
            assert!(done.body == big, "{}", done.stderr);
        }
        rig.settles();
    }
}

struct Nghttpd {
    child: Child,
    address: SocketAddr,
}

impl Drop for Nghttpd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn nghttpd(folder: &std::path::Path, options: &[&str], files: &[&str]) -> Nghttpd {
    let address = Addresses::new().free();
    let child = Command::new("nghttpd")
        .args(options)
        .arg(format!("--address={}", address.ip()))
        .arg(format!("--htdocs={}", folder.display()))
        .arg(address.port().to_string())
        .args(files)
        .current_dir(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("nghttpd runs (is nghttp2-server installed?)");
    let server = Nghttpd { child, address };
    assert!(eventually(DEADLINE, || TcpStream::connect(address).is_ok()));
    server
}
