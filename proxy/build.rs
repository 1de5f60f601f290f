//! Compiles the standard filters to WebAssembly, so that the proxy carries them as `builtin:` modules.
//!
//! They are built by a cargo of their own, in a target directory of their own: the outer cargo holds the lock of the
//! usual one, and its flags (sanitizers, clippy, a target CPU) mean nothing to wasm.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

/// Module name as users write it, package, file that cargo makes.
const FILTERS: [(&str, &str, &str); 6] = [
    (
        "auth-request",
        "sluicegate-filter-auth-request",
        "auth_request.wasm",
    ),
    ("headers", "sluicegate-filter-headers", "headers.wasm"),
    (
        "rate-limit",
        "sluicegate-filter-rate-limit",
        "rate_limit.wasm",
    ),
    ("router", "sluicegate-filter-router", "router.wasm"),
    ("sticky", "sluicegate-filter-sticky", "sticky.wasm"),
    ("ua-block", "sluicegate-filter-ua-block", "ua_block.wasm"),
];

const TARGET: &str = "wasm32-unknown-unknown";
const PROFILE: &str = "filter";

fn main() {
    let workspace = PathBuf::from(variable("CARGO_MANIFEST_DIR")).join("..");
    for watched in ["filters", "sdk", "wit", "Cargo.toml", "Cargo.lock"] {
        println!(
            "cargo::rerun-if-changed={}",
            workspace.join(watched).display()
        );
    }
    let out = PathBuf::from(variable("OUT_DIR"));
    let target = target_dir(&out);

    let mut cargo = cargo();
    cargo
        .current_dir(&workspace)
        .args(["build", "--target", TARGET, "--profile", PROFILE])
        .arg("--target-dir")
        .arg(&target);
    for (_, package, _) in FILTERS {
        cargo.args(["--package", package]);
    }
    match cargo.status() {
        Ok(status) if status.success() => {}
        Ok(_) => fail("the standard filters do not compile, see above"),
        Err(error) => fail(&format!(
            "{:?} does not start: {error}",
            cargo.get_program()
        )),
    }

    let built = target.join(TARGET).join(PROFILE);
    for (name, _, file) in FILTERS {
        let (from, to) = (built.join(file), out.join(format!("{name}.wasm")));
        if let Err(error) = fs::copy(&from, &to) {
            fail(&format!("{} is not there: {error}", from.display()));
        }
    }
}

/// A cargo with the wasm target, free of what the outer build passes on.
///
/// When the toolchain at work lacks the target (a nightly that runs the fuzzers, say), the one that
/// `rust-toolchain.toml` names is asked.
fn cargo() -> Command {
    let mut cargo = if has_wasm(Command::new(variable("RUSTC"))) {
        Command::new(variable("CARGO"))
    } else {
        let mut rustc = Command::new("rustc");
        rustc.env_remove("RUSTUP_TOOLCHAIN");
        if !has_wasm(rustc) {
            fail(&format!(
                "the Rust target {TARGET} is not installed: run `make setup` or `rustup target add {TARGET}`"
            ));
        }
        let mut cargo = Command::new("cargo");
        cargo.env_remove("RUSTUP_TOOLCHAIN");
        cargo
    };
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(belongs_to_the_outer_build) {
            cargo.env_remove(name);
        }
    }
    cargo
}

fn belongs_to_the_outer_build(name: &str) -> bool {
    const EXACT: [&str; 14] = [
        "RUSTC",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTC_LINKER",
        "RUSTDOC",
        "RUSTFLAGS",
        "RUSTDOCFLAGS",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_TARGET_DIR",
        "CLIPPY_ARGS",
        "TARGET",
        "OUT_DIR",
        "DEBUG",
        "PROFILE",
    ];
    const PREFIXES: [&str; 6] = [
        "CARGO_BUILD_",
        "CARGO_PROFILE_",
        "CARGO_CFG_",
        "CARGO_FEATURE_",
        "CARGO_PKG_",
        "CARGO_TARGET_",
    ];
    EXACT.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

fn has_wasm(mut rustc: Command) -> bool {
    let output = rustc
        .args(["--print", "target-libdir", "--target", TARGET])
        .current_dir(variable("CARGO_MANIFEST_DIR"))
        .output();
    output.is_ok_and(|output| {
        let dir = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success() && Path::new(&dir).is_dir()
    })
}

/// `filters` inside the target directory, shared by all profiles of the outer build.
fn target_dir(out: &Path) -> PathBuf {
    out.ancestors()
        .filter(|dir| dir.join("CACHEDIR.TAG").is_file())
        .last()
        .unwrap_or(out)
        .join("filters")
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| fail(&format!("cargo did not set {name}")))
}

fn fail(message: &str) -> ! {
    println!("cargo::error={message}");
    exit(1)
}
