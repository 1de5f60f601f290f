//! The host against hand-written guests, most of them hostile.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::wat::Guest;
use super::*;
use crate::config::{Capabilities, FilterLimits};
use crate::head::Fields;
use wit_component::StringEncoding;

fn host() -> Host {
    Host::new(HostOptions::default()).expect("a host")
}

fn options() -> InstanceOptions {
    InstanceOptions {
        filter: "test".into(),
        limits: FilterLimits {
            memory: 1024 * 1024,
            deadline: Duration::from_millis(10),
            configure_deadline: Duration::from_millis(500),
            output: 64 * 1024,
            ..FilterLimits::default()
        },
        capabilities: Capabilities::default(),
        metrics: Arc::default(),
    }
}

fn instance(guest: &Guest) -> Instance {
    let module = Module::load(&host(), "test", &guest.build()).expect("loads");
    let mut instance = module.instantiate(&options()).expect("instantiates");
    instance
        .configure("null", Duration::from_secs(1))
        .expect("configures");
    instance
}

fn request(instance: &mut Instance) -> Result<Vec<u8>, Fault> {
    instance.call(Phase::Request, &Facts::default(), Shown::NOTHING)
}

fn fault(guest: &Guest) -> Fault {
    request(&mut instance(guest)).expect_err("a fault")
}

fn load_error(bytes: &[u8]) -> String {
    Module::load(&host(), "test", bytes)
        .expect_err("is refused")
        .to_string()
}

#[test]
fn a_verdict_comes_back_call_after_call() {
    let mut guest = instance(&Guest::answering(Phase::Request, &[2]));
    for _ in 0..1000 {
        assert_eq!(request(&mut guest).unwrap(), [2]);
    }
    // A phase that is not exported is next.
    let answer = guest.call(Phase::Response, &Facts::default(), Shown::NOTHING);
    assert_eq!(answer.unwrap(), b"");
}

#[test]
fn the_guest_sees_the_block() {
    // Answers with the head itself, a pair being built at the heap's end.
    let echo = "(i32.store (i32.const 512) (local.get $head))
                (i32.store (i32.const 516) (local.get $length)) i32.const 512";
    let mut guest = instance(&Guest::running(Phase::Request, echo));
    let mut facts = Facts {
        state: 5,
        ..Facts::default()
    };
    facts.set(Fact::Method, b"BREW");
    let mut fields = Fields::default();
    fields.append(b"x-one", b"1");
    let shown = Shown {
        fields: Some(&fields),
        which: &ShownFields::All,
    };
    let seen = guest.call(Phase::Request, &facts, shown).unwrap();
    let mut expected = Vec::new();
    packed::Block::new(&facts, shown).write_to(&mut expected);
    assert_eq!(seen, expected);
}

#[test]
fn the_plan_comes_back() {
    let guest = Guest::answering(Phase::Request, &[])
        .matching_prefix("/api")
        .pool("web", "/routes/0/pool")
        .first_bytes(7);
    let module = Module::load(&host(), "test", &guest.build()).unwrap();
    let mut instance = module.instantiate(&options()).unwrap();
    let plan = instance.configure("{}", Duration::from_secs(1)).unwrap();
    assert_eq!(
        plan,
        Plan {
            phases: Phases::REQUEST,
            matching: vec![Test::PathPrefix("/api".into())],
            request_fields: Interest::All,
            response_fields: Interest::All,
            pools: vec![PoolUse {
                name: "web".into(),
                path: "/routes/0/pool".into(),
                called: false,
            }],
            first_bytes: 7,
            facts: super::FactSet::all(),
            request_body: super::BodyMode::Skip,
            response_body: super::BodyMode::Skip,
            effects: super::Effects::empty(),
            tick_ms: 0,
        }
    );
    assert_eq!(module.phase(Phase::Request), Some(Form::Packed));
    assert_eq!(module.phase(Phase::Response), None);
    assert!(!module.has_schema());
    assert_eq!(module.schema(), Ok(None));
}

#[test]
fn diagnostics_come_back() {
    let guest = Guest::answering(Phase::Request, &[]).refusing("/deny/0", "is no name", "quote it");
    let module = Module::load(&host(), "test", &guest.build()).unwrap();
    let mut instance = module.instantiate(&options()).unwrap();
    assert_eq!(
        instance.configure("{}", Duration::from_secs(1)),
        Err(ConfigureError::Rejected(vec![Diagnostic {
            path: "/deny/0".into(),
            message: "is no name".into(),
            help: Some("quote it".into()),
        }]))
    );
}

