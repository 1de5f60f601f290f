//! At load: a module that is none, or that does what it may not while it is set up, is refused with a sentence, and
//! what served before goes on serving.

use std::fmt::Write;

use sluicegate_tests::backend::Backend;
use sluicegate_tests::proxy::Output;

use super::super::guest::{Guest, NEXT, NOTHING_MORE, Phase, SET, op, verdict};
use super::super::rig::{Plan, Rig};

const MEBIBYTE: usize = 1 << 20;

/// A file that is no good filter, and further keys of the filter that uses it.
#[derive(Clone)]
struct Case {
    name: &'static str,
    module: Vec<u8>,
    keys: String,
}

fn case(name: &'static str, module: impl AsRef<[u8]>) -> Case {
    Case {
        name,
        module: module.as_ref().to_vec(),
        keys: "limits: {configure-deadline: 100ms}".into(),
    }
}

fn wat(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|why| panic!("{why}\n{text}"))
}

fn good() -> Guest {
    let block = verdict(NEXT, &[op(SET, "x-a", b"b")]);
    Guest::default().answers(Phase::Request, &block)
}

/// A good guest with `items` after it.
fn with(items: &str) -> Vec<u8> {
    good().item(items).build()
}

/// A good guest but for what it does with its settings.
fn configuring(body: &str) -> Vec<u8> {
    good().configures(body).build()
}

/// A guest that answers these words, the result's case first, when it is configured.
fn planning(make: impl FnOnce(&mut Guest) -> Vec<u32>) -> Vec<u8> {
    let mut guest = good();
    let words = make(&mut guest);
    let at = guest.words(&words);
    guest.configures(&format!("(i32.const {at})")).build()
}

/// A plan: phases, predicate, fields of requests and of responses, pools, first bytes.
fn plan(tests: [u32; 2], request: [u32; 3], pools: [u32; 2], first_bytes: u32) -> Vec<u32> {
    let mut words = vec![0, 1];
    words.extend(tests);
    words.extend(request);
    words.extend([0, 0, 0]);
    words.extend(pools);
    words.push(first_bytes);
    words.extend(NOTHING_MORE);
    words
}

/// A module of imports alone, and what every filter exports.
fn importing(imports: &str) -> Vec<u8> {
    wat(&format!(
        r#"(module {imports} (memory (export "memory") 1)
          (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
          (func (export "sluicegate:filter/configuration@0.1.0#configure") (param i32 i32) (result i32) unreachable))"#
    ))
}

/// A good guest with another memory than its own.
fn remembering(memory: &str) -> Vec<u8> {
    wat(&good()
        .text()
        .replace("(memory (export \"memory\") 4)", memory))
}

