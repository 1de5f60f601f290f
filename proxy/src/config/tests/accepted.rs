//! What loads, and what it loads to.

use std::time::Duration;

use super::*;

/// The example of the manual, with all kinds of sections.
const FULL: &str = r#"
pools:
  web:
    endpoints: [192.168.45.13:80, {address: 192.168.45.14:80, weight: 2}]
    balance: round-robin
    check: {http: {path: /, status: 200}, interval: 10s}
  ssh-hosts:
    endpoints: [192.168.45.13:22, "[2001:db8::1]:22", backend.internal:22]
    check: tcp

filters:
  no-badcurl:
    module: builtin:ua-block
    settings: {deny: ["badcurl"], action: drop}

listeners:
  - name: l7-curl
    bind: 192.168.45.6:80
    protocol: http
    filters: [no-badcurl, {module: builtin:sticky, settings: {by: source}}]
    pool: web
  - name: sslacc
    bind: 192.168.45.7:443
    protocol: http
    tls: {certificates: [{cert: www-ssl.crt, key: www-ssl.key}], min-version: "1.2"}
    filters:
      - module: builtin:headers
        settings: {request: [{append: x-forwarded-by, value: "${server.address}:${server.port}"}]}
    pool: web
  - name: ssh
    bind: 192.168.45.5:6822
    protocol: tcp
    tcp: {nodelay: true, socket-buffer: 65536}
    pool: ssh-hosts
"#;

fn loaded(bench: &Bench, text: &str) -> Loaded {
    match bench.load(text) {
        Ok(loaded) => loaded,
        Err(_) => panic!("{}", bench.report(text)),
    }
}

#[test]
fn the_full_example() {
    let bench = Bench::new();
    let loaded = loaded(&bench, FULL);
    assert_eq!(loaded.warnings, []);
    let config = loaded.config;
    assert_eq!(config.workers, 4);
    assert_eq!(
        config.pools.iter().map(|p| &*p.name).collect::<Vec<_>>(),
        ["web", "ssh-hosts"]
    );
    let web = &config.pools[0];
    assert_eq!(web.endpoints[1].weight, 2);
    let check = web.check.as_ref().unwrap();
    assert_eq!(
        (check.interval, check.timeout, check.rise, check.fall),
        (Duration::from_secs(10), Duration::from_secs(1), 2, 3)
    );
    assert_eq!(check.fast_interval, Duration::from_secs(1));
    assert_eq!(
        check.kind,
        CheckKind::Http {
            method: "GET".into(),
            path: "/".into(),
            host: None,
            status: vec![(200, 200)]
        }
    );
    assert_eq!(
        config.pools[1].endpoints[2].address,
        EndpointAddress::Name {
            host: "backend.internal".into(),
            port: 22
        }
    );
    let names: Vec<&str> = config.filters.iter().map(|f| &*f.name).collect();
    assert_eq!(names, ["no-badcurl", "l7-curl/sticky", "sslacc/headers"]);
    assert_eq!(
        config.filters[2].settings["request"][0]["value"],
        "${server.address}:${server.port}"
    );
    assert_eq!(config.listeners[0].filters, [0, 1]);
    let tls = config.listeners[1].tls.as_ref().unwrap();
    assert_eq!(
        tls.certificates[0].cert,
        bench.path().join("www-ssl.crt").into()
    );
    assert_eq!(tls.min_version, TlsVersion::V1_2);
    assert_eq!(config.listeners[2].tcp.socket_buffer, Some(65536));
    assert_eq!(config.listeners[2].pool, Some(1));
    // Where later stages point.
    let at = loaded
        .sources
        .locate(&ConfigPath("/filters/no-badcurl/settings/deny/0".into()))
        .unwrap();
    assert_eq!((at.line, at.column), (14, 23));
    let nearest = loaded
        .sources
        .locate(&ConfigPath("/filters/no-badcurl/settings/status".into()))
        .unwrap();
    assert_eq!((nearest.line, nearest.column), (14, 5));
}

