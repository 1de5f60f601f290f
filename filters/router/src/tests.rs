use std::time::Instant;

use sluicegate_sdk::testing::{Answer, Harness, TestRequest, json};
use sluicegate_sdk::{Filter, Interest, Request};

use super::Router;

#[track_caller]
fn router(settings: serde_json::Value) -> Harness<Router> {
    Harness::new(settings).expect("settings are fine")
}

/// The pool that `url` (host and target) goes to, by rules that each name their pool.
#[track_caller]
fn pool_of(harness: &mut Harness<Router>, url: &str) -> Option<String> {
    let (host, target) = url.split_at(url.find('/').unwrap());
    let answer = harness.request(TestRequest::get(target).authority(host));
    answer.pool().map(str::to_owned)
}

fn redirected(redirect: serde_json::Value, request: TestRequest) -> Answer {
    let rule = json!({"match": {"path-prefix": "/old"}, "redirect": redirect});
    router(json!({ "rules": [rule] })).request(request)
}

#[test]
fn the_most_specific_rule_wins() {
    let mut harness = router(json!({"rules": [
        {"match": {}, "pool": "any"},
        {"match": {"path-glob": "/api/*/x"}, "pool": "glob"},
        {"match": {"path-prefix": "/api"}, "pool": "api"},
        {"match": {"path-prefix": "/api/v1"}, "pool": "api-v1"},
        {"match": {"path": "/api/v1"}, "pool": "exact"},
        {"match": {"host": "*.example"}, "pool": "wild"},
        {"match": {"host": "*.b.example"}, "pool": "wilder"},
        {"match": {"host": "w?w.a.example"}, "pool": "host-glob"},
        {"match": {"host": "www.example", "path": "/only"}, "pool": "www-only"},
        {"match": {"host": "WWW.example", "path-prefix": "/"}, "pool": "www"},
        {"match": {"host": "half.example", "path": "/only"}, "pool": "half"},
    ]}));
    for (url, pool) in [
        ("other/", "any"),
        ("other/api", "api"),
        ("other/api/", "api"),
        ("other/apix", "any"),
        ("other/api/v1", "exact"),
        ("other/api/v1/x", "api-v1"),
        ("other/api/v2/x", "api"),
        ("www.example/x", "www"),
        ("www.example:8080/only", "www-only"),
        ("WWW.EXAMPLE./only", "www-only"),
        ("a.example/api", "wild"),
        ("a.b.example/", "wilder"),
        ("www.a.example/", "host-glob"),
        ("half.example/only", "half"),
        // The exact host has no rule for this path: the wildcard's turn.
        ("half.example/else", "wild"),
        ("example/", "any"),
    ] {
        assert_eq!(pool_of(&mut harness, url).as_deref(), Some(pool), "{url}");
    }
    let long = format!("{}.example/", "a".repeat(300));
    assert_eq!(pool_of(&mut harness, &long).as_deref(), Some("any"));
}

#[test]
fn globs_come_after_prefixes_and_before_no_path() {
    let mut harness = router(json!({"rules": [
        {"pool": "any"},
        {"match": {"path-glob": "*.png"}, "pool": "png"},
        {"match": {"path-glob": "*/big.png"}, "pool": "big"},
        {"match": {"path-prefix": "/img/"}, "pool": "img"},
    ]}));
    for (url, pool) in [
        ("a/x.png", "png"),
        ("a/x/big.png", "big"),
        ("a/img/x.png", "img"),
        ("a/img", "any"),
        ("a/imgs/", "any"),
    ] {
        assert_eq!(pool_of(&mut harness, url).as_deref(), Some(pool), "{url}");
    }
}

