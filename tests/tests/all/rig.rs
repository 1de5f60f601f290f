//! What most topics start with: one HTTP listener, one pool, and the records of the access log.

use std::net::SocketAddr;

use serde_json::Value;
use sluicegate_tests::addresses::Addresses;
use sluicegate_tests::client::{Raw, Response};
use sluicegate_tests::proxy::{Proxy, Start};
use sluicegate_tests::wait::{DEADLINE, until};

/// A proxy with one HTTP listener, `web`.
pub struct Rig {
    pub proxy: Proxy,
    pub bind: SocketAddr,
}

/// What a rig is made of; every part is YAML.
#[derive(Default, Clone)]
pub struct Plan {
    endpoints: Vec<SocketAddr>,
    listener: String,
    pool: String,
    top: String,
}

impl Plan {
    pub fn new(endpoints: &[SocketAddr]) -> Self {
        Self {
            endpoints: endpoints.to_vec(),
            ..Self::default()
        }
    }

    /// One more endpoint.
    pub fn endpoint(mut self, endpoint: SocketAddr) -> Self {
        self.endpoints.push(endpoint);
        self
    }

    /// Further keys of the listener, one a line.
    pub fn listener(mut self, yaml: &str) -> Self {
        self.listener.push_str(&indented(yaml, 4));
        self
    }

    /// Further keys of the pool.
    pub fn pool(mut self, yaml: &str) -> Self {
        self.pool.push_str(&indented(yaml, 4));
        self
    }

    /// Further sections.
    pub fn top(mut self, yaml: &str) -> Self {
        self.top.push_str(&indented(yaml, 0));
        self
    }

    pub fn yaml(&self, bind: SocketAddr) -> String {
        let endpoints: Vec<String> = self.endpoints.iter().map(|e| format!("\"{e}\"")).collect();
        let (pools, pool) = match endpoints.is_empty() {
            true => (String::new(), ""),
            false => (
                format!(
                    "pools:\n  web:\n    endpoints: [{}]\n{}",
                    endpoints.join(", "),
                    self.pool
                ),
                "    pool: web\n",
            ),
        };
        let log = match self.top.contains("telemetry:") {
            true => "",
            false => "telemetry: {access-log: {format: json}}\n",
        };
        format!(
            "{pools}listeners:\n  - name: web\n    bind: \"{bind}\"\n    protocol: http\n{pool}{}{log}{}",
            self.listener, self.top
        )
    }

    pub fn run(self) -> Rig {
        self.run_with(Start::new())
    }

    pub fn run_with(self, start: Start) -> Rig {
        let bind = Addresses::new().free();
        let proxy = start.run(&self.yaml(bind));
        Rig { proxy, bind }
    }
}

impl Rig {
    pub fn raw(&self) -> Raw {
        Raw::connect(self.bind)
    }

    pub fn url(&self, target: &str) -> String {
        format!("http://{}{target}", self.bind)
    }

    /// Sends `bytes` on a new connection and reads one response.
    pub fn ask(&self, bytes: impl AsRef<[u8]>) -> Response {
        let mut raw = self.raw();
        raw.send(bytes).expect("send");
        raw.response().expect("a response")
    }

    pub fn get(&self, target: &str) -> Response {
        sluicegate_tests::client::get(self.bind, target).expect("a response")
    }

    /// The record of the exchange with this target, once it is written.
    pub fn record(&self, target: &str) -> Value {
        record(&self.proxy, |r| r["target"] == target)
    }

    /// Waits until nothing runs any more, as the gauges tell.
    pub fn settles(&self) {
        for gauge in ["connections", "exchanges"] {
            let series = format!("sluicegate_{gauge}_active{{listener=\"web\"}}");
            let zero = until(DEADLINE, || {
                (self.proxy.metric(&series) == 0.0).then_some(())
            });
            assert!(zero.is_some(), "{series} is {}", self.proxy.metric(&series));
        }
    }
}

/// Adds `c.pem` and `k.pem`, for `localhost`, `a.test` and `127.0.0.1`.
pub fn with_certificate(start: Start) -> Start {
    let names = ["localhost", "a.test", "127.0.0.1"].map(str::to_owned);
    let made = sluicegate::tls::self_signed(&names, 2).expect("a certificate");
    start
        .file("c.pem", made.cert_pem)
        .file("k.pem", made.key_pem)
}

/// The listener's `tls:` that goes with [`with_certificate`].
pub const TLS: &str = "tls: {certificates: [{cert: c.pem, key: k.pem}]}";

/// Every record so far.
pub fn records(proxy: &Proxy) -> Vec<Value> {
    proxy
        .stdout()
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

/// The first record that `is`; waits for it.
pub fn record(proxy: &Proxy, is: impl Fn(&Value) -> bool) -> Value {
    until(DEADLINE, || records(proxy).into_iter().find(&is))
        .unwrap_or_else(|| panic!("no such record in:\n{}", proxy.stdout()))
}

/// How often a filter was called.
pub fn calls(proxy: &Proxy, filter: &str) -> f64 {
    proxy.metric(&format!(
        "sluicegate_filter_calls_total{{filter=\"{filter}\"}}"
    ))
}

/// How often a filter is called while an exchange with the listener at `beside` goes on: the middle of many. Counted and
/// not timed, since a busy machine takes its time for either.
pub fn calls_meanwhile(proxy: &Proxy, filter: &str, beside: SocketAddr) -> f64 {
    let mut raw = Raw::connect(beside);
    let mut ask = || {
        raw.send("GET /beside HTTP/1.1\r\nHost: x\r\n\r\n")
            .expect("send");
        assert_eq!(raw.response().expect("a response").status, 200);
    };
    ask();
    let mut each: Vec<f64> = (0..20)
        .map(|_| {
            let before = calls(proxy, filter);
            ask();
            calls(proxy, filter) - before
        })
        .collect();
    each.sort_by(f64::total_cmp);
    each[each.len() / 2]
}

fn indented(yaml: &str, by: usize) -> String {
    yaml.lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| format!("{}{line}\n", " ".repeat(by)))
        .collect()
}