#[test]
fn the_defaults_are_those_of_the_model() {
    let bench = Bench::new();
    let config = loaded(&bench, SMALL).config;
    let seconds = Duration::from_secs;
    let pool = &config.pools[0];
    assert_eq!(
        (
            pool.connect_timeout,
            pool.keep_alive_max,
            pool.keep_alive_timeout
        ),
        (seconds(5), 256, seconds(60))
    );
    assert_eq!(
        (pool.max_connections, pool.retries, pool.panic),
        (None, 2, Panic::Fail)
    );
    assert_eq!(
        (pool.resolve_interval, &pool.host),
        (seconds(30), &HostPolicy::Preserve)
    );
    assert_eq!(pool.check, None);
    let listener = &config.listeners[0];
    assert_eq!(listener.bind, ["[::]:80".parse().unwrap()]);
    assert_eq!(
        listener.timeouts,
        Timeouts {
            handshake: seconds(10),
            head: seconds(10),
            body_idle: seconds(30),
            response_head: seconds(60),
            stream_idle: seconds(600),
            half_closed: seconds(30),
            keep_alive: seconds(75),
            linger: seconds(30),
            total: None,
        }
    );
    assert_eq!(
        listener.limits,
        ListenerLimits {
            connections: 65536,
            header_bytes: 64 << 10,
            header_fields: 128,
            target_bytes: 16 << 10,
            streams: 100,
            replay_bytes: 64 << 10,
            linger_bytes: 256 << 20,
        }
    );
    assert_eq!(
        listener.tcp,
        TcpOptions {
            nodelay: true,
            socket_buffer: None,
            backlog: 4096,
            splice: true,
            keep_alive: Some(seconds(60))
        }
    );
    assert_eq!(
        listener.http,
        HttpOptions {
            forwarded: Forwarded::X,
            trusted_proxies: vec![],
            http2: true,
            trace: false,
            upgrade: vec!["websocket".into()],
            via: "sluicegate".into(),
        }
    );
    assert_eq!(
        config.admin.bind,
        Some(AdminBind::Unix("/run/sluicegate/admin.sock".into()))
    );
    assert_eq!(
        config.telemetry.access_log,
        Some(AccessLogConfig {
            to: LogTarget::Stdout,
            format: LogFormat::Text
        })
    );
    assert_eq!(
        config.drain,
        DrainConfig {
            pre_stop: Duration::ZERO,
            timeout: seconds(30)
        }
    );
    assert_eq!(
        config.modules.cache,
        Some("/home/user/.cache/sluicegate".into())
    );
    let limits = FilterLimits {
        memory: 16 << 20,
        deadline: Duration::from_millis(10),
        configure_deadline: seconds(2),
        output: 1 << 20,
        cpu: None,
        host_calls: 1000,
        instances: None,
        suspends: 1024,
        state: 1 << 20,
        faults: Some(FaultLimit {
            count: 5,
            within: seconds(10),
        }),
    };
    assert_eq!(limits, FilterLimits::default());
    let with_filter = SMALL.replace(
        "pool: web",
        "pool: web, filters: [{module: builtin:sticky}]",
    );
    let filter = loaded(&bench, &with_filter).config.filters[0].clone();
    assert_eq!(filter.limits, limits);
    assert_eq!(filter.store, StoreConfig::Memory { bytes: 16 << 20 });
}

#[test]
fn scenarios() {
    let bench = Bench::new();
    let texts = [
        // A relay in front of ssh.
        "\
pools: {ssh: {endpoints: ['10.0.0.3:22', '10.0.0.4:22'], check: {tcp: {}}}}
listeners:
- {name: ssh, bind: '10.0.0.5:6822', protocol: tcp, tcp: {nodelay: true, socket-buffer: 65536}, pool: ssh}
",
        // Sticky, checked, blocking a client program.
        "\
pools: {web: {endpoints: [a.lan:80, b.lan:80], balance: hash, check: {http: {status: [200, 301-302]}, timeout: 200ms}}}
listeners:
- name: l7
  bind: [0.0.0.0:80, '[::1]:80']
  protocol: http
  filters: [{module: builtin:ua-block, settings: {deny: [badcurl]}, limits: {deadline: 5ms}, on-error: bypass}]
  pool: web
",
        // TLS only from 1.3 on, unquoted; behind another proxy.
        "\
pools: {web: {endpoints: ['10.0.0.3:80'], host: www.example.com, keep-alive: {max: 0}}}
listeners:
- name: tls
  bind: ':443'
  protocol: http
  tls: {certificates: [{cert: ./www-ssl.crt, key: www-ssl.key}], min-version: 1.3, alpn: [h2]}
  trusted-proxies: [10.0.0.0/8, '2001:db8::/32', 192.0.2.1]
  forwarded: both
  timeouts: {total: 1m30s}
  pool: web
admin: off
telemetry: {access-log: off}
modules: {cache: off}
workers: 2
",
    ];
    for text in texts {
        assert_eq!(loaded(&bench, text).warnings, [], "{text}");
    }
}

#[test]
fn anchors_and_merge_keys() {
    let bench = Bench::new();
    let config = loaded(
        &bench,
        "\
pools:
  a: &base {endpoints: ['a:1'], retries: 5, balance: hash}
  b: {<<: *base, retries: 1}
  c: *base
listeners: [{name: www, bind: ':80', protocol: http, pool: c}]
",
    )
    .config;
    assert_eq!(
        (config.pools[1].retries, config.pools[1].balance),
        (1, Balance::Hash)
    );
    assert_eq!(config.pools[2].retries, 5);
    assert_eq!(config.listeners[0].pool, Some(2));
}