#[test]
fn a_schema_is_read() {
    let mut guest = Guest::answering(Phase::Request, &[]);
    let (at, length) = guest.put(b"{\"type\":\"null\"}");
    let guest = guest.item(&format!(
        "(func (export \"sluicegate:filter/settings-schema@0.1.0#schema\") (result i32)
           (i32.store (i32.const 512) (i32.const {at})) (i32.store (i32.const 516) (i32.const {length}))
           i32.const 512)"
    ));
    let module = Module::load(&host(), "test", &guest.build()).unwrap();
    assert_eq!(module.schema(), Ok(Some("{\"type\":\"null\"}".to_owned())));
}

#[test]
fn a_trap_has_a_readable_backtrace() {
    let guest = Guest::running(Phase::Request, "call $deep i32.const 0")
        .item("(func $deep call $deeper)")
        .item("(func $deeper unreachable)");
    let fault = fault(&guest);
    assert_eq!(fault.kind, FaultKind::Trap);
    assert!(fault.message.contains("unreachable"), "{fault}");
    let backtrace = fault.backtrace.expect("frames");
    let deeper = backtrace.find("deeper").expect(&backtrace);
    assert!(backtrace[..].rfind("deep").expect("outer") > deeper);
}

#[test]
fn memory_out_of_bounds_traps() {
    let fault = fault(&Guest::running(
        Phase::Request,
        "(i32.load (i32.const -8)) drop i32.const 0",
    ));
    assert_eq!(fault.kind, FaultKind::Trap);
}

