//! `sluicegate explain`: what it prints, for people and for programs, and that it is what happens.

use std::path::Path;

use serde_json::Value;
use sluicegate_tests::addresses::Addresses;
use sluicegate_tests::backend::Backend;
use sluicegate_tests::client::Raw;
use sluicegate_tests::proxy::{Output, Proxy, command, sluicegate};
use tempfile::TempDir;

use crate::guest::{Guest, NEXT, POOL, Phase, RESET, op, verdict};

const CONFIG: &str = r#"
pools:
  web: {endpoints: ["127.0.0.1:9001", "127.0.0.1:9002"], check: tcp}
  api: {endpoints: ["127.0.0.1:9003"], host: endpoint}
  lot: {endpoints: ["127.0.0.1:9001", "127.0.0.1:9002"], balance: random}
  least: {endpoints: ["127.0.0.1:9001", "127.0.0.1:9002"], balance: least-request}
  hash: {endpoints: ["127.0.0.1:9001", "127.0.0.1:9002"], balance: hash}
  names: {endpoints: ["a.test:80", "b.test:80"]}
  none: {endpoints: [{address: "127.0.0.1:9001", weight: 0}]}
filters:
  marks:
    module: builtin:headers
    settings:
      request: [{set: x-real-client, value: "${client.address}"}, {remove: x-debug}]
      response: [{set: x-served-by, value: sluicegate}]
  no-badcurl: {module: builtin:ua-block, settings: {deny: ["badcurl*"], action: drop}}
  no-wget: {module: builtin:ua-block, settings: {deny: ["wget*"], action: {reply: {status: 403, body: "no wget\n"}}}}
  routes:
    module: builtin:router
    settings:
      rules:
        - {match: {path-prefix: /api}, pool: api, rewrite: {prefix: /}}
        - {match: {path: /lot}, pool: lot, retries: 1, timeouts: {try: 1s, total: 5s}}
        - {match: {path: /least}, pool: least}
        - {match: {path: /hash}, pool: hash}
        - {match: {path: /names}, pool: names}
        - {match: {path: /none}, pool: none}
  stick: {module: builtin:sticky, settings: {by: {header: x-user}}}
listeners:
  - {name: www, bind: "127.0.0.1:8080", protocol: http, pool: web, filters: [marks, no-badcurl, no-wget, routes, stick]}
  - {name: bare, bind: "0.0.0.0:8081", protocol: http, filters: [routes], trusted-proxies: [192.0.2.0/24]}
  - name: tls
    bind: "[::]:8443"
    protocol: http
    pool: api
    tls: {certificates: [{cert: a.test.crt, key: a.test.key}]}
  - {name: raw, bind: "127.0.0.1:2222", protocol: tcp, pool: web}
"#;

#[test]
fn for_people() {
    let bench = Bench::new();
    for (name, arguments) in [
        (
            "forwarded",
            &[
                "http://127.0.0.1:8080/a?b",
                "-H",
                "x-debug: 1",
                "-H",
                "connection: close",
            ][..],
        ),
        (
            "routed",
            &["-H", "X-User: alice", "http://127.0.0.1:8080/api/x"],
        ),
        (
            "sticky",
            &["http://127.0.0.1:8080/a", "-H", "x-user: alice"],
        ),
        (
            "drop",
            &["-H", "User-Agent: badcurl/1.0", "http://127.0.0.1:8080/"],
        ),
        (
            "reply",
            &["-H", "User-Agent: wget/1.0", "http://127.0.0.1:8080/"],
        ),
        ("no_route", &["http://a.test:8081/"]),
        ("lot", &["http://127.0.0.1:8080/lot"]),
        ("least", &["http://127.0.0.1:8080/least"]),
        (
            "hash",
            &["http://127.0.0.1:8080/hash", "--client", "203.0.113.7"],
        ),
        ("names", &["http://127.0.0.1:8080/names"]),
        ("none", &["http://127.0.0.1:8080/none"]),
        ("refused", &["CONNECT", "http://127.0.0.1:8080/"]),
        (
            "upload_over_tls",
            &[
                "POST",
                "https://a.test:8443/up",
                "-H",
                "content-length: 5",
                "-H",
                "te: trailers",
                "-H",
                "connection: te",
            ],
        ),
        (
            "tcp",
            &["tcp://127.0.0.1:2222", "--client", "[2001:db8::1]:40000"],
        ),
    ] {
        bench.snapshot(name, arguments);
    }
}

#[test]
fn behind_a_trusted_proxy() {
    let bench = Bench::new();
    let line = [
        "http://a.test:8081/",
        "-H",
        "X-Forwarded-For: 203.0.113.9",
        "-H",
        "x-request-id: r1",
    ];
    let trusted = [&line[..], &["--client", "192.0.2.1"]].concat();
    let told = bench.json(&trusted);
    assert_eq!(
        (&told["client"], &told["peer"]),
        (&"203.0.113.9".into(), &"192.0.2.1:49152".into())
    );
    let told = bench.json(&line);
    assert_eq!(told["client"], "127.0.0.1");
    let removed: Vec<_> = told["steps"][0]["changes"]
        .as_array()
        .expect("changes")
        .iter()
        .map(|change| (change["change"].as_str(), change["name"].as_str()))
        .collect();
    assert_eq!(
        removed,
        [
            (Some("remove"), Some("x-forwarded-for")),
            (Some("remove"), Some("x-request-id"))
        ]
    );
}

