//! Records the book's traces again and compares steps, bits, faults and values, which do not depend on the machine.

use std::path::Path;
use std::process::Command;

#[test]
fn recorded_traces_match_this_kernel() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../src/traces");
    for scenario in lab::trace::SCENARIOS {
        let output = Command::new(env!("CARGO_BIN_EXE_record"))
            .arg(scenario.name)
            .output()
            .expect("the recorder can be started");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {stderr}", scenario.name);
        let recorded = String::from_utf8(output.stdout).expect("JSON is UTF-8");
        let path = folder.join(format!("{}.json", scenario.name));
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(
            without_machine(&committed),
            without_machine(&recorded),
            "{} differs from the output of `cargo run -q -p lab -- {}`",
            path.display(),
            scenario.name
        );
    }
}

/// Returns the lines that do not depend on the machine.
fn without_machine(trace: &str) -> Vec<&str> {
    let machine = |line: &&str| line.trim_start().starts_with("\"recorded_on\"");
    trace.lines().filter(|line| !machine(line)).collect()
}

#[test]
fn every_trace_file_has_a_scenario() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../src/traces");
    let mut recorded: Vec<_> = std::fs::read_dir(folder)
        .expect("traces")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    recorded.sort();
    let mut known: Vec<_> = lab::trace::SCENARIOS
        .iter()
        .map(|scenario| format!("{}.json", scenario.name))
        .collect();
    known.sort();
    assert_eq!(recorded, known);
}
