//! Checks and name watches against real sockets of this machine.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::Checks;
use crate::config::{Balance, CheckConfig, CheckKind, EndpointAddress, EndpointConfig, PoolConfig};
use crate::discovery::{Answer, Resolve, ResolveError, Resolving, SystemResolver};
use crate::upstream::tests::{by, check, config};
use crate::upstream::{PickError, Pool, Registry, State};

/// Answers from a table that the test edits; counts the questions.
#[derive(Default)]
struct Table {
    hosts: Mutex<HashMap<String, Result<Answer, ResolveError>>>,
    asked: AtomicUsize,
}

impl Table {
    fn set(&self, host: &str, ips: &[&str]) {
        let ips = ips.iter().map(|ip| ip.parse::<IpAddr>().unwrap()).collect();
        let answer = Answer::new(ips, Some(Duration::ZERO));
        self.hosts.lock().unwrap().insert(host.into(), answer);
    }
}

impl Resolve for Table {
    fn resolve<'a>(&'a self, host: &'a str) -> Resolving<'a> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let answer = self.hosts.lock().unwrap().get(host).cloned();
        Box::pin(async { answer.unwrap_or(Err(ResolveError::NoAddress)) })
    }
}

fn pool_of(endpoints: &[EndpointAddress], check: Option<CheckConfig>) -> Arc<Pool> {
    let endpoints = endpoints.iter().map(|address| EndpointConfig {
        address: address.clone(),
        weight: 1,
        at: Default::default(),
    });
    let config = PoolConfig {
        endpoints: endpoints.collect(),
        check,
        handler: Default::default(),
        resolve_interval: Duration::from_millis(20),
        ..config(&[], Balance::RoundRobin)
    };
    Pool::from_config(&Arc::new(config), None, &Registry::new())
}

fn watch(pool: &Arc<Pool>) -> Checks {
    let resolver: Arc<dyn Resolve> = Arc::new(SystemResolver::new());
    Checks::spawn(pool, &resolver)
}

/// Waits for something that must come true.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), wait).await;
    assert!(waited.is_ok(), "never: {what}");
}