fn no_modules() -> Vec<Case> {
    let (good_text, good) = (good().text(), good().build());
    let random: Vec<u8> = (0u32..4096)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let behind_magic = [b"\0asm\x01\0\0\0".as_slice(), &random].concat();
    let component = [b"\0asm\x0d\0\x01\0".as_slice(), &random].concat();
    let mut too_large = good.clone();
    too_large.resize(64 * MEBIBYTE + 1, 0);
    let other_version = |version: &str| wat(&good_text.replace("@0.1.0", version));
    vec![
        case("empty", ""),
        case("random bytes", &random),
        case("random bytes of a core module", behind_magic),
        case("random bytes of a component", component),
        case("a header alone", b"\0asm\x01\0\0\0"),
        case("four bytes", b"\0asm"),
        case("truncated", &good[..good.len() - 7]),
        case("bytes behind the end", [&good[..], b"\x7f\x7f\x7f"].concat()),
        case("larger than a module may be", too_large),
        case("text", "(module)"),
        case("a component of another world", wat(
            "(component (core module $m (func (export \"f\"))) (core instance $i (instantiate $m))
               (func (export \"run\") (canon lift (core func $i \"f\"))))",
        )),
        case("a contract of the future", other_version("@0.9.0")),
        case("a contract that never was", other_version("@7")),
        case("a contract without a number", other_version("")),
        case("unknown imports", importing("(import \"env\" \"system\" (func (param i32)))")),
        case("a memory from outside", importing("(import \"env\" \"memory\" (memory 1))").as_slice()),
        case("WASI preview 1", importing("(import \"wasi_snapshot_preview1\" \"fd_write\" (func))")),
        case("a capability that there is not", importing("(import \"sluicegate:filter/shell@0.1.0\" \"run\" (func))")),
        case("a capability that was not granted", importing(
            "(import \"sluicegate:filter/log@0.1.0\" \"log\" (func (param i32 i32 i32)))",
        )),
        case("the log with another type", importing(
            "(import \"sluicegate:filter/log@0.1.0\" \"log\" (func (param i64) (result i64)))",
        )),
        case("names of terminal sequences", importing(&format!(
            "(import \"\\1b[2J\\0aerror: {}\" \"f\" (func))", "long".repeat(1000)
        ))),
        case("hundreds of exports", wat(&format!("(module {})", (0..500).fold(String::new(), |mut text, n| {
            let _ = write!(text, "(func (export \"other:pkg/i{n}@1.0.0#f\"))");
            text
        })))),
        case("no configuration", wat(
            "(module (memory (export \"memory\") 1) (func (export \"cabi_realloc\") (param i32 i32 i32 i32) (result i32) unreachable)
               (func (export \"sluicegate:filter/http-request@0.1.0#on-request\") (param i32 i32) (result i32) unreachable))",
        )),
        case("a phase of another type", with(
            "(func (export \"sluicegate:filter/http-response@0.1.0#on-response\") (param i64))",
        )),
        case("both forms of a phase", with(
            "(func (export \"sluicegate:filter/readable-http-request@0.1.0#on-request\") (param i32) (result i32) unreachable)",
        )),
        case("a type error", wat("(module (func (export \"sluicegate:filter/http-request@0.1.0#on-request\") (result i32)))")),
    ]
}

fn bad_starts() -> Vec<Case> {
    vec![
        case(
            "a start function that loops",
            with("(func $begin (loop $l br $l)) (start $begin)"),
        ),
        case(
            "a start function that traps",
            with("(func $begin unreachable) (start $begin)"),
        ),
        case(
            "a start function that recurses",
            with("(func $begin (call $begin)) (start $begin)"),
        ),
        case("a start function with a terrible name", {
            let name = format!("$\"\\1b[2J\\0aerror: all is well {}\"", "x".repeat(100_000));
            with(&format!("(func {name} unreachable) (start {name})"))
        }),
        case(
            "data outside memory",
            with("(data (i32.const 10000000) \"x\")"),
        ),
        case(
            "a memory over the limit",
            remembering("(memory (export \"memory\") 300)"),
        ),
        case(
            "a memory of 4 GiB",
            remembering("(memory (export \"memory\") 65536)"),
        ),
        case(
            "a memory of 64 bits",
            remembering("(memory (export \"memory\") i64 4)"),
        ),
        case(
            "a shared memory",
            remembering("(memory (export \"memory\") 4 4 shared)"),
        ),
        case(
            "two more memories",
            with("(memory 4) (memory 4) (memory 4)"),
        ),
        case("a large table", with("(table 100000 funcref)")),
        case("a hundred tables", with(&"(table 1 funcref)".repeat(100))),
        case(
            "waiting on an atomic",
            with("(func (drop (memory.atomic.wait32 (i32.const 0) (i32.const 0) (i64.const -1))))"),
        ),
    ]
}

fn bad_configures() -> Vec<Case> {
    let schema = |text: &str| {
        let mut guest = good();
        let pair = guest.pair(text.as_bytes());
        let body = format!(
            "(func (export \"sluicegate:filter/settings-schema@0.1.0#schema\") (result i32) (i32.const {pair}))"
        );
        guest.item(&body).build()
    };
    let mut settings = case("settings of 10 MB", good().build());
    settings.keys = format!("settings: {{deny: [\"{}\"]}}", "x".repeat(10_000_000));
    let mut refused = case(
        "settings that it refuses",
        planning(|guest| {
            let path = guest.put(b"/deny/1");
            let message = guest.put(b"\x1b[31mno such\nword");
            let help = guest.put(b"write another");
            let diagnostic = guest.words(&[path, 7, message, 17, 1, help, 13]);
            vec![1, diagnostic, 1]
        }),
    );
    refused.keys = "settings:\n      deny:\n        - yes\n        - no".into();
    vec![
        settings,
        refused,
        case("refused without a word", planning(|_| vec![1, 0, 0])),
        case(
            "refused in ten thousand words",
            planning(|guest| {
                let text = guest.put(b"no");
                let diagnostics = guest.words(&[text, 2, text, 2, 0, 0, 0].repeat(2000));
                vec![1, diagnostics, 2000]
            }),
        ),
        case("refused in one long word", with_long_refusal()),
        case(
            "an endless loop",
            configuring("(loop $l br $l) (i32.const 0)"),
        ),
        case("a trap", configuring("unreachable")),
        case(
            "an endless recursion",
            good()
                .configures("(call $again) (i32.const 0)")
                .item("(func $again (call $again))")
                .build(),
        ),
        case(
            "memory without end",
            configuring(
                "(loop $l (br_if $l (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable",
            ),
        ),
        case("an address outside", configuring("(i32.const -8)")),
        case("an answer that is neither", planning(|_| vec![7])),
        case(
            "an endless list of tests",
            planning(|_| plan([1024, u32::MAX / 2], [2, 0, 0], [0, 0], 0)),
        ),
        case(
            "an endless list of pools",
            planning(|_| plan([0, 0], [2, 0, 0], [1024, 4_000_000], 0)),
        ),
        case(
            "a list that ends outside",
            planning(|_| plan([262_000, 1000], [2, 0, 0], [0, 0], 0)),
        ),
        case(
            "an unknown test",
            planning(|guest| {
                let tests = guest.words(&[99, 0, 0, 0, 0]);
                plan([tests, 1], [2, 0, 0], [0, 0], 0)
            }),
        ),
        case(
            "text that is none",
            planning(|guest| {
                let text = guest.put(b"\xff\xfe");
                let tests = guest.words(&[1, text, 2, 0, 0]);
                plan([tests, 1], [2, 0, 0], [0, 0], 0)
            }),
        ),
        case(
            "more tests than may be",
            planning(|guest| {
                let tests = guest.words(&[12, 0, 0, 0, 0].repeat(1025));
                plan([tests, 1025], [2, 0, 0], [0, 0], 0)
            }),
        ),
        case(
            "an operator of four billion values",
            planning(|guest| {
                let tests = guest.words(&[10, u32::MAX, 0, 0, 0]);
                plan([tests, 1], [2, 0, 0], [0, 0], 0)
            }),
        ),
        case(
            "operators without end",
            planning(|guest| {
                let text = guest.put(b"/");
                let mut tests = vec![1, text, 1, 0, 0];
                tests.extend([12, 0, 0, 0, 0].repeat(200));
                let at = guest.words(&tests);
                plan([at, 201], [2, 0, 0], [0, 0], 0)
            }),
        ),
        case(
            "a network that is none",
            planning(|guest| {
                let text = guest.put(b"10.0.0.0/99");
                let list = guest.words(&[text, 11]);
                let tests = guest.words(&[9, list, 1, 0, 0]);
                plan([tests, 1], [2, 0, 0], [0, 0], 0)
            }),
        ),
        case(
            "a field that is none",
            planning(|guest| {
                let text = guest.put(b"x\r\ny");
                let list = guest.words(&[text, 4]);
                plan([0, 0], [1, list, 1], [0, 0], 0)
            }),
        ),
        case(
            "more fields than may be",
            planning(|guest| {
                let text = guest.put(b"x-y");
                let list = guest.words(&[text, 3].repeat(300));
                plan([0, 0], [1, list, 300], [0, 0], 0)
            }),
        ),
        case(
            "more pools than may be",
            // Where memory is 0: they have no names.
            planning(|_| plan([0, 0], [2, 0, 0], [1 << 17, 5000], 0)),
        ),
        case(
            "a pool of a terrible name",
            planning(|guest| {
                let text = guest.put(&b"\x1b[2J pool".repeat(1000));
                let list = guest.words(&[text, 9000, text, 0, 0]);
                plan([0, 0], [2, 0, 0], [list, 1], 0)
            }),
        ),
        case(
            "four billion first bytes",
            planning(|_| plan([0, 0], [2, 0, 0], [0, 0], u32::MAX)),
        ),
        case("a schema that is no JSON", schema("{\"type\": ")),
        case("a schema of deep nesting", schema(&"[".repeat(20_000))),
        case(
            "a schema that loops",
            with(
                "(func (export \"sluicegate:filter/settings-schema@0.1.0#schema\") (result i32) (loop $l br $l) unreachable)",
            ),
        ),
        case(
            "a schema that nothing fits",
            schema("{\"type\": \"integer\", \"minimum\": 7}"),
        ),
    ]
}

/// One finding whose words are a megabyte each.
fn with_long_refusal() -> Vec<u8> {
    planning(|guest| {
        let diagnostic = guest.words(&[65536, 1 << 17, 65536, 1 << 17, 1, 65536, 1 << 17]);
        vec![1, diagnostic, 1]
    })
}

#[test]
fn each_is_refused_with_a_sentence_and_changes_nothing() {
    let backend = Backend::http("web1");
    let plain = Plan::new(&[backend.address()]).top("workers: 1");
    let rig = plain.clone().run();
    let mut kept = rig.raw();
    let (mut said, mut failures, mut before) = (String::new(), Vec::new(), None);
    let cases = [no_modules(), bad_starts(), bad_configures()].concat();
    for (n, case) in cases.iter().enumerate() {
        // Code of the compiler and buffers that stay.
        if n == 10 {
            before = Some(rig.proxy.resources());
        }
        std::fs::write(rig.proxy.directory().join("bad.wasm"), &case.module).expect("a file");
        let output = rig.proxy.reload(&hostile(&plain, &rig, case));
        let _ = writeln!(said, "== {}\n{}", case.name, settled(&rig, &output));
        if output.code != 78 {
            failures.push(format!("{}: {output:?}", case.name));
        }
        kept.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            .expect("send");
        let answer = kept.response().expect("the connection goes on");
        let generation = rig.proxy.metric("sluicegate_config_generation");
        if (answer.text().as_str(), generation) != ("web1", 1.0) {
            failures.push(format!(
                "{}: {answer:?} of generation {generation}",
                case.name
            ));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    insta::with_settings!({omit_expression => true, prepend_module_to_snapshot => false, snapshot_path => "../snapshots"}, {
        insta::assert_snapshot!("hostile_guests_loading", said);
    });
    drop(kept);
    let before = before.expect("ten cases");
    rig.proxy.assert_nothing_left(before, 96 * MEBIBYTE as u64);
    // The guest that all of these were made of is a filter.
    std::fs::write(rig.proxy.directory().join("bad.wasm"), good().build()).expect("a file");
    let output = rig.proxy.reload(&hostile(&plain, &rig, &case("good", "")));
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert_eq!(rig.get("/").text(), "web1");
    assert_eq!(
        backend
            .received()
            .last()
            .and_then(|r| r.field("x-a").map(str::to_owned))
            .as_deref(),
        Some("b")
    );
}

fn hostile(plain: &Plan, rig: &Rig, case: &Case) -> String {
    plain
        .clone()
        .top(&format!(
            "filters:\n  bad:\n    module: bad.wasm\n    {}",
            case.keys
        ))
        .listener("filters: [bad]")
        .yaml(rig.bind)
}

/// What was said, without what differs from run to run; a long line is cut.
fn settled(rig: &Rig, output: &Output) -> String {
    let directory = rig.proxy.directory().display().to_string();
    let text = format!("{}{}", output.stdout, output.stderr).replace(&directory, "[DIR]");
    let control = |c: &char| c.is_control() && *c != '\n';
    assert!(text.chars().find(control).is_none(), "{text:?}");
    assert!(text.len() < 200_000, "{} bytes", text.len());
    text.lines()
        .map(|line| match line.char_indices().nth(200) {
            Some((at, _)) => format!("{}[{} more]\n", &line[..at], line.len() - at),
            None => format!("{line}\n"),
        })
        .collect()
}