#[test]
fn further_conditions_count_and_then_the_order() {
    let mut harness = router(json!({"rules": [
        {"match": {"path-prefix": "/"}, "pool": "first"},
        {"match": {"path-prefix": "/"}, "pool": "second"},
        {"match": {"path-prefix": "/", "method": "POST"}, "pool": "post"},
        {"match": {"path-prefix": "/", "method": ["POST", "PUT"], "headers": {"X-A": "1"}},
         "pool": "two"},
        {"match": {"path-prefix": "/", "headers": {"x-a": {"prefix": "2"}}}, "pool": "prefix"},
        {"match": {"path-prefix": "/", "headers": {"x-b": {"present": true}, "x-c": {"present": false}}},
         "pool": "present"},
        {"match": {"path-prefix": "/", "query": {"q": {"contains": "cat"}}}, "pool": "query"},
        {"match": {"path-prefix": "/", "query": {"g": {"glob": "a*z"}}}, "pool": "query-glob"},
    ]}));
    assert_eq!(
        harness.plan().request_fields,
        Interest::some(["x-a", "x-b", "x-c"])
    );
    for (request, pool) in [
        (TestRequest::get("/"), "first"),
        (TestRequest::post("/"), "post"),
        (TestRequest::post("/").field("x-a", "1"), "two"),
        (TestRequest::get("/").field("x-a", "1"), "first"),
        (TestRequest::get("/").field("x-a", "23"), "prefix"),
        (TestRequest::get("/").field("x-b", ""), "present"),
        (
            TestRequest::get("/").field("x-b", "").field("x-c", ""),
            "first",
        ),
        (TestRequest::get("/?q=a%20cat"), "query"),
        (TestRequest::get("/?q=dog&q=cats"), "query"),
        (TestRequest::get("/?p=cat"), "first"),
        (TestRequest::get("/?g=abcz"), "query-glob"),
    ] {
        assert_eq!(
            harness.request(request.clone()).pool(),
            Some(pool),
            "{request:?}"
        );
    }
}

#[test]
fn without_a_match_the_default_or_the_listeners_pool() {
    let rules = json!([{"match": {"path": "/a"}, "pool": "a"}]);
    let mut harness = router(json!({ "rules": rules }));
    assert!(harness.request(TestRequest::get("/b")).is_untouched());
    let mut harness = router(json!({"rules": rules, "default": {"pool": "d"}}));
    assert_eq!(harness.request(TestRequest::get("/b")).pool(), Some("d"));
}

#[test]
fn weights_split_by_the_request_id() {
    let mut harness = router(json!({"default": {"pools": [
        {"name": "a", "weight": 3}, {"name": "none", "weight": 0}, {"name": "b"},
    ]}}));
    let mut a = 0;
    for i in 0..4000 {
        let request = || TestRequest::get("/").id(&format!("id-{i}"));
        let answer = harness.request(request());
        assert_eq!(harness.request(request()).pool(), answer.pool());
        match answer.pool() {
            Some("a") => a += 1,
            pool => assert_eq!(pool, Some("b")),
        }
    }
    assert!((2850..3150).contains(&a), "{a} of 4000");
}

#[test]
fn paths_are_rewritten_and_the_query_stays() {
    for (prefix, rewrite, target, path) in [
        ("/api", json!({"prefix": "/v2"}), "/api/x?q=1", "/v2/x?q=1"),
        ("/api", json!({"prefix": "/v2"}), "/api", "/v2"),
        ("/api", json!({"prefix": "/v2/"}), "/api/", "/v2/"),
        ("/api", json!({"prefix": "/"}), "/api/x", "/x"),
        ("/api", json!({"prefix": "/"}), "/api?q", "/?q"),
        ("/api/", json!({"prefix": "/"}), "/api/x", "/x"),
        ("/api/", json!({"prefix": "/v2"}), "/api/x", "/v2/x"),
        ("/", json!({"prefix": "/v2"}), "/x", "/v2/x"),
        ("/", json!({"prefix": "/"}), "/x", "/x"),
        ("/", json!({"path": "/one"}), "/x?", "/one?"),
    ] {
        let rule = json!({"match": {"path-prefix": prefix}, "rewrite": rewrite});
        let mut harness = router(json!({ "rules": [rule] }));
        let answer = harness.request(TestRequest::get(target));
        assert_eq!(answer.path(), Some(path), "{prefix} {rewrite} {target}");
    }
}

#[test]
fn a_rule_sets_host_timeouts_and_retries() {
    let answer = router(json!({"default": {
        "pool": "a", "host": "internal.example:81",
        "timeouts": {"try": "250ms", "total": "2s"}, "retries": 0,
    }}))
    .request(TestRequest::get("/"));
    assert_eq!(answer.authority(), Some("internal.example:81"));
    assert_eq!(answer.try_timeout_ms(), Some(250));
    assert_eq!(answer.total_timeout_ms(), Some(2000));
    assert_eq!(answer.retries(), Some(0));
}

