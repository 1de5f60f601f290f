//! Host names as endpoints, answered by a name server: names that go, that come back, and that give a part each time.

use std::net::{Ipv4Addr, SocketAddr};

use sluicegate_tests::addresses::Addresses;
use sluicegate_tests::backend::Backend;
use sluicegate_tests::client::get;
use sluicegate_tests::dns::{NameServer, Reply};
use sluicegate_tests::proxy::Proxy;
use sluicegate_tests::wait::{DEADLINE, eventually};

struct Named {
    proxy: Proxy,
    bind: SocketAddr,
}

impl Named {
    fn start(server: &NameServer, port: u16, grace: &str) -> Self {
        let bind = Addresses::new().free();
        let proxy = Proxy::start(&format!(
            "pools:\n  web:\n    endpoints: [\"app.test:{port}\"]\n    resolve-interval: 100ms\n    name-servers: [\"{}\"]\n{grace}\
             listeners: [{{name: web, bind: \"{bind}\", protocol: http, pool: web}}]\n",
            server.address()
        ));
        Self { proxy, bind }
    }

    fn status(&self) -> u16 {
        get(self.bind, "/").expect("a response").status
    }

    fn pool(&self, metric: &str) -> f64 {
        let series = format!("sluicegate_pool_{metric}{{pool=\"web\"}}");
        self.proxy.metric(&series)
    }
}

/// Waits for so many further questions.
fn asked(server: &NameServer, more: usize) {
    let from = server.asked();
    assert!(eventually(DEADLINE, || server.asked() >= from + more));
}

#[test]
fn a_name_that_is_gone_loses_its_addresses_after_a_while() {
    let server = NameServer::new();
    let backend = Backend::http("app");
    let here = || Reply::Addresses(vec![Ipv4Addr::LOCALHOST]);
    server.set("app.test", here());
    let grace = "    resolve-grace: 1s\n";
    let named = Named::start(&server, backend.address().port(), grace);
    assert_eq!(named.status(), 200);
    for (n, gone) in [Reply::NoSuchName, Reply::NoAddress]
        .into_iter()
        .enumerate()
    {
        server.set("app.test", gone);
        asked(&server, 1);
        assert_eq!(named.status(), 200, "it has just begun");
        assert!(eventually(DEADLINE, || named.status() == 503));
        assert_eq!(named.pool("endpoints"), 0.0);
        assert_eq!(named.pool("unresolved_names"), 1.0);
        assert_eq!(named.pool("names_gone_total"), n as f64 + 1.0);
        let told = named.proxy.stderr().matches("name is gone").count();
        assert_eq!(told, n + 1, "{}", named.proxy.stderr());
        server.set("app.test", here());
        assert!(eventually(DEADLINE, || named.status() == 200));
        assert_eq!(named.pool("unresolved_names"), 0.0);
    }
}

#[test]
fn a_name_server_that_fails_takes_no_address_away() {
    let server = NameServer::new();
    let backend = Backend::http("app");
    server.set("app.test", Reply::Addresses(vec![Ipv4Addr::LOCALHOST]));
    let named = Named::start(&server, backend.address().port(), "    resolve-grace: 0s\n");
    assert_eq!(named.status(), 200);
    for failing in [Reply::ServerFailure, Reply::HalfFailure, Reply::Silence] {
        server.set("app.test", failing.clone());
        asked(&server, 4);
        assert_eq!(named.status(), 200, "{failing:?}");
        assert_eq!(named.pool("endpoints"), 1.0, "{failing:?}");
        assert_eq!(named.pool("names_gone_total"), 0.0, "{failing:?}");
    }
}

#[test]
fn a_random_part_of_a_name_s_addresses_each_time_changes_nothing() {
    let server = NameServer::new();
    let port = Addresses::new().free().port();
    let ips: Vec<Ipv4Addr> = (1..=20).map(|n| Ipv4Addr::new(127, 201, 7, n)).collect();
    let at = |&ip: &Ipv4Addr| Backend::http_at(SocketAddr::new(ip.into(), port), "app");
    let backends: Vec<Backend> = ips.iter().map(at).collect();
    server.set("app.test", Reply::Some(8, ips));
    let named = Named::start(&server, port, "    check: tcp\n");
    let all = || named.pool("healthy_endpoints") == 20.0;
    assert!(eventually(DEADLINE, all), "{}", named.proxy.stderr());
    for _ in 0..40 {
        assert_eq!(named.status(), 200);
    }
    let changes = || named.proxy.stderr().matches("name resolved").count();
    // Each has to go and come back once.
    let mut last = changes();
    assert!(eventually(DEADLINE, || {
        asked(&server, 10);
        std::mem::replace(&mut last, changes()) == changes()
    }));
    let connections: usize = backends.iter().map(Backend::connections).sum();
    asked(&server, 20);
    assert_eq!(changes(), last);
    assert_eq!(named.pool("endpoints"), 20.0);
    for _ in 0..40 {
        assert_eq!(named.status(), 200);
    }
    // No check is due anew, and connections are kept.
    let more = backends.iter().map(Backend::connections).sum::<usize>() - connections;
    assert!(more <= 20, "{more} connections were opened");
}