fn states(pool: &Pool) -> Vec<State> {
    pool.report().iter().map(|r| r.state).collect()
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// An HTTP server that answers every request with the status found in `status`, or never when that is 0.
async fn server(status: Arc<AtomicU16>, asked: Arc<Mutex<String>>) -> SocketAddr {
    let (listener, address) = listener().await;
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (status, asked) = (Arc::clone(&status), Arc::clone(&asked));
            tokio::spawn(async move {
                let mut request = vec![0; 4096];
                let read = stream.read(&mut request).await.unwrap_or(0);
                *asked.lock().unwrap() = String::from_utf8_lossy(&request[..read]).into_owned();
                match status.load(Ordering::SeqCst) {
                    0 => std::future::pending().await,
                    status => {
                        let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n");
                        let _ = stream.write_all(answer.as_bytes()).await;
                    }
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn tcp_checks_decide_before_the_first_pick_and_follow_the_truth() {
    let (up, up_address) = listener().await;
    let (down, down_address) = listener().await;
    drop(down);
    let endpoints = [up_address, down_address].map(EndpointAddress::Ip);
    let pool = pool_of(&endpoints, Some(check(CheckKind::Tcp)));
    let checks = watch(&pool);
    for _ in 0..10 {
        let lease = pool.pick_settled(&by(1)).await.unwrap();
        assert_eq!(lease.endpoint.address, up_address);
    }
    assert_eq!(states(&pool), [State::Up, State::Down]);
    assert_eq!(
        pool.report()[1].error.as_deref(),
        Some("connection refused")
    );

    let back = TcpListener::bind(down_address).await.unwrap();
    drop(up);
    until("roles change", || states(&pool) == [State::Down, State::Up]).await;
    drop((back, checks));
    let probes = pool.report()[0].endpoint.note().since;
    assert_eq!(pool.pick(&by(1)).unwrap().endpoint.address, down_address);
    assert_eq!(pool.report()[0].endpoint.note().since, probes);
}

#[tokio::test]
async fn http_checks_read_the_status() {
    let status = Arc::new(AtomicU16::new(200));
    let asked = Arc::new(Mutex::new(String::new()));
    let address = server(Arc::clone(&status), Arc::clone(&asked)).await;
    let kind = CheckKind::Http {
        method: "GET".into(),
        path: "/healthz".into(),
        host: None,
        status: vec![(200, 299), (404, 404)],
    };
    let quick = CheckConfig {
        timeout: Duration::from_millis(500),
        ..check(kind)
    };
    let pool = pool_of(&[EndpointAddress::Ip(address)], Some(quick));
    let _checks = watch(&pool);
    pool.first_checks().await;
    assert_eq!(states(&pool), [State::Up]);
    let request = asked.lock().unwrap().clone();
    assert!(
        request.starts_with("GET /healthz HTTP/1.1\r\n"),
        "{request}"
    );
    assert!(
        request.contains(&format!("\r\nhost: {address}\r\n")),
        "{request}"
    );

    let turns = [
        (503, State::Down, Some("status 503")),
        (404, State::Up, None),
        (0, State::Down, Some("no answer within 500 ms")),
        (204, State::Up, None),
    ];
    for (code, state, error) in turns {
        status.store(code, Ordering::SeqCst);
        until("the check follows", || states(&pool) == [state]).await;
        if error.is_some() {
            assert_eq!(pool.report()[0].error.as_deref(), error);
        }
    }
}

#[tokio::test]
async fn waiting_for_first_checks_is_bounded() {
    let (_listener, address) = listener().await;
    let quick = CheckConfig {
        timeout: Duration::from_millis(10),
        ..check(CheckKind::Tcp)
    };
    // Nobody checks.
    let pool = pool_of(&[EndpointAddress::Ip(address)], Some(quick));
    assert!(pool.pick_settled(&by(1)).await.is_ok());
    assert!(pool.is_settled());
}

#[tokio::test]
async fn localhost_resolves_before_the_first_pick() {
    let (_listener, address) = listener().await;
    let name = EndpointAddress::Name {
        host: "localhost".into(),
        port: address.port(),
    };
    let pool = pool_of(&[name], Some(check(CheckKind::Tcp)));
    assert_eq!(pool.pick(&by(1)).err(), Some(PickError::NoHealthy));
    let _checks = watch(&pool);
    let lease = pool.pick_settled(&by(1)).await.unwrap();
    assert_eq!(lease.endpoint.address, address);
    assert_eq!(
        *lease.endpoint.authority,
        *format!("localhost:{}", address.port())
    );
}

#[tokio::test]
async fn names_are_resolved_again_and_failures_keep_the_last_set() {
    let table = Arc::new(Table::default());
    table.set("app", &["10.0.0.2", "10.0.0.1"]);
    let resolver: Arc<dyn Resolve> = Arc::clone(&table) as _;
    let named = |host: &str| EndpointAddress::Name {
        host: host.into(),
        port: 80,
    };
    let pool = pool_of(&[named("app"), named("gone")], None);
    let checks = Checks::spawn(&pool, &resolver);
    let texts = || -> Vec<String> {
        let members = pool.members();
        members
            .iter()
            .map(|m| m.endpoint.text.to_string())
            .collect()
    };
    pool.first_checks().await;
    assert_eq!(texts(), ["10.0.0.1:80", "10.0.0.2:80"]);
    let kept = pool.members()[1].endpoint.id;

    table.set("gone", &["10.0.1.1"]);
    table.set("app", &["10.0.0.2"]);
    until("both are seen", || {
        texts() == ["10.0.0.2:80", "10.0.1.1:80"]
    })
    .await;
    assert_eq!(pool.members()[0].endpoint.id, kept);

    table.hosts.lock().unwrap().clear();
    let asked = table.asked.load(Ordering::SeqCst);
    until("asked again", || {
        table.asked.load(Ordering::SeqCst) >= asked + 2
    })
    .await;
    assert_eq!(texts(), ["10.0.0.2:80", "10.0.1.1:80"]);
    drop(checks);
    until("the task is gone", || Arc::strong_count(&pool) == 1).await;
}

#[tokio::test]
async fn members_that_go_are_no_longer_checked() {
    let (first, first_address) = listener().await;
    let table = Arc::new(Table::default());
    table.set("app", &["127.0.0.1"]);
    let resolver: Arc<dyn Resolve> = Arc::clone(&table) as _;
    let name = EndpointAddress::Name {
        host: "app".into(),
        port: first_address.port(),
    };
    let pool = pool_of(&[name], Some(check(CheckKind::Tcp)));
    let checks = Checks::spawn(&pool, &resolver);
    pool.first_checks().await;
    let gone = Arc::clone(&pool.members()[0].endpoint);
    table.set("app", &["127.0.0.2"]);
    until("the address changes", || {
        pool.members()[0].endpoint.id != gone.id
    })
    .await;
    // The pool remembers it, in case the name answers it again.
    until("its loop ends", || Arc::strong_count(&gone) == 2).await;
    drop((first, checks));
}

#[test]
fn checks_run_on_a_local_set_too() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let (_listener, address) = listener().await;
        let pool = pool_of(&[EndpointAddress::Ip(address)], Some(check(CheckKind::Tcp)));
        let _checks = watch(&pool);
        pool.first_checks().await;
        assert_eq!(states(&pool), [State::Up]);
    });
}
