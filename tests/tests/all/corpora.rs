//! Every file that the fuzzers start from, or have found something with, goes through its target once.

use std::path::Path;

use sluicegate_tests::fuzz::TARGETS;

#[test]
fn every_file_of_the_corpora_passes_its_target() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    let mut failures = Vec::new();
    for (name, run) in TARGETS {
        let files = std::fs::read_dir(corpora.join(name)).expect("a corpus");
        let mut count = 0;
        for file in files {
            let path = file.expect("an entry").path();
            let data = std::fs::read(&path).expect("a file");
            count += 1;
            if std::panic::catch_unwind(|| run(&data)).is_err() {
                failures.push(path.display().to_string());
            }
        }
        assert!(count > 0, "the corpus of {name} is empty");
        run(b"");
    }
    let known = std::fs::read_dir(&corpora).expect("corpora").count();
    assert_eq!(known, TARGETS.len(), "corpora without a target");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
