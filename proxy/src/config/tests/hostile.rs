//! No text makes the loader panic, hang or grow.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

#[test]
fn bombs() {
    let bench = Bench::new();
    let mut laughs = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
    for i in 1..12 {
        let refs = vec![format!("*a{}", i - 1); 10].join(",");
        laughs.push_str(&format!("a{i}: &a{i} [{refs}]\n"));
    }
    let mut merges = String::from("m0: &m0 {k: v}\n");
    for i in 1..60 {
        merges.push_str(&format!(
            "m{i}: &m{i} {{<<: [*m{}, *m{}], k{i}: [*m{}, *m{}]}}\n",
            i - 1,
            i - 1,
            i - 1,
            i - 1
        ));
    }
    let cases = [
        (laughs, "alias-expansion"),
        (merges, "alias-expansion"),
        ("[".repeat(10_000), "too-deep"),
        ("{a: ".repeat(10_000), "too-deep"),
        (
            (0..2_000)
                .map(|i| format!("{}a:\n", " ".repeat(i)))
                .collect(),
            "too-deep",
        ),
        ("- ".repeat(10_000), "too-deep"),
        ("? ".repeat(10_000), "too-deep"),
        (format!("a: [{}]", "1,".repeat(1_100_000)), "too-large"),
        (format!("a: '{}'", "x".repeat(17 << 20)), "too-large"),
    ];
    for (text, code) in cases {
        let started = Instant::now();
        let result = bench.load(&text);
        assert_eq!(
            codes(&result).last(),
            Some(&code),
            "{}",
            &text[..text.len().min(60)]
        );
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "{code} took {:?}",
            started.elapsed()
        );
    }
}

#[test]
fn many_mistakes_are_bounded() {
    let bench = Bench::new();
    let text: String = (0..20_000)
        .map(|i| format!("key{i}: ${{NONE}}\n"))
        .collect();
    let rejected = bench.load(&text).unwrap_err();
    assert!(rejected.diagnostics.len() <= 200);
    let text = format!(
        "pools: {{web: {{endpoints: ['{}']}}}}",
        "${".repeat(1 << 20)
    );
    assert_eq!(codes(&bench.load(&text)), ["bad-address"]);
}

#[test]
fn many_of_everything_take_no_square_of_time() {
    let bench = Bench::new();
    let many = |line: &dyn Fn(usize) -> String| (0..9_000).map(line).collect::<String>();
    let text = format!(
        "pools:\n{}filters:\n{}listeners:\n{}",
        many(&|i| format!("  p{i}: {{endpoints: ['a:1', 'a:1']}}\n")),
        many(&|i| format!("  f{i}: {{module: builtin:sticky}}\n")),
        many(&|i| format!(
            "- {{name: l{}, bind: ':{}', protocol: tcp, pool: p{i}, filters: [{{module: builtin:sticky}}, g{i}]}}\n",
            i / 2,
            i + 1
        )),
    );
    let keys: String = (0..100_000).map(|i| format!("k{i}: 1\n")).collect();
    for text in [text, keys] {
        let started = Instant::now();
        assert!(bench.load(&text).is_err());
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "{:?}",
            started.elapsed()
        );
    }
}

#[test]
fn large_settings_load_quickly() {
    let bench = Bench::new();
    let rules: String = (0..10_000)
        .map(|i| format!("      - {{path: /svc-{i}/, host: h{i}.example.com, methods: [GET, POST], pool: web}}\n"))
        .collect();
    let text = format!(
        "{SMALL}filters:\n  router:\n    module: builtin:router\n    settings:\n      rules:\n{rules}"
    );
    let started = Instant::now();
    let loaded = bench.load(&text).unwrap();
    assert_eq!(
        loaded.config.filters[0].settings["rules"]
            .as_array()
            .map(Vec::len),
        Some(10_000)
    );
    // Unoptimised and on a busy machine; a release build takes a small part of it.
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "{:?}",
        started.elapsed()
    );
}

/// Structured nonsense: the right words in the wrong places.
fn yaml() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "pools",
        "web",
        "endpoints",
        "check",
        "http",
        "tcp",
        "listeners",
        "name",
        "bind",
        "protocol",
        "filters",
        "module",
        "builtin:sticky",
        "settings",
        "tls",
        "certificates",
        "cert",
        "admin",
        "off",
        "null",
        "~",
        "1",
        "-1",
        "1.5",
        "true",
        "10s",
        "64KiB",
        ":80",
        "127.0.0.1:80",
        "${PORT}",
        "${X:-1}",
        "&a x",
        "*a",
        "<<",
        "'q",
        "\"d\"",
        "!!str 1",
        "",
        "\t",
        "#c",
        "|",
        ">",
        "%YAML 1.2",
        "---",
        "...",
        "ä",
        "\u{85}",
        "\u{feff}",
        "\0",
    ]);
    let leaf = word.clone().prop_map(str::to_owned);
    let nested = leaf.prop_recursive(6, 64, 6, move |inner| {
        let map = prop::collection::vec((word.clone(), inner.clone()), 0..5);
        prop_oneof![
            prop::collection::vec(inner, 0..5).prop_map(|items| format!("[{}]", items.join(", "))),
            map.prop_map(|entries| {
                let entries: Vec<String> =
                    entries.iter().map(|(k, v)| format!("{k}: {v}")).collect();
                format!("{{{}}}", entries.join(", "))
            }),
        ]
    });
    prop::collection::vec(
        (
            prop::sample::select(vec!["pools", "filters", "listeners", "admin", "x"]),
            nested,
        ),
        0..6,
    )
    .prop_map(|entries| entries.iter().map(|(k, v)| format!("{k}: {v}\n")).collect())
}

fn survive(text: &str) {
    let bench = Bench::new();
    let said = bench.report(text);
    let _ = said.len();
    if let Err(rejected) = bench.load(text) {
        assert!(!rejected.diagnostics.is_empty());
        let _ = render::json(&rejected.sources, &rejected.diagnostics);
        let _ = render::github(&rejected.sources, &rejected.diagnostics);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_text(text in "\\PC{0,80}") {
        survive(&text);
    }

    #[test]
    fn any_bytes_that_look_like_yaml(text in "[-\\[\\]{}:,&*!|>'\"%@`#?~a<\n\r\t \u{0}\u{85}]{0,60}") {
        survive(&text);
    }

    #[test]
    fn any_structure(text in yaml()) {
        survive(&text);
    }
}
