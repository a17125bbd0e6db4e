//! A tiny run from end to end: the document's shape, and what the kernel counted for the solution. Never a time.

use std::process::Command;

use serde_json::Value;

/// Runs the benchmark without valgrind, which would take its time.
fn run(arguments: &[&str], no_ptrace: bool) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
    command
        .args(["--quick", "--rounds", "1"])
        .args(arguments)
        .env("PATH", "")
        .env("NO_COLOR", "1")
        .env_remove("JUDGE_NO_PTRACE");
    if no_ptrace {
        command.env("JUDGE_NO_PTRACE", "1");
    }
    let output = command.output().expect("the benchmark starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(said, "", "progress, and no terminal");
    String::from_utf8(output.stdout).expect("text")
}

fn json(no_ptrace: bool) -> Value {
    serde_json::from_str(&run(&["--json"], no_ptrace)).expect("one JSON document")
}

fn skipped(document: &Value, what: &str) -> Option<String> {
    let skipped = document["skipped"].as_array().expect("a list");
    let entry = skipped.iter().find(|entry| entry["what"] == what)?;
    Some(entry["why"].as_str().expect("a reason").to_owned())
}

#[test]
fn the_counts_of_the_solution_are_right() {
    let document = json(false);
    assert_eq!(document["subject"], "solution");
    let rows = document["rows"].as_array().expect("rows");
    let names: Vec<_> = rows.iter().filter_map(|row| row["name"].as_str()).collect();
    let expected = [
        "solution",
        " with cache",
        "glibc",
        "glibc again",
        "glibc pinned",
        "mimalloc",
        "jemalloc",
        "rlsf",
    ];
    assert_eq!(names, expected);
    assert_eq!(document["failed"], Value::Array(Vec::new()));
    if let Some(why) = skipped(&document, "system calls") {
        println!("system calls: {why}");
        return;
    }
    for row in &rows[..2] {
        let counts = &row["counts"];
        let calls = |workload: &str| counts[workload]["calls"].clone();
        let steps = |workload: &str| counts[workload]["steps"].as_u64().expect("steps");
        let large = steps("large");
        assert_eq!(
            calls("large"),
            serde_json::json!({"mmap": large, "munmap": large})
        );
        assert_eq!(calls("small"), serde_json::json!({}));
        assert_eq!(calls("vec"), serde_json::json!({"mremap": steps("vec")}));
        assert_eq!(counts["untouched"]["faults"], 0);
        assert_eq!(counts["large"]["faults"], counts["large"]["pages"]);
    }
    // What is counted can be otherwise: glibc's threshold has moved, and mimalloc's `Vec` is copied.
    let calls = |row: usize, workload: &str| rows[row]["counts"][workload]["calls"].clone();
    assert_eq!(calls(2, "large"), serde_json::json!({}));
    assert_ne!(calls(4, "large"), serde_json::json!({}));
    assert!(calls(5, "vec").get("mremap").is_none());
}

#[test]
fn every_time_has_a_ratio_and_a_spread() {
    let document = json(false);
    for row in document["rows"].as_array().expect("rows") {
        for workload in ["small", "mixed", "large", "vec", "sparse", "threads"] {
            let ratio = &row["times"][workload];
            assert!(ratio["median"].is_number() && ratio["spread"].is_number());
        }
    }
    let sizes = document["large"].as_array().expect("sizes");
    assert_eq!(sizes.len(), 7);
    for size in sizes {
        for line in ["ours", "glibc", "pinned", "floor", "memset"] {
            assert!(size["ns_a_page"][line].is_number(), "{line} in {size}");
        }
    }
}

#[test]
fn what_cannot_be_counted_is_skipped_with_its_reason() {
    let document = json(true);
    let why = skipped(&document, "system calls");
    assert_eq!(why.as_deref(), Some("ptrace is refused"));
    let why = skipped(&document, "instructions");
    assert_eq!(why.as_deref(), Some("valgrind is not installed"));
    let score = &document["score"];
    assert_eq!(score["parts"][1]["points"], Value::Null);
    let counts = score["parts"][0]["items"].as_array().expect("items");
    let judged = counts.iter().filter(|item| item["met"].is_boolean());
    assert_eq!((counts.len(), judged.count()), (7, 4));
}

#[test]
fn the_report_fits_80_columns_and_the_chart_its_page() {
    let file = std::env::temp_dir().join(format!("bench-{}.svg", std::process::id()));
    let report = run(&["--svg", file.to_str().expect("a path of text")], false);
    let chart = std::fs::read_to_string(&file).expect("a chart");
    std::fs::remove_file(&file).expect("it can be removed");
    for line in report.lines() {
        assert!(line.chars().count() <= 80, "{line}");
        assert!(!line.contains('\x1b'), "a colour: {line}");
    }
    assert!(report.contains("Score: "), "{report}");
    // An empty line would end the HTML in a page of the book.
    assert!(chart.lines().all(|line| !line.trim().is_empty()), "{chart}");
    for part in [
        "role=\"img\"",
        "<title ",
        "<desc ",
        "var(--fg)",
        "var(--links)",
    ] {
        assert!(chart.contains(part), "no {part} in {chart}");
    }
    assert!(!chart.contains('#'), "a colour of its own: {chart}");
}

#[test]
fn an_answer_without_the_bonus_is_measured_as_far_as_it_goes() {
    let arguments = ["--json", "--lacks", "merge,resize,global,moving,cache"];
    let document: Value = serde_json::from_str(&run(&arguments, false)).expect("JSON");
    let rows = document["rows"].as_array().expect("rows");
    assert_eq!(rows[1]["name"], "glibc");
    assert_eq!(rows[0]["times"].get("threads"), None);
    assert!(rows[0]["times"]["vec"]["median"].is_number());
    // It is copied instead.
    assert!(rows[0]["counts"]["vec"]["calls"].get("mremap").is_none());
    assert!(skipped(&document, "two threads").is_some());
}
