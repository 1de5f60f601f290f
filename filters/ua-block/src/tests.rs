use sluicegate_sdk::testing::{Answer, Harness, TestRequest, json};
use sluicegate_sdk::{Interest, Match};

use super::UaBlock;

fn ask(settings: serde_json::Value, agents: &[&str]) -> Answer {
    let mut request = TestRequest::get("/");
    for agent in agents {
        request = request.field("User-Agent", agent);
    }
    Harness::<UaBlock>::new(settings)
        .expect("settings are fine")
        .request(request)
}

#[test]
fn globs_are_anchored_and_case_sensitive() {
    for (deny, agent, dropped) in [
        ("badcurl", "badcurl", true),
        ("badcurl", "badcurl/1.0", false),
        ("badcurl", "xbadcurl", false),
        ("badcurl", "BadCurl", false),
        ("badcurl*", "badcurl/1.0", true),
        ("*badcurl*", "a badcurl/1.0", true),
        ("bot/?.?", "bot/1.2", true),
        ("bot/?.?", "bot/1.22", false),
        ("*", "", true),
    ] {
        let answer = ask(json!({ "deny": [deny] }), &[agent]);
        assert_eq!(answer.is_drop(), dropped, "{deny} {agent}");
        assert_eq!(answer.is_untouched(), !dropped, "{deny} {agent}");
    }
}

#[test]
fn allow_wins_over_deny() {
    let settings = json!({"deny": ["*bot*"], "allow": ["goodbot/*"]});
    assert!(ask(settings.clone(), &["badbot/1"]).is_drop());
    assert!(ask(settings.clone(), &["goodbot/1"]).is_untouched());
    // An allowed line does not hide a denied one.
    assert!(ask(settings, &["goodbot/1", "badbot/1"]).is_drop());
}

#[test]
fn the_action_is_as_set() {
    let with = |action: serde_json::Value| ask(json!({"deny": ["*"], "action": action}), &["x"]);
    assert!(with(json!("drop")).is_drop());
    assert!(with(json!("reset")).is_reset());
    assert_eq!(with(json!("reply")).status(), Some(403));
    assert_eq!(with(json!("reply")).body(), b"");
    let answer = with(json!({"reply": {"status": 429, "body": "slow down",
                                       "headers": {"retry-after": "60"}}}));
    assert_eq!(answer.status(), Some(429));
    assert_eq!(answer.body(), b"slow down");
    assert_eq!(
        answer.field("content-type"),
        Some("text/plain; charset=utf-8")
    );
    assert_eq!(answer.field("retry-after"), Some("60"));
}

#[test]
fn requests_without_user_agent_are_not_even_shown() {
    assert!(!ask(json!({"deny": ["*"]}), &[]).was_called());
    assert!(ask(json!({"missing": "deny"}), &[]).is_drop());
    assert!(ask(json!({"missing": "deny"}), &["curl"]).is_untouched());
    let harness = Harness::<UaBlock>::new(json!({"deny": ["a"]})).unwrap();
    assert_eq!(harness.plan().matches, Match::header("user-agent").nodes());
    assert_eq!(
        harness.plan().request_fields,
        Interest::some(["user-agent"])
    );
}

#[test]
fn mistakes_are_reported_where_they_are() {
    for (settings, path, message, help) in [
        (json!(null), "", "nothing is denied", "under `deny`"),
        (
            json!({"deny": ["a"], "actoin": "drop"}),
            "/actoin",
            "unknown key",
            "did you mean `action`?",
        ),
        (
            json!({"deny": ["a"], "action": "dorp"}),
            "/action",
            "is not one of the values",
            "did you mean \"drop\"?",
        ),
        (json!({"deny": [7]}), "/deny/0", "expected", ""),
        (
            json!({"deny": ["a"], "action": {"reply": {"statos": 1}}}),
            "/action/reply/statos",
            "unknown key",
            "did you mean `status`?",
        ),
        (
            json!({"deny": ["a"], "action": {"reply": {"status": 99}}}),
            "/action/reply/status",
            "no final status",
            "200 to 999",
        ),
        (
            json!({"deny": ["a"], "action": {"reply": {"headers": {"Host": "a"}}}}),
            "/action/reply/headers/Host",
            "belongs to the proxy",
            "",
        ),
    ] {
        let problems = Harness::<UaBlock>::new(settings).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].path, path, "{problems:?}");
        assert!(problems[0].message.contains(message), "{problems:?}");
        let given = problems[0].help.as_deref().unwrap_or("");
        assert!(given.contains(help), "{problems:?}");
    }
}

#[test]
fn the_schema_describes_the_settings() {
    let schema = Harness::<UaBlock>::schema();
    assert_eq!(schema["additionalProperties"], false);
    assert!(schema["properties"]["deny"]["description"].is_string());
    assert!(schema["$defs"]["ReplySettings"]["properties"]["content-type"].is_object());
}
