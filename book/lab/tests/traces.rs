//! The book's traces, recorded again: the same steps, bits, faults and values, whatever the machine.

use std::path::Path;
use std::process::Command;

#[test]
fn every_trace_is_what_this_kernel_does() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../src/traces");
    for scenario in lab::trace::SCENARIOS {
        let output = Command::new(env!("CARGO_BIN_EXE_record"))
            .arg(scenario.name)
            .output()
            .expect("the recorder starts");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {stderr}", scenario.name);
        let recorded = String::from_utf8(output.stdout).expect("JSON is UTF-8");
        let path = folder.join(format!("{}.json", scenario.name));
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(
            everywhere(&kept),
            everywhere(&recorded),
            "{}: `cargo run -q -p lab -- {}` prints another",
            path.display(),
            scenario.name
        );
    }
}

/// What does not depend on the machine.
fn everywhere(trace: &str) -> Vec<&str> {
    let machine = |line: &&str| line.trim_start().starts_with("\"recorded_on\"");
    trace.lines().filter(|line| !machine(line)).collect()
}

#[test]
fn no_trace_is_left_over() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../src/traces");
    let mut kept: Vec<_> = std::fs::read_dir(folder)
        .expect("traces")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    kept.sort();
    let mut known: Vec<_> = lab::trace::SCENARIOS
        .iter()
        .map(|scenario| format!("{}.json", scenario.name))
        .collect();
    known.sort();
    assert_eq!(kept, known);
}