#[test]
fn who_is_where_a_redirect_leads_is_not_redirected_again() {
    let request = || {
        TestRequest::get("/old/x?q=1")
            .authority("A.example:8443")
            .tls("a.example")
    };
    let own = "https://a.example:8443/old/x?q=1";
    for redirect in [
        json!({"scheme": "https"}),
        json!({"host": "a.example"}),
        json!({"port": 8443}),
        json!({"path": "/old/x"}),
        json!({"prefix": "/old"}),
        json!({"scheme": "https", "host": "a.example", "port": 8443}),
        json!({"location": own}),
    ] {
        let rules = json!([
            {"match": {"path-prefix": "/old"}, "redirect": redirect},
            {"match": {"path-prefix": "/"}, "pool": "less-specific"},
        ]);
        let answer = router(json!({ "rules": rules })).request(request());
        assert_eq!(answer.pool(), Some("less-specific"), "{redirect}");
        let mut rest = redirect.clone();
        if rest.get("prefix").is_none() {
            rest["status"] = json!(301);
            let answer = router(json!({"default": {"redirect": rest}})).request(request());
            assert!(answer.is_next() && answer.pool().is_none(), "{redirect}");
        }
    }
    for redirect in [
        json!({"scheme": "http"}),
        json!({"scheme": "https", "port": 443}),
        json!({"scheme": "https", "host": "b.example"}),
        json!({"location": "https://a.example:8443/old/x"}),
        json!({"location": "https://a.example:8443/old/x?q=12"}),
        json!({"location": "https://a.example/old/x?q=1"}),
        json!({"location": "http://a.example:8443/old/x?q=1"}),
    ] {
        assert_eq!(
            redirected(redirect.clone(), request()).status(),
            Some(302),
            "{redirect}"
        );
    }
    // The root need not be named either, and what stands behind `#` is the client's own.
    for location in [
        "https://a.example",
        "https://a.example/",
        "https://a.example/#top",
    ] {
        let root = TestRequest::get("/")
            .authority("a.example")
            .tls("a.example");
        let rules = json!({"default": {"redirect": {"location": location, "status": 301}}});
        assert!(router(rules).request(root).is_next(), "{location}");
    }
    // The scheme's own port need not be named.
    let standard = TestRequest::get("/old")
        .authority("[2001:db8::1]")
        .tls("a.example");
    assert!(redirected(json!({"port": 443}), standard).is_next());
}

#[test]
fn redirects_replace_the_parts_that_are_given() {
    let request = || TestRequest::get("/old/x?q=1").authority("a.example:8080");
    for (redirect, status, location) in [
        (
            json!({"scheme": "https"}),
            302,
            "https://a.example/old/x?q=1",
        ),
        (
            json!({"scheme": "https", "port": 8443}),
            302,
            "https://a.example:8443/old/x?q=1",
        ),
        (
            json!({"status": 301, "host": "b.example"}),
            301,
            "http://b.example/old/x?q=1",
        ),
        (
            json!({"path": "/new"}),
            302,
            "http://a.example:8080/new?q=1",
        ),
        (
            json!({"prefix": "/new"}),
            302,
            "http://a.example:8080/new/x?q=1",
        ),
        (json!({"prefix": "/"}), 302, "http://a.example:8080/x?q=1"),
        (
            json!({"status": 308, "location": "https://c.example/"}),
            308,
            "https://c.example/",
        ),
    ] {
        let answer = redirected(redirect.clone(), request());
        assert_eq!(answer.status(), Some(status), "{redirect}");
        assert_eq!(answer.field("location"), Some(location), "{redirect}");
    }
}

#[test]
fn pools_are_declared_once_with_the_setting_that_names_them_first() {
    let harness = router(json!({
        "rules": [
            {"match": {"path": "/a"}, "pool": "a"},
            {"match": {"path": "/b"}, "pools": [{"name": "b"}, {"name": "a"}]},
        ],
        "default": {"pool": "c"},
    }));
    let pools: Vec<(&str, &str)> = harness
        .plan()
        .pools
        .iter()
        .map(|pool| (pool.name.as_str(), pool.path.as_str()))
        .collect();
    assert_eq!(
        pools,
        [
            ("a", "/rules/0/pool"),
            ("b", "/rules/1/pools/0/name"),
            ("c", "/default/pool"),
        ]
    );
}

