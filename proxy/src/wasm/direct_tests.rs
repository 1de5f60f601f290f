//! Guests that are called in one crossing, kind ones and hostile ones.

use std::time::Duration;

use super::*;
use crate::config::{Capabilities, FilterLimits};

const PLAN: &str = r#"{"plan": {"phases": ["request"], "match": [{"path-prefix": "/api"}, "negate"],
    "request-fields": {"some": ["x-a"]}, "response-fields": "none", "first-bytes": 0,
    "pools": [{"name": "web", "path": "/pool", "called": false}], "facts": ["path"],
    "request-body": {"whole": {"max": 9, "over": "refuse"}}, "response-body": "skip",
    "effects": ["key-value"], "tick-ms": 0}}"#;

/// What a guest has in each of its places.
struct Parts<'a> {
    imports: &'a str,
    block: &'a str,
    plan: &'a str,
    call: &'a str,
}

impl Default for Parts<'_> {
    fn default() -> Self {
        Self {
            imports: "",
            block: "i32.const 65536",
            plan: PLAN,
            call: "i64.const 0",
        }
    }
}

impl Parts<'_> {
    fn text(&self) -> String {
        format!(
            r#"(module $direct
              {imports}
              (memory (export "memory") 2)
              (func (export "sluicegate:filter/http-request@0.1.0#on-request") (param i32 i32) (result i32)
                unreachable)
              (func (export "sluicegate:one-crossing@0.1.0#block") (param $size i32) (result i32) {block})
              (func (export "sluicegate:one-crossing@0.1.0#configure") (param i32) (result i64)
                i64.const {plan})
              (func (export "sluicegate:one-crossing@0.1.0#call") (param $function i32) (param $size i32) (result i64)
                {call})
              (data (i32.const 1024) "{data}"))"#,
            imports = self.imports,
            block = self.block,
            plan = packed(1024, self.plan.len()),
            call = self.call,
            data = self.plan.replace('"', "\\\"").replace('\n', "\\n"),
        )
    }

    fn build(&self) -> Vec<u8> {
        ::wat::parse_str(self.text()).expect("a test's guest is valid")
    }
}

fn packed(at: usize, length: usize) -> u64 {
    at as u64 | (length as u64) << 32
}

fn options() -> InstanceOptions {
    InstanceOptions {
        filter: "test".into(),
        limits: FilterLimits {
            memory: 1024 * 1024,
            deadline: Duration::from_millis(20),
            configure_deadline: Duration::from_millis(500),
            output: 64 * 1024,
            ..FilterLimits::default()
        },
        capabilities: Capabilities::default(),
        metrics: Default::default(),
    }
}

fn host() -> Host {
    Host::new(HostOptions::default()).expect("a host")
}

fn configured(parts: &Parts<'_>) -> Result<(Instance, Plan), ConfigureError> {
    let module = Module::load(&host(), "test", &parts.build()).expect("loads");
    assert!(module.is_direct());
    let mut instance = module.instantiate(&options()).expect("instantiates");
    let plan = instance.configure("null", Duration::from_secs(1))?;
    Ok((instance, plan))
}

fn answered(parts: &Parts<'_>) -> Result<Vec<u8>, Fault> {
    let (mut instance, _) = configured(parts).expect("configures");
    instance.call(Phase::Request, &Facts::default(), Shown::NOTHING)
}

#[test]
fn the_plan_comes_back() {
    let (_, plan) = configured(&Parts::default()).unwrap();
    assert_eq!(plan.phases, Phases::REQUEST);
    let matching = [Test::PathPrefix("/api".into()), Test::Negate];
    assert_eq!(plan.matching, matching);
    assert_eq!(plan.request_fields, Interest::Some(vec!["x-a".into()]));
    assert_eq!(plan.facts, FactSet::PATH);
    assert_eq!(plan.effects, Effects::KEY_VALUE);
    let whole = WholeBody {
        max: 9,
        over: OverCap::Refuse,
    };
    assert_eq!(plan.request_body, BodyMode::Whole(whole));
    assert_eq!(plan.pools[0].path, "/pool");
}