#[test]
fn an_endless_loop_meets_its_deadline() {
    let mut guest = instance(&Guest::running(
        Phase::Request,
        "(loop $l br $l) i32.const 0",
    ));
    let begun = Instant::now();
    let fault = request(&mut guest).expect_err("a deadline");
    assert_eq!(fault.kind, FaultKind::Deadline);
    // Generous for a busy machine: what counts is that it ends.
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn an_endless_configure_meets_its_deadline() {
    let guest = Guest::answering(Phase::Request, &[]).configure("(loop $l br $l) i32.const 0");
    let module = Module::load(&host(), "test", &guest.build()).unwrap();
    let mut instance = module.instantiate(&options()).unwrap();
    match instance.configure("{}", Duration::from_millis(20)) {
        Err(ConfigureError::Fault(fault)) => assert_eq!(fault.kind, FaultKind::Deadline),
        other => panic!("{other:?}"),
    }
}

#[test]
fn growing_over_the_limit_is_a_memory_fault() {
    // What an allocator does: grow, and give up when that fails.
    let grow =
        "(if (i32.eq (memory.grow (i32.const 64)) (i32.const -1)) (then unreachable)) i32.const 0";
    assert_eq!(
        fault(&Guest::running(Phase::Request, grow)).kind,
        FaultKind::Memory
    );
}

/// Compiled code looks at its deadline where loops and functions begin, and within instructions over much memory: here
/// there are only those.
#[test]
fn instructions_over_much_memory_are_interrupted() {
    let mut options = options();
    options.limits.memory = 16 * 1024 * 1024;
    for each in [
        "(memory.fill (i32.const 65536) (i32.const 7) (i32.const 15000000))",
        "(memory.copy (i32.const 65537) (i32.const 65536) (i32.const 15000000))",
    ] {
        let body = format!(
            "(drop (memory.grow (i32.const 240))) {} i32.const 0",
            each.repeat(2000)
        );
        let module = Guest::running(Phase::Request, &body).build();
        let mut instance = Module::load(&host(), "test", &module)
            .unwrap()
            .instantiate(&options)
            .unwrap();
        let before = deadline::processor_time();
        let fault = request(&mut instance).expect_err("a fault");
        let took = deadline::processor_time() - before;
        assert_eq!(fault.kind, FaultKind::Deadline, "{fault}");
        // Far below the seconds that all of them would take.
        assert!(took < Duration::from_millis(500), "{took:?}");
    }
}

#[test]
fn a_module_that_begins_over_the_limit_is_refused() {
    let guest = Guest::answering(Phase::Request, &[]).pages(100);
    let module = Module::load(&host(), "test", &guest.build()).unwrap();
    let fault = module.instantiate(&options()).expect_err("too large");
    assert_eq!(fault.kind, FaultKind::Memory);
    assert!(fault.message.contains("limit of 1024 KiB"), "{fault}");
}

#[test]
fn a_deep_recursion_is_a_trap() {
    let guest = Guest::running(Phase::Request, "call $again i32.const 0")
        .item("(func $again call $again call $again)");
    let fault = fault(&guest);
    assert_eq!(fault.kind, FaultKind::Trap);
    assert!(fault.message.contains("stack"), "{fault}");
}

#[test]
fn output_is_bounded() {
    let answer = |length: u32| {
        format!(
            "(i32.store (i32.const 512) (i32.const 1024)) (i32.store (i32.const 516) (i32.const {length})) i32.const 512"
        )
    };
    assert_eq!(
        fault(&Guest::running(Phase::Request, &answer(100_000))).kind,
        FaultKind::Output
    );
    assert_eq!(
        request(&mut instance(&Guest::running(
            Phase::Request,
            &answer(64 * 1024)
        )))
        .unwrap()
        .len(),
        64 * 1024
    );
}

#[test]
fn output_is_bounded_below_what_is_always_copied() {
    let body = "(i32.store (i32.const 512) (i32.const 1024)) (i32.store (i32.const 516) (i32.const 200)) i32.const 512";
    let module = Module::load(
        &host(),
        "test",
        &Guest::running(Phase::Request, body).build(),
    )
    .unwrap();
    let mut options = options();
    options.limits.output = 100;
    let mut instance = module.instantiate(&options).unwrap();
    assert_eq!(request(&mut instance).unwrap_err().kind, FaultKind::Output);
}

#[test]
fn an_answer_outside_memory_is_no_verdict() {
    let body = "(i32.store (i32.const 512) (i32.const -100)) (i32.store (i32.const 516) (i32.const 10)) i32.const 512";
    assert_eq!(
        fault(&Guest::running(Phase::Request, body)).kind,
        FaultKind::Verdict
    );
    assert_eq!(
        fault(&Guest::running(Phase::Request, "i32.const -4")).kind,
        FaultKind::Verdict
    );
}

#[test]
fn a_lying_allocator_is_a_fault() {
    let text = Guest::answering(Phase::Request, &[])
        .text()
        .replace("(local.get $at))", "(i32.const -1))");
    let module = Module::load(&host(), "test", &::wat::parse_str(&text).unwrap()).unwrap();
    let mut instance = module.instantiate(&options()).unwrap();
    assert!(matches!(
        instance.configure("{}", Duration::from_secs(1)),
        Err(ConfigureError::Fault(_))
    ));
}

#[test]
fn log_is_a_capability() {
    let (lines, sink) = captured();
    let host = Host::new(HostOptions {
        cache: None,
        log: sink,
    })
    .unwrap();
    let mut guest = Guest::new()
        .import("(import \"sluicegate:filter/log@0.1.0\" \"log\" (func $log (param i32 i32 i32)))");
    let (at, length) = guest.put(b"hello");
    let guest = guest.and_runs(
        Phase::Request,
        &format!(
            "(local.set $n (i32.const 200))
             (loop $l (call $log (i32.const 1) (i32.const {at}) (i32.const {length}))
               (br_if $l (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
             (i64.store (i32.const 512) (i64.const 0)) i32.const 512"
        ),
    );
    let module = Module::load(&host, "test", &guest.build()).unwrap();
    assert_eq!(module.wanted_capabilities(), ["log"]);
    let fault = module.instantiate(&options()).expect_err("not granted");
    assert!(fault.message.contains("imports log"), "{fault}");

    let mut options = options();
    options.capabilities.log = true;
    let mut instance = module.instantiate(&options).unwrap();
    assert_eq!(request(&mut instance).unwrap(), b"");
    let lines = lines.lock().unwrap();
    assert_eq!(lines[0], ("test".into(), Level::Info, "hello".into()));
    assert_eq!(lines.len(), 64);
    assert_eq!(lines[63].1, Level::Warn);
}

type Lines = Arc<Mutex<Vec<(String, Level, String)>>>;

fn captured() -> (Lines, LogSink) {
    let lines: Lines = Arc::default();
    let sink = {
        let lines = lines.clone();
        LogSink::new(move |filter, level, line| {
            lines
                .lock()
                .unwrap()
                .push((filter.to_owned(), level, line.to_owned()));
        })
    };
    (lines, sink)
}

#[test]
fn what_is_no_filter_is_refused_by_name() {
    let good = Guest::answering(Phase::Request, &[]).build();
    for cut in [9, good.len() / 2, good.len() - 1] {
        let error = Module::load(&host(), "test", &good[..cut]).expect_err("truncated");
        assert!(matches!(error, ModuleError::Truncated { .. }), "{error}");
    }
    let other = ::wat::parse_str("(module (func (export \"other:pkg/iface@1.0.0#f\")))").unwrap();
    assert_eq!(
        load_error(&other),
        "exports nothing of sluicegate:filter (it exports other:pkg/iface@1.0.0); build it with sluicegate-sdk, \
         or against wit/filter.wit"
    );
    assert!(load_error(&::wat::parse_str("(component)").unwrap()).contains("exports nothing"));

    let text = Guest::answering(Phase::Request, &[]).text();
    let changed = |from: &str, to: &str| {
        load_error(&::wat::parse_str(text.replace(from, to)).expect("valid text"))
    };
    assert!(
        changed("@0.1.0", "@0.2.0")
            .starts_with("built for sluicegate:filter@0.2.0, this build serves 0.1.0"),
    );
    assert!(
        changed("configuration@0.1.0#configure", "configuration@0.1.0#c").contains("configure")
    );
    // A function of the contract with another type.
    let wrong = changed(
        "(param $head i32) (param $length i32) (result i32) (local",
        "(result i32) (local $head i32) (local $length i32) (local",
    );
    assert!(wrong.contains("on-request"), "{wrong}");

    let importing = |module: &str| {
        let guest = Guest::answering(Phase::Request, &[])
            .import(&format!("(import \"{module}\" \"f\" (func))"));
        load_error(&guest.build())
    };
    assert!(importing("wasi_snapshot_preview1").contains("preview 1"));
    assert!(importing("sluicegate:filter/teleport@0.1.0").contains("teleport"));
    assert!(importing("env").contains("env"), "{}", importing("env"));
}

#[test]
fn both_forms_of_a_phase_are_refused() {
    let guest = Guest::answering(Phase::Request, &[]).item(READABLE_REQUEST);
    assert_eq!(
        load_error(&guest.build()),
        "exports both http-request and readable-http-request; keep one"
    );
}

/// Answers every request with a reply: status 403, no fields, body "no".
const READABLE_REQUEST: &str = r#"
    (func (export "sluicegate:filter/readable-http-request@0.1.0#on-request") (param i32) (result i32)
      (memory.fill (i32.const 512) (i32.const 0) (i32.const 256))
      ;; the case `reply`; its record follows at the variant's alignment of 8
      (i32.store8 (i32.const 512) (i32.const 2))
      (i32.store16 (i32.const 520) (i32.const 403))
      (i32.store (i32.const 532) (i32.const 800))
      (i32.store (i32.const 536) (i32.const 2))
      (i32.store16 (i32.const 800) (i32.const 0x6f6e))
      (global.set $heap (i32.const 65536))
      i32.const 512)"#;

#[test]
fn the_readable_form_takes_the_same_way() {
    let guest = Guest::new().item(READABLE_REQUEST);
    let module = Module::load(&host(), "test", &guest.build()).unwrap();
    assert_eq!(module.phase(Phase::Request), Some(Form::Readable));
    let mut instance = module.instantiate(&options()).unwrap();
    let mut fields = Fields::default();
    fields.append(b"x-one", b"1");
    let mut facts = Facts::default();
    facts.set(Fact::Path, b"/\xff");
    let shown = Shown {
        fields: Some(&fields),
        which: &ShownFields::All,
    };
    let block = instance.call(Phase::Request, &facts, shown).unwrap();
    let verdict = Verdict::read(block, &super::Rules::new(Phase::Request, 0)).unwrap();
    assert_eq!(verdict.kind, Kind::Reply);
    assert_eq!(
        verdict.ops().collect::<Vec<_>>(),
        [Op::Status(403), Op::Body(b"no")]
    );
}

const WASI: [&str; 5] = [
    "package wasi:random@0.2.3; interface random { get-random-u64: func() -> u64; get-random-bytes: func(len: u64) -> list<u8>; }",
    "package wasi:io@0.2.3; interface streams {
       resource output-stream { write: func(contents: list<u8>) -> result; }
     }",
    "package wasi:cli@0.2.3; interface stdout { use wasi:io/streams@0.2.3.{output-stream}; get-stdout: func() -> output-stream; }
     interface environment { get-environment: func() -> list<tuple<string, string>>; }",
    "package wasi:sockets@0.2.3; interface instance-network { f: func(); }",
    "package wasi:http@0.2.3; interface outgoing-handler { f: func(); }",
];

/// A guest of a world that imports WASI, as compilers for wasm32-wasip2 make them.
fn wasi_guest(imports: &[&str], guest: &Guest) -> Vec<u8> {
    let mut resolve = wit_parser::Resolve::default();
    resolve
        .push_source("filter.wit", include_str!("../../../wit/filter.wit"))
        .unwrap();
    for package in WASI {
        resolve.push_source("wasi.wit", package).unwrap();
    }
    let imports: String = imports.iter().map(|i| format!("import {i};")).collect();
    let world = format!(
        "package a:b; world w {{ {imports} export sluicegate:filter/configuration@0.1.0; export sluicegate:filter/http-request@0.1.0; }}"
    );
    let package = resolve.push_source("w.wit", &world).unwrap();
    let world = resolve.select_world(&[package], Some("w")).unwrap();
    let mut bytes = guest.build();
    wit_component::embed_component_metadata(&mut bytes, &resolve, world, StringEncoding::UTF8)
        .unwrap();
    bytes
}

#[test]
fn wasi_is_there_and_says_no() {
    let (lines, sink) = captured();
    let host = Host::new(HostOptions {
        cache: None,
        log: sink,
    })
    .unwrap();
    let mut guest = Guest::new()
        .import("(import \"wasi:random/random@0.2.3\" \"get-random-u64\" (func $random (result i64)))")
        .import("(import \"wasi:cli/environment@0.2.3\" \"get-environment\" (func $env (param i32)))")
        .import("(import \"wasi:cli/stdout@0.2.3\" \"get-stdout\" (func $stdout (result i32)))")
        .import("(import \"wasi:io/streams@0.2.3\" \"[method]output-stream.write\" (func $write (param i32 i32 i32) (result i32)))")
        .import("(import \"wasi:sockets/instance-network@0.2.3\" \"f\" (func $network))");
    let (at, length) = guest.put(b"printed\n");
    // Drops when random numbers repeat, when there is an environment, or when printing fails; the path decides
    // whether the network is touched.
    let guest = guest.and_runs(
        Phase::Request,
        &format!(
            "(call $env (i32.const 600))
             (if (i32.or (i32.load (i32.const 604)) (i64.eq (call $random) (call $random))) (then unreachable))
             (if (call $write (call $stdout) (i32.const {at}) (i32.const {length})) (then unreachable))
             (if (i32.load (i32.add (local.get $head) (i32.const 16))) (then (call $network)))
             (i64.store (i32.const 512) (i64.const 0)) i32.const 512"
        ),
    );
    let imports = [
        "wasi:random/random@0.2.3",
        "wasi:cli/environment@0.2.3",
        "wasi:cli/stdout@0.2.3",
        "wasi:sockets/instance-network@0.2.3",
    ];
    let module = Module::load(&host, "test", &wasi_guest(&imports, &guest)).unwrap();
    assert!(module.uses_wasi());
    assert!(module.wanted_capabilities().is_empty());

    let mut silent = module.instantiate(&options()).unwrap();
    assert_eq!(request(&mut silent).unwrap(), b"");
    assert!(lines.lock().unwrap().is_empty());

    let mut options = options();
    options.capabilities.log = true;
    let mut instance = module.instantiate(&options).unwrap();
    for _ in 0..3 {
        assert_eq!(request(&mut instance).unwrap(), b"");
    }
    assert_eq!(lines.lock().unwrap().len(), 3);
    assert_eq!(lines.lock().unwrap()[0].2, "printed");

    let facts = Facts {
        state: 1,
        ..Facts::default()
    };
    let fault = instance
        .call(Phase::Request, &facts, Shown::NOTHING)
        .expect_err("the network");
    assert_eq!(fault.kind, FaultKind::Trap);
    assert_eq!(
        fault.message,
        "wasi:sockets/instance-network#f is not granted to filters"
    );
}

/// The table of them is the host's memory.
#[test]
fn handles_are_bounded() {
    let guest = Guest::new()
        .import("(import \"wasi:cli/stdout@0.2.3\" \"get-stdout\" (func $stdout (result i32)))")
        .and_runs(
            Phase::Request,
            "(loop $l (drop (call $stdout)) (br $l)) i32.const 0",
        );
    let bytes = wasi_guest(&["wasi:cli/stdout@0.2.3"], &guest);
    let mut options = options();
    options.limits.deadline = Duration::from_secs(10);
    options.limits.host_calls = 100_000;
    let mut instance = Module::load(&host(), "test", &bytes)
        .unwrap()
        .instantiate(&options)
        .unwrap();
    let fault = request(&mut instance).expect_err("a fault");
    assert_eq!(fault.kind, FaultKind::Trap);
    assert!(fault.message.contains("handle limit"), "{fault}");
}

#[test]
fn calls_into_the_host_are_counted_for_each_call() {
    let times = |n: u32| {
        format!(
            "(local.set $n (i32.const {n}))
             (loop $l
               (drop (call $random))
               (br_if $l (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
             i32.const 0"
        )
    };
    let of = |n: u32| {
        let guest = Guest::new()
            .import("(import \"wasi:random/random@0.2.3\" \"get-random-u64\" (func $random (result i64)))")
            .and_runs(Phase::Request, &times(n));
        let bytes = wasi_guest(&["wasi:random/random@0.2.3"], &guest);
        let mut options = options();
        options.limits.deadline = Duration::from_secs(10);
        let module = Module::load(&host(), "test", &bytes).unwrap();
        module.instantiate(&options).unwrap()
    };
    let mut instance = of(1000);
    for _ in 0..3 {
        assert_eq!(request(&mut instance), Ok(Vec::new()));
    }
    let fault = request(&mut of(1001)).expect_err("a fault");
    assert_eq!(fault.kind, FaultKind::HostCalls);
    assert_eq!(
        fault.message,
        "called the proxy more than 1000 times in one call"
    );
    assert!(fault.backtrace.is_some());
}

#[test]
fn other_wasi_is_refused_at_load() {
    let guest = Guest::answering(Phase::Request, &[])
        .import("(import \"wasi:http/outgoing-handler@0.2.3\" \"f\" (func))");
    let bytes = wasi_guest(&["wasi:http/outgoing-handler@0.2.3"], &guest);
    assert!(load_error(&bytes).starts_with("imports wasi:http/outgoing-handler@0.2.3"));
}

#[test]
fn compiled_code_is_cached() {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::new(HostOptions {
        cache: Some(directory.path().join("deep/cache")),
        ..HostOptions::default()
    })
    .unwrap();
    let module = Guest::answering(Phase::Request, &[2]).build();
    Module::load(&host, "test", &module).unwrap();
    let mut cached = instance_of(&host, &module);
    assert_eq!(request(&mut cached).unwrap(), [2]);
    assert!(
        directory
            .path()
            .join("deep/cache")
            .read_dir()
            .unwrap()
            .count()
            > 0
    );
}

#[test]
fn a_cache_that_cannot_be_used_is_done_without() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let host = Host::new(HostOptions {
        cache: Some(file.path().join("x")),
        ..HostOptions::default()
    })
    .unwrap();
    let mut instance = instance_of(&host, &Guest::answering(Phase::Request, &[3]).build());
    assert_eq!(request(&mut instance).unwrap(), [3]);
}

fn instance_of(host: &Host, module: &[u8]) -> Instance {
    Module::load(host, "test", module)
        .unwrap()
        .instantiate(&options())
        .unwrap()
}

#[test]
fn instances_move_between_threads() {
    let mut guest = instance(&Guest::answering(Phase::Request, &[2]));
    let answer = std::thread::spawn(move || request(&mut guest))
        .join()
        .unwrap();
    assert_eq!(answer.unwrap(), [2]);
}

#[test]
fn a_thousand_instances_come_and_go() {
    let module = Module::load(
        &host(),
        "test",
        &Guest::answering(Phase::Request, &[2]).build(),
    )
    .unwrap();
    assert!(module.host().is_pooled());
    for _ in 0..100 {
        let mut held: Vec<_> = (0..10)
            .map(|_| module.instantiate(&options()).unwrap())
            .collect();
        assert_eq!(request(&mut held[9]).unwrap(), [2]);
    }
}
