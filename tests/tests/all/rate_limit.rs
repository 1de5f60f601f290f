//! `builtin:rate-limit` in front of real clients: exact over workers, over processes, and with a store that is gone.

use std::net::{IpAddr, SocketAddr};
use std::process::{Child, Command, Stdio};

use sluicegate_tests::addresses::Addresses;
use sluicegate_tests::backend::{Backend, refused};
use sluicegate_tests::client::{get, get_from};
use sluicegate_tests::proxy::{Proxy, Start, sluicegate};
use sluicegate_tests::wait::{DEADLINE, eventually};

fn limited(backend: &Backend, settings: &str, filter: &str) -> (Proxy, SocketAddr) {
    let bind = Addresses::new().free();
    let proxy = Start::new().run(&format!(
        "workers: 2\npools: {{web: {{endpoints: [\"{}\"]}}}}\n\
         filters:\n  limit: {{module: \"builtin:rate-limit\", capabilities: [clock, key-value], settings: {{{settings}}}{filter}}}\n\
         listeners:\n  - {{name: web, bind: \"{bind}\", protocol: http, pool: web, filters: [limit]}}\n",
        backend.address()
    ));
    (proxy, bind)
}

fn passed(bind: SocketAddr, requests: usize) -> usize {
    let statuses = (0..requests).map(|_| get(bind, "/").expect("a response").status);
    statuses.filter(|&status| status == 200).count()
}

#[test]
fn a_bucket_is_exact_over_the_workers_and_each_client_has_one() {
    let web = Backend::http("web");
    let (_proxy, bind) = limited(&web, "rate: 20/h, headers: true", "");
    // Each request has a connection of its own, so that both workers serve.
    assert_eq!(passed(bind, 50), 20);
    assert_eq!(web.received().len(), 20);
    let refused = get(bind, "/").expect("a response");
    assert_eq!(refused.status, 429);
    assert_eq!(
        refused.field("ratelimit-policy"),
        Some("\"default\";q=20;w=3600")
    );
    let retry: u64 = refused.field("retry-after").unwrap().parse().unwrap();
    assert!((1..=180).contains(&retry), "{retry}");
    let other: IpAddr = "127.0.0.2".parse().unwrap();
    let answer = get_from(other, bind, "/").expect("a response");
    assert_eq!(answer.status, 200);
    assert!(
        answer
            .field("ratelimit")
            .unwrap()
            .starts_with("\"default\";r=19;t=")
    );
}

#[test]
fn a_missing_grant_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("sluicegate.yaml");
    let yaml = "listeners:\n  - {name: web, bind: \"127.0.0.1:1\", protocol: http, filters: [{module: \"builtin:rate-limit\", settings: {rate: 1/s}}]}\n";
    std::fs::write(&path, yaml).expect("written");
    let output = sluicegate(&["check", "-c", &path.display().to_string()]);
    assert_eq!(output.code, 78);
    assert!(
        output.stderr.contains("capabilities: [clock"),
        "{}",
        output.stderr
    );
}

/// A server that ends with the test.
struct Redis(Child, SocketAddr);

impl Redis {
    fn start() -> Self {
        let address = Addresses::new().free();
        let child = Command::new("redis-server")
            .args(["--port", &address.port().to_string()])
            .args(["--bind", &address.ip().to_string()])
            .args(["--save", "", "--appendonly", "no"])
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server starts");
        let up = || std::net::TcpStream::connect(address).is_ok();
        assert!(eventually(DEADLINE, up), "redis-server does not listen");
        Self(child, address)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn two_proxies_share_their_buckets_in_redis() {
    let web = Backend::http("web");
    let redis = Redis::start();
    let store = format!(", store: \"redis://{}\"", redis.1);
    let (_one, first) = limited(&web, "rate: 20/h", &store);
    let (_two, second) = limited(&web, "rate: 20/h", &store);
    let both: usize = (0..15).map(|_| passed(first, 1) + passed(second, 1)).sum();
    assert_eq!(both, 20);
}

#[test]
fn what_a_store_that_is_gone_means_is_configured() {
    let web = Backend::http("web");
    let store = format!(", store: \"redis://{}\"", refused());
    let (_one, bind) = limited(&web, "rate: 1/h", &store);
    assert_eq!(passed(bind, 3), 3);
    let (_two, bind) = limited(&web, "rate: 1/h, on-store-error: deny", &store);
    assert_eq!(passed(bind, 3), 0);
}