#[test]
fn for_programs() {
    let bench = Bench::new();
    bench.snapshot(
        "json_forward",
        &[
            "-o",
            "json",
            "http://127.0.0.1:8080/api/x",
            "-H",
            "x-user: alice",
        ],
    );
    bench.snapshot(
        "json_reply",
        &[
            "-o",
            "json",
            "-H",
            "User-Agent: wget/1.0",
            "http://127.0.0.1:8080/",
        ],
    );
    bench.snapshot("json_tcp", &["-o", "json", "tcp://127.0.0.1:2222"]);
}

#[test]
fn filters_that_fail_and_filters_of_connections() {
    let bench = Bench::new();
    let trap = Guest::default().runs(Phase::Request, "unreachable").build();
    bench.file("trap.wasm", trap);
    let stream = Guest::default()
        .pool("api")
        .answers(
            Phase::Connect,
            &verdict(NEXT, &[op(POOL, "", &0u32.to_le_bytes())]),
        )
        .answers(Phase::ClientHello, &verdict(NEXT, &[]))
        .answers(Phase::FirstBytes, &verdict(RESET, &[]))
        .first_bytes(4);
    bench.file("stream.wasm", stream.build());
    bench.file(
        "more.yaml",
        "\
pools:
  web: {endpoints: [\"127.0.0.1:9001\"]}
  api: {endpoints: [\"127.0.0.1:9003\"]}
listeners:
  - {name: fails, bind: \"127.0.0.1:1\", protocol: http, pool: web, filters: [{module: ./trap.wasm}]}
  - {name: goes-on, bind: \"127.0.0.1:2\", protocol: http, pool: web, filters: [{module: ./trap.wasm, on-error: bypass}]}
  - {name: raw, bind: \"127.0.0.1:3\", protocol: tcp, pool: web, filters: [{module: ./stream.wasm}]}
",
    );
    for (name, arguments) in [
        ("fault", &["http://127.0.0.1:1/"][..]),
        ("fault_bypassed", &["http://127.0.0.1:2/"]),
        (
            "stream",
            &[
                "tcp://127.0.0.1:3",
                "--sni",
                "A.test",
                "--first-bytes",
                "SSH-",
            ],
        ),
        ("stream_silent", &["tcp://127.0.0.1:3"]),
    ] {
        // What the log says of the fault has a time.
        let got = bench.run("more.yaml", arguments);
        assert_eq!(got.code, 0, "{name}: {}", got.stderr);
        bench.shown(name, &got.stdout);
    }
    let got = bench.run("more.yaml", &["http://127.0.0.1:1/"]);
    assert!(got.stderr.contains("filter fault: "), "{}", got.stderr);
}

#[test]
fn mistakes() {
    let bench = Bench::new();
    let mut told = String::new();
    for arguments in [
        &["http://127.0.0.1:81/"][..],
        &["https://127.0.0.1:8080/"],
        &["/path"],
        &["/path", "--listener", "nobody"],
        &["/path", "--listener", "raw"],
        &["http://127.0.0.1:8080/", "--listener", "tls"],
        &["tcp://127.0.0.1:22"],
        &["tcp://127.0.0.1"],
        &["GET", "tcp://127.0.0.1:2222"],
        &["127.0.0.1:8080/x"],
        &["ftp://a/"],
        &["http://user:password@a/"],
        &["http://::1/"],
        &["/", "--client", "me"],
        &["/", "-H", "no colon"],
        &["/", "-H", "a b: c"],
        &["/", "--first-bytes", "x"],
        &[],
    ] {
        let got = bench.run("sluicegate.yaml", arguments);
        assert_eq!((got.code, got.stdout.as_str()), (2, ""), "{arguments:?}");
        told.push_str(&format!(
            "$ sluicegate explain {}\n{}\n",
            arguments.join(" "),
            got.stderr
        ));
    }
    bench.shown("mistakes", &told);
    let wrong = CONFIG.replace("pool: web, filters", "pool: wbe, filters");
    bench.file("wrong.yaml", wrong);
    let got = bench.run("wrong.yaml", &["/"]);
    assert_eq!((got.code, got.stdout.as_str()), (78, ""));
    assert!(got.stderr.contains("error[unknown-pool]"), "{}", got.stderr);
    let injected = bench.json(&["http://127.0.0.1:8080/", "-H", "a: b\r\nc: d"]);
    assert_eq!(injected["outcome"]["reason"], "bad-request");
}

/// Method, target, fields, and the backend that is to get it.
type Sent<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a Backend);

/// The same request, explained and sent.
#[test]
fn it_is_what_happens() {
    let [web, api] = ["web", "api"].map(Backend::http);
    let bind = Addresses::new().free();
    let yaml = CONFIG
        .replace(
            "127.0.0.1:9001\", \"127.0.0.1:9002",
            &web.address().to_string(),
        )
        .replace("127.0.0.1:9001", &web.address().to_string())
        .replace("127.0.0.1:9003", &api.address().to_string())
        .replace("127.0.0.1:8080", &bind.to_string());
    let others = yaml.find("  - {name: bare").expect("other listeners");
    let proxy = Proxy::start(&yaml[..others]);
    let config = proxy.directory().join("sluicegate.yaml");
    let mut wrong = Vec::new();
    let cases: [Sent<'_>; 5] = [
        (
            "GET",
            "/a?b=c",
            &[("x-debug", "1"), ("accept", "*/*")],
            &web,
        ),
        (
            "GET",
            "/api/v1/x",
            &[("x-user", "alice"), ("x-forwarded-for", "9.9.9.9")],
            &api,
        ),
        (
            "POST",
            "/api",
            &[
                ("content-length", "0"),
                ("connection", "x-gone"),
                ("x-gone", "1"),
            ],
            &api,
        ),
        (
            "HEAD",
            "/hash",
            &[("te", "trailers"), ("cookie", "a=b")],
            &web,
        ),
        (
            "GET",
            "/",
            &[("upgrade", "websocket"), ("connection", "upgrade")],
            &web,
        ),
    ];
    for (method, target, fields, backend) in cases {
        let url = format!("http://{bind}{target}");
        let lines: Vec<String> = fields.iter().map(|(n, v)| format!("{n}: {v}")).collect();
        let mut arguments = vec![method, &url, "-o", "json"];
        arguments.extend(lines.iter().flat_map(|line| ["-H", line.as_str()]));
        let told = json(&explain(&config, proxy.directory(), &arguments));
        let request = &told["outcome"]["request"];
        let mut expected = request["start"].as_str().expect("a request").to_owned();
        for field in request["fields"].as_array().expect("fields") {
            let part = |i: usize| field[i].as_str().expect("text").to_owned();
            expected.push_str(&format!("\n{}: {}", part(0), part(1)));
        }
        let mut raw = Raw::connect(bind);
        let mut text = format!("{method} {target} HTTP/1.1\r\nhost: {bind}\r\n");
        lines
            .iter()
            .for_each(|line| text.push_str(&format!("{line}\r\n")));
        raw.send(format!("{text}\r\n")).expect("sent");
        raw.head().expect("an answer");
        let received = backend.received().pop().expect("a request");
        let zeros = "0".repeat(32);
        let id = received.field("x-request-id").expect("an id").to_owned();
        let got = received
            .head
            .trim_end()
            .replace("\r\n", "\n")
            .replace(&id, &zeros);
        let endpoint = told["route"]["endpoint"].as_str().unwrap_or_default();
        if got != expected || endpoint != backend.address().to_string() {
            wrong.push(format!(
                "{method} {target}: explained\n{expected}\nsent\n{got}\n"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A directory with the configuration.
struct Bench(TempDir);

impl Bench {
    fn new() -> Self {
        let bench = Self(tempfile::tempdir().expect("a directory"));
        let out = bench.0.path().to_string_lossy().into_owned();
        let made = sluicegate(&["cert", "self-signed", "a.test", "--out", &out]);
        assert_eq!(made.code, 0, "{}", made.stderr);
        bench.file("sluicegate.yaml", CONFIG);
        bench
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.0.path().join(name), content).expect("a file");
    }

    fn run(&self, config: &str, arguments: &[&str]) -> Output {
        explain(Path::new(config), self.0.path(), arguments)
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let arguments = [arguments, &["-o", "json"]].concat();
        json(&self.run("sluicegate.yaml", &arguments))
    }

    fn snapshot(&self, name: &str, arguments: &[&str]) {
        let got = self.run("sluicegate.yaml", arguments);
        assert_eq!((got.code, got.stderr.as_str()), (0, ""), "{name}");
        self.shown(name, &got.stdout);
    }

    fn shown(&self, name: &str, text: &str) {
        let undated = |line: &str| match line.split_once("date: ") {
            Some((indent, _)) if indent.trim().is_empty() => format!("{indent}date: [now]\n"),
            _ => format!("{line}\n"),
        };
        let text: String = text.lines().map(undated).collect();
        insta::with_settings!({omit_expression => true, prepend_module_to_snapshot => false}, {
            insta::assert_snapshot!(format!("explain_{name}"), text);
        });
    }
}

fn explain(config: &Path, directory: &Path, arguments: &[&str]) -> Output {
    let output = command()
        .args(["explain", "-c"])
        .arg(config)
        .args(arguments)
        .current_dir(directory)
        .output()
        .expect("sluicegate runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Output {
        code: output.status.code().unwrap_or(-1),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

fn json(got: &Output) -> Value {
    assert_eq!(got.code, 0, "{}", got.stderr);
    serde_json::from_str(&got.stdout).expect("JSON")
}
