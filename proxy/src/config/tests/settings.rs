//! Settings held against the schemas of modules, and what is made from schemas.

use serde_json::json;

use super::*;

fn module_schema() -> serde_json::Value {
    json!({
        "description": "Routes by rules.",
        "type": "object",
        "additionalProperties": false,
        "required": ["rules"],
        "properties": {
            "rules": {"type": "array", "items": {"$ref": "#/$defs/Rule"}},
            "default": {"oneOf": [{"const": "404"}, {"type": "object", "properties": {"pool": {"type": "string"}},
                "required": ["pool"], "additionalProperties": false}]},
        },
        "$defs": {"Rule": {"oneOf": [
            {"type": "object", "required": ["path"], "additionalProperties": false,
             "properties": {"path": {"type": "string", "minLength": 1}, "pool": {"type": "string"}}},
            {"type": "object", "required": ["host"], "additionalProperties": false,
             "properties": {"host": {"type": "string"}, "pool": {"type": "string"}}},
        ]}},
        "x-unknown": {"ignored": true},
        "if": {"properties": {}},
    })
}

fn findings(schema: &serde_json::Value, settings: &str) -> Vec<(&'static str, String)> {
    let bench = Bench::new();
    let text = format!("{SMALL}filters:\n  r: {{module: my.wasm{settings}}}\n");
    let loaded = bench
        .load(&text)
        .unwrap_or_else(|_| panic!("{}", bench.report(&text)));
    let found = loaded
        .sources
        .validate(&ConfigPath("/filters/r/settings".into()), schema);
    for diagnostic in &found {
        assert_eq!(diagnostic.at.map(|at| at.line), Some(6), "{diagnostic:?}");
    }
    found
        .into_iter()
        .map(|d| (d.code, d.path.0.replace("/filters/r/settings", "")))
        .collect()
}

#[test]
fn settings_are_held_against_the_module_schema() {
    let schema = module_schema();
    let check = |settings: &str, expected: &[(&'static str, &str)]| {
        let found = findings(&schema, settings);
        let found: Vec<_> = found
            .iter()
            .map(|(code, path)| (*code, path.as_str()))
            .collect();
        assert_eq!(found, expected, "{settings}");
    };
    check(
        ", settings: {rules: [{path: /}, {host: a, pool: b}], default: '404'}",
        &[],
    );
    check(
        ", settings: {rules: [{path: ''}, {hots: a}]}",
        &[
            ("out-of-range", "/rules/0/path"),
            ("unknown-key", "/rules/1/hots"),
        ],
    );
    check(
        ", settings: {rules: [{pool: a}], default: 404}",
        &[("missing-key", "/rules/0/path"), ("wrong-type", "/default")],
    );
    check(
        ", settings: {default: {pol: x}}",
        &[
            ("unknown-key", "/default/pol"),
            ("missing-key", "/default/pool"),
            ("missing-key", "/rules"),
        ],
    );
    check(", settings: []", &[("wrong-type", "")]);
    check("", &[("missing-key", "/rules")]);
    check(", settings: {rules: [5]}", &[("wrong-type", "/rules/0")]);
}

#[test]
fn foreign_schemas_are_harmless() {
    for schema in [
        json!({"$ref": "#"}),
        json!({"$ref": "#/nowhere"}),
        json!({"$ref": "https://example.com/schema"}),
        json!({"allOf": [{"$ref": "#"}, {"$ref": "#"}]}),
        json!({"oneOf": [{"$ref": "#"}, {"$ref": "#"}]}),
        json!({"anyOf": [{"items": {"$ref": "#"}}, {"additionalProperties": {"$ref": "#"}}, {"$ref": "#"}]}),
        json!({"type": 5, "enum": {}, "properties": [], "required": "x", "items": 3}),
        json!(true),
        json!(null),
    ] {
        let nested = format!("{}1{}", "[{a: ".repeat(20), "}]".repeat(20));
        findings(&schema, &format!(", settings: {nested}"));
        reference(&[("builtin:odd".into(), schema.clone())]);
        super::super::schema(&[("builtin:odd".into(), schema)]);
    }
    assert_eq!(
        findings(&json!(false), ", settings: 1"),
        [("not-allowed", String::new())]
    );
}

#[test]
fn problems_of_other_rooms_find_their_place() {
    let bench = Bench::new();
    let loaded = bench
        .load(SMALL)
        .unwrap_or_else(|_| panic!("{}", bench.report(SMALL)));
    let problem = Problem {
        at: ConfigPath("/listeners/0/pool".into()),
        code: "unknown-pool",
        message: "no".into(),
        help: None,
    };
    let diagnostic = loaded.sources.diagnose(problem);
    assert_eq!(diagnostic.at.map(|at| (at.line, at.column)), Some((4, 52)));
}

#[test]
fn editors_get_the_settings_too() {
    let schema = super::super::schema(&[("builtin:router".into(), module_schema())]);
    assert_eq!(
        schema["$defs"]["settings-builtin-router"]["properties"]["rules"]["items"]["$ref"],
        "#/$defs/settings-builtin-router/$defs/Rule"
    );
    assert_eq!(
        schema["$defs"]["Filter"]["allOf"][0]["if"]["properties"]["module"]["const"],
        "builtin:router"
    );
    assert_eq!(
        schema.pointer("/$defs/Pool/properties/retries/default"),
        Some(&json!(2))
    );
    insta::with_settings!({omit_expression => true, prepend_module_to_snapshot => false, snapshot_path => "../snapshots"}, {
        insta::assert_snapshot!("schema", serde_json::to_string_pretty(&super::super::schema(&[])).unwrap());
    });
}

#[test]
fn the_reference_lists_every_key() {
    let text = reference(&[("builtin:router".into(), module_schema())]);
    for key in [
        "`pools.NAME.check.http.status`",
        "`listeners[].tls.certificates[].cert`",
        "`telemetry.access-log.format`",
        "`settings.rules[].host`",
        "`admin.bind`",
        "`workers`",
        "`filters.NAME.limits.memory`",
    ] {
        assert!(text.contains(key), "{key} is missing in\n{text}");
    }
    insta::with_settings!({omit_expression => true, prepend_module_to_snapshot => false, snapshot_path => "../snapshots"}, {
        insta::assert_snapshot!("reference", reference(&[]));
    });
}
