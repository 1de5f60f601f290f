//! Every mistake is reported where it is. One snapshot a case: the texts are what users read.

use super::*;

/// Renders what is wrong with `text` and compares it with the snapshot `name`.
fn check(name: &str, text: &str) {
    let bench = Bench::new();
    insta::with_settings!({description => text, omit_expression => true, prepend_module_to_snapshot => false,
        snapshot_path => "../snapshots"}, {
        insta::assert_snapshot!(name, bench.report(text));
    });
}

#[test]
fn the_text_itself() {
    check("empty", "");
    check("only_comments", "# nothing\n\n");
    check("null_document", "---\n...\n");
    check("several_documents", "pools: {}\n---\npools: {}\n");
    check("tab", "pools:\n\tweb: {}\n");
    check("unclosed_bracket", "pools: {web: [1, 2\nlisteners: []\n");
    check("unclosed_quote", "pools: {web: \"abc\n");
    check(
        "bad_indentation",
        "pools:\n  web:\n    endpoints: []\n   balance: hash\n",
    );
    check("root_is_a_list", "- pools\n- listeners\n");
    check("root_is_text", "hello\n");
    check(
        "duplicate_keys",
        "pools:\n  web: {endpoints: ['a:1']}\n  web: {endpoints: ['b:1']}\npools: {}\n",
    );
    check("unknown_alias", "pools: *nothing\n");
    check("recursive_alias", "pools: &a {web: *a}\n");
    check("custom_tag", "pools: !mine {}\n");
    check("complex_key", "pools: {[a, b]: c}\n");
    check("merge_of_text", "pools: {<<: text}\n");
}

#[test]
fn limits_of_filters() {
    let filter = |keys: &str| {
        let used = SMALL.replace("pool: web", "pool: web, filters: [f]");
        format!("{used}filters:\n  f:\n    module: builtin:sticky\n{keys}")
    };
    check(
        "filter_limits",
        &filter(
            "    limits:\n      cpu: 2s\n      faults: 0/10s\n      host-calls: 0\n      instances: some\n      suspends: 100000\n      state: 1TB\n",
        ),
    );
    check(
        "filter_limits_shape",
        &filter("    limits: {cpu: 20%, faults: often, instances: 0}\n"),
    );
    check("filter_digest", &filter("    sha256: d2c7\n"));
}

#[test]
fn keys_and_types() {
    check(
        "unknown_keys",
        &SMALL
            .replace("pools:", "pool: {}\npools:")
            .replace("bind:", "blnd: 1, bind:"),
    );
    check("unknown_key_without_likeness", "workers: auto\nquux: 1\n");
    check("null_pool", "pools:\n  web:\n");
    check(
        "missing_keys",
        "listeners:\n  - name: www\n    pool: web\n  - {}\n",
    );
    check(
        "wrong_types",
        "\
workers: many
pools:
  - web
filters: {f: {module: [1], capabilities: log}}
listeners:
  - {name: 12, bind: 80, protocol: http, http2: yes, filters: sticky, tcp: true}
drain: {timeout: 10}
",
    );
    check(
        "bad_values",
        "\
pools:
  web: {endpoints: ['a:1'], balance: roundrobin, panic: never}
  api: {endpoints: [], check: htp}
listeners:
  - {name: www, bind: ':80', protocol: htttp, tls: {certificates: [], min-version: 1.1}}
admin: on
telemetry: {access-log: {format: xml}}
",
    );
    check(
        "out_of_range",
        "\
workers: 0
pools:
  web: {endpoints: [{address: 'a:1', weight: 257}, {address: 'b:1', weight: -1}], retries: 99}
",
    );
}

#[test]
fn scalars_with_a_meaning() {
    check(
        "bad_scalars",
        "\
pools:
  web:
    endpoints: [web, '127.0.0.300:80', '::1:80', 'http://a:80', 'a:0']
    connect-timeout: 10 s
    check: {http: {path: x, status: [200, 200-100, 99]}, interval: 1ms}
    host: 'a b'
listeners:
  - name: www
    bind: [localhost:80, 127.0.0.1, ':http']
    protocol: http
    pool: web
    timeouts: {head: 10s10, total: 2y}
    limits: {header-bytes: 64k, target-bytes: 1GiB}
    trusted-proxies: [10.0.0.0/33, intranet]
    tcp: {socket-buffer: 1, keep-alive: never}
admin: {bind: '0.0.0.0:9901'}
telemetry: {access-log: {to: stdot}}
",
    );
    check("bad_admin", &format!("{SMALL}admin: {{bind: localhost}}\n"));
    check(
        "bad_names",
        &SMALL
            .replace("web:", "'w b':")
            .replace("name: www", "name: ''"),
    );
}

