//! The generated reference in the repository is the one that this build generates.

use std::path::Path;
use std::process::Command;

#[test]
fn the_reference_is_current() {
    let made = Command::new(sluicegate_tests::proxy::binary())
        .args(["config", "reference"])
        .output()
        .expect("sluicegate config reference");
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let kept = std::fs::read_to_string(&path).expect("docs/configuration.md");
    let made = String::from_utf8(made.stdout).expect("UTF-8");
    let differs = kept
        .lines()
        .zip(made.lines())
        .find(|(kept, made)| kept != made);
    assert!(
        kept == made,
        "docs/configuration.md is out of date: run `make reference`; first difference: {differs:?}"
    );
}