#[test]
fn every_mistake_is_reported_where_it_is() {
    let problems = Harness::<Router>::new(json!({"rules": [
        {"match": {"path": "api"}, "pool": "a"},
        {"match": {"path": "/a", "path-prefix": "/b"}, "pool": "a"},
        {"match": {"path-prefix": "/a?b"}, "pool": "a"},
        {"pool": "a", "pools": [{"name": "b"}]},
        {"pools": [{"name": "b", "weight": 0}]},
        {"rewrite": {"prefix": "/x"}},
        {"rewrite": {"path": "x"}},
        {"redirect": {"status": 200, "scheme": "ftp"}},
        {"redirect": {}},
        {"redirect": {"location": "/", "host": "a"}},
        {"host": "a b"},
        {"match": {"headers": {"a b": "c"}, "method": []}},
    ]}))
    .unwrap_err();
    let paths: Vec<&str> = problems.iter().map(|p| p.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "/rules/0/match/path",
            "/rules/1/match",
            "/rules/2/match/path-prefix",
            "/rules/3",
            "/rules/4/pools",
            "/rules/5/rewrite/prefix",
            "/rules/6/rewrite/path",
            "/rules/7/redirect/status",
            "/rules/7/redirect/scheme",
            "/rules/8/redirect",
            "/rules/9/redirect/location",
            "/rules/10/host",
            "/rules/11/match/method",
            "/rules/11/match/headers/a b",
        ],
        "{problems:#?}"
    );
    for (settings, path) in [
        (json!(null), ""),
        (
            json!({"rules": [{"timeouts": {"try": "5"}}]}),
            "/rules/0/timeouts/try",
        ),
        (
            json!({"rules": [{"match": {"headers": {"a": {"prefx": "b"}}}}]}),
            "/rules/0/match/headers/a/prefx",
        ),
        (
            json!({"rules": [{"pol": "b", "pool": "a"}]}),
            "/rules/0/pol",
        ),
    ] {
        let problems = Harness::<Router>::new(settings).unwrap_err();
        assert_eq!(problems[0].path, path, "{problems:#?}");
    }
}

/// Ten thousand rules cost about as much as ten. The bound is loose, since tests run unoptimised and on busy machines; it
/// catches a scan over all rules, which would take a hundred times as long.
#[test]
fn ten_thousand_rules_stay_fast() {
    let rules: Vec<_> = (0..10_000)
        .map(|i| {
            let host = format!("h{}.example", i % 100);
            match i % 3 {
                0 => json!({"match": {"host": host, "path": format!("/exact/{i}")}, "pool": "a"}),
                1 => json!({"match": {"host": host, "path-prefix": format!("/p{i}/sub")}, "pool": "a"}),
                _ => json!({"match": {"path-prefix": format!("/{i}/anywhere")}, "pool": "a"}),
            }
        })
        .collect();
    let (mut router, _) =
        sluicegate_sdk::__private::configure::<Router>(&json!({ "rules": rules }).to_string())
            .unwrap();
    let blocks: Vec<Vec<u8>> = (0..1000)
        .map(|i| {
            let i = i * 10;
            let target = match i % 3 {
                0 => format!("/exact/{i}"),
                1 => format!("/p{i}/sub/deep/er"),
                _ => format!("/{i}/anywhere/x"),
            };
            TestRequest::get(&target)
                .authority(&format!("h{}.example:8080", i % 100))
                .into_block()
        })
        .collect();
    let start = Instant::now();
    let mut routed = 0;
    for _ in 0..20 {
        for block in &blocks {
            routed += usize::from(!router.request(&Request::new(block)).into_bytes().is_empty());
        }
    }
    let per_lookup = start.elapsed() / 20_000;
    assert_eq!(routed, 20_000);
    println!("{} ns per request", per_lookup.as_nanos());
    assert!(per_lookup.as_micros() < 50, "{per_lookup:?}");
}