#[test]
fn references() {
    check(
        "unknown_pool",
        "\
pools:
  api: {endpoints: ['127.0.0.1:80']}
listeners:
  - name: www
    bind: :80
    protocol: http
    pool: ap
",
    );
    check(
        "no_pools",
        "listeners: [{name: www, bind: ':80', protocol: http, pool: web}]\n",
    );
    check(
        "no_pool",
        "listeners: [{name: www, bind: ':80', protocol: tcp}]\n",
    );
    check(
        "filters",
        "\
pools: {web: {endpoints: ['127.0.0.1:80']}}
filters:
  no-curl: {module: builtin:ua-blok}
  mine: {module: ./mine.wasm}
  word: {module: sticky}
  far: {module: 'oci://example.com/x@sha256:00'}
  idle: {module: ./my.wasm}
listeners:
  - {name: www, bind: ':80', protocol: http, pool: web, filters: [nocurl, builtin:sticky, mine, {module: x.wasm}]}
",
    );
    check(
        "files",
        "\
pools: {web: {endpoints: ['127.0.0.1:80']}}
listeners:
  - name: www
    bind: ':443'
    protocol: http
    pool: web
    tls:
      certificates: [{cert: none.crt, key: .}, {cert: www-ssl.crt, key: /nonexistent/www.key}]
",
    );
    check(
        "listeners_clash",
        "\
pools: {web: {endpoints: ['127.0.0.1:80']}}
listeners:
  - {name: www, bind: [':80', '127.0.0.1:0'], protocol: http, pool: web}
  - {name: www, bind: ['127.0.0.1:0', '[::]:80'], protocol: http, pool: web}
",
    );
    check(
        "http_only",
        "\
pools: {web: {endpoints: ['127.0.0.1:80']}}
listeners:
  - name: ssh
    bind: ':22'
    protocol: tcp
    pool: web
    forwarded: none
    timeouts: {head: 1s}
    limits: {streams: 1}
",
    );
    check(
        "checks",
        "pools: {a: {endpoints: ['a:1'], check: {}}, b: {endpoints: ['b:1'], check: {tcp: {}, http: {}}}}\n",
    );
}

#[test]
fn stores() {
    check(
        "bad_stores",
        "\
filters:
  a: {module: my.wasm, store: disk}
  b: {module: my.wasm, store: 'rediss://cache'}
  c: {module: my.wasm, store: 'redis://cache:port'}
  d: {module: my.wasm, limits: {store: 1KiB}}
",
    );
}

#[test]
fn variables() {
    check(
        "variables",
        "\
pools: {web: {endpoints: ['${WEB_HOST}:80', '${file:none.txt}']}}
filters: {f: {module: my.wasm, settings: {a: ['${MISSING}', '${client.address}']}}}
",
    );
}

#[test]
fn warnings() {
    check(
        "warnings",
        "\
pools: {web: {endpoints: [{address: 'a:1', weight: 0}, 'a:1']}, none: {endpoints: [{address: 'a:1', weight: 0}]}}
filters: {idle: {module: my.wasm}}
listeners: [{name: web, bind: ':80', protocol: http, pool: web}]
",
    );
}

#[test]
fn nothing_to_serve() {
    check("no_listeners", "pools: {web: {endpoints: ['a:1']}}\n");
    check(
        "empty_listeners",
        "pools: {web: {endpoints: ['a:1']}}\nlisteners: []\n",
    );
}

#[test]
fn places_count_characters() {
    check(
        "wide_characters",
        "pools: {\"größe\": {endpoints: ['ä:1'], balanc: 1}}\n",
    );
    let long = format!(
        "pools: {{ a: {{ endpoints: [ {}'x' ] }} }} # {}\n",
        " ".repeat(20_000),
        "ä".repeat(20_000)
    );
    check("long_line", &long);
}

