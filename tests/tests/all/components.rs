//! The components of `tests/guests` that are no filters: each a workspace of its own, for another target.

use std::path::PathBuf;
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