#[test]
fn variables_keep_their_place_and_type() {
    let bench = Bench::new();
    let text = "\
pools:
  web:
    endpoints: ['127.0.0.1:${PORT}', {address: 'b:1', weight: '${NONE:-3}'}]
    retries: ${NONE:-4}
listeners: [{name: www, bind: ':${PORT}', protocol: http, pool: web}]
";
    // Quoted stays text, so the weight is wrong; unquoted takes the type it looks like.
    assert_eq!(codes(&bench.load(text)), ["wrong-type"]);
    let config = loaded(&bench, &text.replace("'${NONE:-3}'", "3")).config;
    assert_eq!(config.pools[0].retries, 4);
    assert_eq!(config.listeners[0].bind[0].port(), 8080);
}

#[test]
fn secrets_are_read_and_not_shown() {
    let bench = Bench::new();
    let text = SMALL.replace(
        "pool: web",
        "pool: web, filters: [{module: ./my.wasm, settings: {password: 'x${file:secret.txt}', port: '${PORT}', n: null}}]",
    );
    let loaded = loaded(&bench, &text);
    assert_eq!(
        loaded.config.filters[0].settings,
        serde_json::json!({"password": "xs3cret", "port": "8080", "n": null})
    );
    assert!(loaded.watched.contains(&bench.path().join("secret.txt")));
    assert!(!loaded.show().contains("s3cret"), "{}", loaded.show());
    assert!(loaded.show().contains("<redacted>"));
}

#[test]
fn what_is_shown_loads_to_the_same() {
    let bench = Bench::new();
    let first = loaded(&bench, FULL);
    insta::with_settings!({omit_expression => true, prepend_module_to_snapshot => false, snapshot_path => "../snapshots"}, {
        insta::assert_snapshot!("shown", first.show());
    });
    let second = loaded(&bench, first.show());
    assert_eq!(second.show(), first.show());
    assert_eq!(second.config.listeners.len(), first.config.listeners.len());
}

#[test]
fn files_add_up() {
    let bench = Bench::new();
    bench.write("main.yaml", "drain: {timeout: 1s}\npools:\n");
    bench.write("conf.d/10-pools.yaml", "pools: {a: {endpoints: ['a:1']}}\n");
    bench.write("conf.d/20-more.yaml", "pools: {b: {endpoints: ['b:1']}}\nlisteners: [{name: a, bind: ':1', protocol: tcp, pool: b}]\n");
    bench.write("conf.d/30-empty.yaml", "# nothing yet\n");
    bench.write("conf.d/sub/40.yaml", "broken: [");
    bench.write("elsewhere/tls.yaml", "listeners: [{name: b, bind: ':2', protocol: http, pool: a, tls: {certificates: [{cert: a.crt, key: a.crt}]}}]\n");
    bench.write("elsewhere/a.crt", "");
    let inputs = ["main.yaml", "conf.d", "elsewhere/tls.yaml"].map(|path| Input::Path(path.into()));
    let loaded = match bench.load_inputs(&inputs) {
        Ok(loaded) => loaded,
        Err(r) => panic!(
            "{}",
            render::text(&r.sources, &r.diagnostics, render::Colour::Never)
        ),
    };
    assert_eq!(loaded.config.pools.len(), 2);
    assert_eq!(loaded.config.listeners.len(), 2);
    let tls = loaded.config.listeners[1].tls.as_ref().unwrap();
    assert_eq!(
        tls.certificates[0].cert,
        bench.path().join("elsewhere/a.crt").into()
    );
    assert!(loaded.watched.contains(&bench.path().join("conf.d")));
}

#[test]
fn absent_values_are_absent() {
    let bench = Bench::new();
    let text = format!("{SMALL}filters:\ndrain:\ntelemetry: {{access-log:}}\n")
        .replace("pool: web", "pool: web, tls: , filters: ");
    assert_eq!(loaded(&bench, &text).warnings, []);
}

#[test]
fn windows_line_ends_and_marks() {
    let bench = Bench::new();
    loaded(&bench, &format!("\u{feff}{}", SMALL.replace('\n', "\r\n")));
}

#[test]
fn pem_stands_in_the_configuration_and_keys_are_not_shown() {
    let bench = Bench::new();
    let text = "listeners:\n  - name: web\n    bind: \"127.0.0.1:1\"\n    protocol: http\n    pool: web\n    tls:\n      \
                certificates:\n        - cert: |\n            -----BEGIN CERTIFICATE-----\n            AAAA\n            \
                -----END CERTIFICATE-----\n          key: |\n            -----BEGIN PRIVATE KEY-----\n            U0VDUkVU\n            \
                -----END PRIVATE KEY-----\npools: {web: {endpoints: [\"10.0.0.1:80\"]}}\n";
    let loaded = bench.load(text).unwrap();
    let tls = loaded.config.listeners[0].tls.as_ref().unwrap();
    assert!(matches!(&tls.certificates[0].key, Pem::Text(key) if key.contains("U0VDUkVU")));
    assert!(
        loaded.show().contains("BEGIN CERTIFICATE"),
        "{}",
        loaded.show()
    );
    assert!(!loaded.show().contains("U0VDUkVU"), "{}", loaded.show());
    assert!(!format!("{:?}", loaded.config).contains("U0VDUkVU"));
}