#[test]
fn the_guest_sees_the_block_and_its_number() {
    // Answers with the block itself, and with a byte for the number before it.
    let echo = "(i32.store8 (i32.const 65535) (local.get $function))
        (i64.or (i64.const 65535)
          (i64.shl (i64.extend_i32_u (i32.add (local.get $size) (i32.const 1))) (i64.const 32)))";
    let parts = Parts {
        call: echo,
        ..Parts::default()
    };
    let (mut instance, _) = configured(&parts).unwrap();
    let mut facts = Facts {
        state: 5,
        ..Facts::default()
    };
    facts.set(Fact::Method, b"BREW");
    let mut expected = vec![0];
    let mut block = Vec::new();
    super::packed::Block::new(&facts, Shown::NOTHING).write_to(&mut block);
    expected.extend(block);
    for _ in 0..3 {
        let seen = instance.call(Phase::Request, &facts, Shown::NOTHING);
        assert_eq!(seen.unwrap(), expected);
    }
}

#[test]
fn hostile_answers_are_faults() {
    let answer = |at: usize, length: usize| format!("i64.const {}", packed(at, length) as i64);
    for (call, kind) in [
        (answer(0, 131_073), FaultKind::Output),
        (answer(131_072, 1), FaultKind::Verdict),
        (answer(0xffff_ffff, 60_000), FaultKind::Verdict),
        (answer(131_000, 60_000), FaultKind::Verdict),
        ("unreachable".to_owned(), FaultKind::Trap),
        ("(loop br 0) unreachable".to_owned(), FaultKind::Deadline),
        (
            "(drop (i32.load (i32.const -4))) i64.const 0".to_owned(),
            FaultKind::Trap,
        ),
    ] {
        let parts = Parts {
            call: &call,
            ..Parts::default()
        };
        let fault = answered(&parts).expect_err(&call);
        assert_eq!(fault.kind, kind, "{call}: {fault}");
    }
}

#[test]
fn room_outside_of_the_memory_is_refused() {
    for block in [
        "i32.const 131072",
        "i32.const -1",
        "i32.const 131000",
        "unreachable",
    ] {
        let parts = Parts {
            block,
            ..Parts::default()
        };
        let error = configured(&parts).map(|_| ()).expect_err(block);
        assert!(
            matches!(error, ConfigureError::Fault(_)),
            "{block}: {error:?}"
        );
    }
}

#[test]
fn a_plan_that_cannot_be_read_is_a_fault() {
    let deep = "[".repeat(5000);
    for plan in [
        "",
        "{",
        "{}",
        r#"{"plan": {}}"#,
        r#"{"plan": 1, "diagnostics": []}"#,
        &deep,
    ] {
        let parts = Parts {
            plan,
            ..Parts::default()
        };
        match configured(&parts) {
            Err(ConfigureError::Fault(fault)) => assert_eq!(fault.kind, FaultKind::Verdict),
            other => panic!("{plan}: {:?}", other.map(|(_, plan)| plan)),
        }
    }
    let refused = Parts {
        plan: r#"{"diagnostics": [{"path": "/a", "message": "no", "help": null}]}"#,
        ..Parts::default()
    };
    let Err(ConfigureError::Rejected(problems)) = configured(&refused) else {
        panic!("the settings are taken");
    };
    assert_eq!(problems[0].path, "/a");
}

#[test]
fn other_imports_take_the_way_of_components() {
    let parts = Parts {
        imports: r#"(import "env" "f" (func))"#,
        ..Parts::default()
    };
    let error = Module::load(&host(), "test", &parts.build()).unwrap_err();
    assert_eq!(error, ModuleError::UnknownImport("env".into()));
}

#[test]
fn the_wrapping_of_a_direct_module_is_seen_through() {
    let core = Parts::default().build();
    let mut resolve = wit_parser::Resolve::default();
    let contract = include_str!("../../../wit/filter.wit");
    resolve.push_source("filter.wit", contract).unwrap();
    let world = "package a:b; world w { export sluicegate:filter/http-request@0.1.0; }";
    let package = resolve.push_source("w.wit", world).unwrap();
    let world = resolve.select_world(&[package], Some("w")).unwrap();
    let mut typed = ::wat::parse_str(
        Parts {
            imports: "",
            ..Parts::default()
        }
        .text()
        .replace(
            "(memory",
            r#"(func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable) (memory"#,
        ),
    )
    .unwrap();
    wit_component::embed_component_metadata(
        &mut typed,
        &resolve,
        world,
        wit_component::StringEncoding::UTF8,
    )
    .unwrap();
    let component = wit_component::ComponentEncoder::default()
        .module(&typed)
        .and_then(|mut encoder| encoder.encode())
        .unwrap();
    assert_ne!(component, core);
    assert!(
        Module::load(&host(), "test", &component)
            .unwrap()
            .is_direct()
    );
}
