//! The guests of `tests/guests`. Filters belong to this workspace; components of `wasi:http` are each one of their own, for
//! another target.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

const TARGET: &str = "wasm32-wasip2";

/// Of `wasi:http` 0.2, with a behaviour for each path.
pub fn handler() -> &'static [u8] {
    static BUILT: OnceLock<Vec<u8>> = OnceLock::new();
    BUILT.get_or_init(|| build("handler"))
}

/// Of `wasi:http` 0.3, with the same behaviours and more.
pub fn service() -> &'static [u8] {
    static BUILT: OnceLock<Vec<u8>> = OnceLock::new();
    BUILT.get_or_init(|| build("service"))
}

/// Middleware of `wasi:http` 0.3.
pub fn middleware() -> &'static [u8] {
    static BUILT: OnceLock<Vec<u8>> = OnceLock::new();
    BUILT.get_or_init(|| build("middleware"))
}

/// A filter, for `triple`.
pub fn filter(name: &str, triple: &str) -> Vec<u8> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace");
    // Where the standard filters are built: what they share with it is there already.
    let target = sluicegate_tests::proxy::binary()
        .ancestors()
        .nth(2)
        .expect("target/PROFILE")
        .join("filters");
    let output = Command::new(env!("CARGO"))
        .args(["build", "--target", triple, "--profile", "filter"])
        .args(["--package", &format!("sluicegate-guest-{name}")])
        .arg("--target-dir")
        .arg(&target)
        .current_dir(root)
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_TARGET_DIR")
        .output()
        .expect("cargo runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let module = target.join(format!("{triple}/filter/{name}.wasm"));
    std::fs::read(&module).unwrap_or_else(|why| panic!("{}: {why}", module.display()))
}

fn build(name: &str) -> Vec<u8> {
    let krate = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("guests")
        .join(name);
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .current_dir(&krate)
        .env_remove("CARGO_TARGET_DIR")
        .args([
            "build",
            "--quiet",
            "--release",
            "--locked",
            "--target",
            TARGET,
        ])
        .status()
        .expect("cargo runs");
    assert!(status.success(), "the guest {name} does not build");
    let built = format!("target/{TARGET}/release/{name}_guest.wasm");
    std::fs::read(krate.join(built)).expect("the guest")
}