#[test]
fn two_files_clash() {
    let bench = Bench::new();
    bench.write(
        "conf.d/10-a.yaml",
        "pools:\n  web: {endpoints: ['a:1']}\ndrain: {timeout: 1s}\n",
    );
    bench.write(
        "conf.d/20-b.yaml",
        "drain: {timeout: 2s}\npools:\n  web: {endpoints: ['b:1']}\n",
    );
    bench.write("conf.d/ignored.txt", "not: read");
    let rejected = bench
        .load_inputs(&[Input::Path("conf.d".into())])
        .unwrap_err();
    insta::with_settings!({omit_expression => true, prepend_module_to_snapshot => false, snapshot_path => "../snapshots"}, {
        insta::assert_snapshot!("two_files", render::text(&rejected.sources, &rejected.diagnostics, render::Colour::Never));
    });
}

#[test]
fn nothing_to_read() {
    let bench = Bench::new();
    assert_eq!(
        codes(&bench.load_inputs(&[Input::Path("none.yaml".into())])),
        ["unreadable-file"]
    );
    assert_eq!(codes(&bench.load_inputs(&[])), ["no-config"]);
    bench.write("sluicegate.yaml", SMALL);
    assert!(bench.load_inputs(&[]).is_ok());
    std::fs::write(bench.path().join("latin.yaml"), b"pools: {\xe4: 1}").unwrap();
    assert_eq!(
        codes(&bench.load_inputs(&[Input::Path("latin.yaml".into())])),
        ["unreadable-file"]
    );
    std::fs::create_dir(bench.path().join("void")).unwrap();
    assert_eq!(
        codes(&bench.load_inputs(&[Input::Path("void".into())])),
        ["no-config"]
    );
}

#[test]
fn other_renderings() {
    let bench = Bench::new();
    let rejected = bench
        .load("pools: {web: {endpoints: ['a:1'], balanse: hash}}\nlisteners: 5\n")
        .unwrap_err();
    let json = render::json(&rejected.sources, &rejected.diagnostics);
    let github = render::github(&rejected.sources, &rejected.diagnostics);
    insta::with_settings!({omit_expression => true, prepend_module_to_snapshot => false, snapshot_path => "../snapshots"}, {
        insta::assert_snapshot!("as_json", serde_json::to_string_pretty(&json).unwrap());
        insta::assert_snapshot!("as_github", github);
    });
    let styled = render::text(
        &rejected.sources,
        &rejected.diagnostics,
        render::Colour::Always,
    );
    assert!(styled.contains("\u{1b}["), "{styled}");
}

#[test]
fn tls_of_pools() {
    check(
        "pool_tls",
        &SMALL.replace(
            "pools:",
            "pools:\n  a: {endpoints: ['a:1'], protocol: auto}\n  b: {endpoints: ['b:1'], protocol: h2, tls: {ca: none.pem}}\n  \
             c: {endpoints: ['c:1'], tls: {certificates: [], verify: 'no'}}",
        ),
    );
}

#[test]
fn keys_are_in_no_report() {
    let bench = Bench::new();
    let tls = |inner: &str| {
        format!(
            "pools: {{web: {{endpoints: [\"10.0.0.1:80\"]}}}}\nlisteners:\n  - name: web\n    bind: \"127.0.0.1:1\"\n    protocol: http\n    pool: web\n    tls: {inner}\n"
        )
    };
    let key = "-----BEGIN PRIVATE KEY-----\\nU0VDUkVU\\n-----END PRIVATE KEY-----\\n";
    std::fs::write(bench.path().join("bare.key"), "U0VDUkVU").unwrap();
    for inner in [
        format!("{{certificates: [{{cert: www-ssl.crt, key: \"{key}\", kee: 1}}]}}"),
        format!("{{certificates: \"{key}\"}}"),
        format!("{{certificates: [\"{key}\"]}}"),
        "{certificates: [{cert: www-ssl.crt, key: \"${file:bare.key}\"}]}".to_owned(),
        "\n      certificates:\n        - cert: www-ssl.crt\n          key: |\n            -----BEGIN PRIVATE KEY-----\n           U0VDUkVU: [\n".to_owned(),
    ] {
        let report = bench.report(&tls(&inner));
        assert!(report.contains("error"), "{report}");
        assert!(!report.contains("U0VDUkVU"), "{report}");
    }
}
