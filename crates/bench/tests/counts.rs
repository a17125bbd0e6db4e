//! Small runs of the whole benchmark. The tests check the form of the report and the counts of the solution, but no
//! times.

use std::fs::{self, File};
use std::process::Command;

use serde_json::Value;

/// A small run of the benchmark. An empty `PATH` hides valgrind, which is slow.
fn bench(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
    command
        .arg("--smoke")
        .args(arguments)
        .env("PATH", "")
        .env("NO_COLOR", "1")
        .env_remove("JUDGE_NO_PTRACE");
    if !arguments.contains(&"--rounds") {
        command.args(["--rounds", "1"]);
    }
    command
}

/// Runs the benchmark and returns its output.
fn run(arguments: &[&str], no_ptrace: bool) -> String {
    let mut command = bench(arguments);
    if no_ptrace {
        command.env("JUDGE_NO_PTRACE", "1");
    }
    let output = command.output().expect("the benchmark starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    String::from_utf8(output.stdout).expect("the output is UTF-8")
}

fn json(no_ptrace: bool) -> Value {
    serde_json::from_str(&run(&["--json"], no_ptrace)).expect("the output is one JSON document")
}

fn skipped(document: &Value, what: &str) -> Option<String> {
    let skipped = document["skipped"].as_array().expect("skipped is a list");
    let entry = skipped.iter().find(|entry| entry["what"] == what)?;
    Some(
        entry["why"]
            .as_str()
            .expect("the reason is a string")
            .to_owned(),
    )
}

#[test]
fn the_solution_makes_the_expected_calls_and_faults() {
    let document = json(false);
    assert_eq!(document["subject"], "solution");
    let rows = document["rows"].as_array().expect("rows is a list");
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
        let steps = |workload: &str| {
            counts[workload]["steps"]
                .as_u64()
                .expect("steps is a number")
        };
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
    // Other allocators differ: glibc has raised its threshold, and mimalloc copies a growing `Vec`.
    let calls = |row: usize, workload: &str| rows[row]["counts"][workload]["calls"].clone();
    assert_eq!(calls(2, "large"), serde_json::json!({}));
    assert_ne!(calls(4, "large"), serde_json::json!({}));
    assert!(calls(5, "vec").get("mremap").is_none());
}

#[test]
fn every_time_has_a_median_a_spread_and_the_memory_that_it_buys() {
    let arguments = ["--json", "--rounds", "3"];
    let document: Value =
        serde_json::from_str(&run(&arguments, false)).expect("the output is one JSON document");
    for row in document["rows"].as_array().expect("rows is a list") {
        for workload in ["small", "mixed", "large", "vec", "sparse", "threads"] {
            let ratio = &row["times"][workload];
            assert!(ratio["median"].is_number() && ratio["spread"].is_number());
            assert!(row["kept"][workload].is_number(), "{workload}");
        }
        assert!(row["kept"]["large"].is_number());
    }
    let sizes = document["large"].as_array().expect("large is a list");
    assert_eq!(sizes.len(), 7);
    for size in sizes {
        for line in ["ours", "glibc", "pinned", "floor", "memset"] {
            assert!(size["ns_a_page"][line].is_number(), "{line} in {size}");
        }
    }
}

#[test]
fn the_reason_for_a_skipped_count_is_reported() {
    let document = json(true);
    let why = skipped(&document, "system calls");
    assert_eq!(why.as_deref(), Some("ptrace is refused"));
    let why = skipped(&document, "instructions");
    assert_eq!(why.as_deref(), Some("valgrind is not installed"));
    let score = &document["score"];
    assert_eq!(score["parts"][1]["points"], Value::Null);
    let counts = score["parts"][0]["items"]
        .as_array()
        .expect("items is a list");
    let measured = counts.iter().filter(|item| item["met"].is_boolean());
    assert_eq!((counts.len(), measured.count()), (8, 5));
}

/// Standard output and standard error go to the same file, so their order can be compared.
#[test]
fn the_progress_is_shown_before_the_report_and_names_each_round() {
    let folder = tempfile::tempdir().expect("a folder can be created");
    let path = folder.path().join("output");
    let file = File::create(&path).expect("a file can be created");
    let mut command = bench(&["--rounds", "2"]);
    command.stderr(file.try_clone().expect("a second descriptor"));
    let status = command.stdout(file).status().expect("the benchmark starts");
    assert!(status.success());
    let output = fs::read_to_string(&path).expect("the output is UTF-8");
    let (progress, report) = output
        .split_once("The solution's ThresholdAlloc")
        .expect("the report has a title");
    let lines: Vec<_> = progress.lines().collect();
    assert!(lines[0].ends_with("solution (1 of 8)"), "{progress}");
    let rounds: Vec<_> = lines
        .iter()
        .filter(|line| line.starts_with("Timing"))
        .collect();
    assert_eq!(*rounds[0], "Timing, round 1 of 2");
    assert!(
        rounds[1].starts_with("Timing, round 2 of 2, about "),
        "{progress}"
    );
    assert_eq!(lines.len(), 8 + 2, "{progress}");
    assert!(report.contains("rounds: 2"), "{report}");
}

#[test]
fn the_last_runs_are_compared_although_a_line_is_torn() {
    let folder = tempfile::tempdir().expect("a folder can be created");
    let path = folder.path().join("bench.jsonl");
    let history = path.to_str().expect("the path is UTF-8");
    let first = run(&["--history", history], false);
    assert!(!first.contains("last runs"), "{first}");
    let line = fs::read_to_string(&path).expect("the history");
    assert_eq!(line.lines().count(), 1);
    fs::write(&path, format!("{line}{}", &line[..20])).expect("the history");
    let second = run(&["--history", history], false);
    let (_, runs) = second.split_once("The last runs").expect("a table");
    assert_eq!(
        runs.matches(" min ago").count() + runs.matches("this run").count(),
        2,
        "{runs}"
    );
}

#[test]
fn the_report_is_at_most_80_columns_wide_and_has_no_colours() {
    let report = run(&[], false);
    for line in report.lines() {
        assert!(line.chars().count() <= 80, "{line}");
        assert!(!line.contains('\x1b'), "{line}");
    }
    assert!(report.contains("\nGoals: "), "{report}");
    assert!(!report.contains(" -0"), "{report}");
}

#[test]
fn the_chart_can_be_included_in_a_page_and_opened_by_itself() {
    let folder = tempfile::tempdir().expect("a folder can be created");
    let file = folder.path().join("new/chart.svg");
    run(&["--svg", file.to_str().expect("the path is UTF-8")], false);
    let chart = std::fs::read_to_string(&file).expect("the chart can be read");
    // An empty line would end the HTML in a page of the book.
    assert!(chart.lines().all(|line| !line.trim().is_empty()), "{chart}");
    for part in ["role=\"img\"", "<title ", "<desc ", "currentColor"] {
        assert!(chart.contains(part), "no {part} in {chart}");
    }
    // By itself it has a light or a dark background, and a line without a variable's fallback would have no colour.
    let variables = chart.matches("var(--").count();
    let with_fallback = ["var(--links, LinkText)", "var(--bg, Canvas)"];
    let with_fallback = with_fallback.map(|variable| chart.matches(variable).count());
    assert_eq!(with_fallback.iter().sum::<usize>(), variables, "{chart}");
    assert!(with_fallback.iter().all(|count| *count > 0), "{chart}");
    assert!(chart.contains("color-scheme: light dark"), "{chart}");
    assert!(!chart.contains('#'), "a fixed colour: {chart}");
}

#[test]
fn an_answer_without_bonus_stages_is_measured_without_them() {
    let arguments = ["--json", "--lacks", "merge,resize,global,moving,cache"];
    let document: Value =
        serde_json::from_str(&run(&arguments, false)).expect("the output is one JSON document");
    let rows = document["rows"].as_array().expect("rows is a list");
    assert_eq!(rows[1]["name"], "glibc");
    assert_eq!(rows[0]["times"].get("threads"), None);
    assert!(rows[0]["times"]["vec"]["median"].is_number());
    // The Vec is copied instead.
    assert!(rows[0]["counts"]["vec"]["calls"].get("mremap").is_none());
    assert!(skipped(&document, "two threads").is_some());
    let parts = document["score"]["parts"].as_array().expect("a list");
    let items = parts
        .iter()
        .flat_map(|part| part["items"].as_array().expect("a list"));
    let unsolved = items.filter(|item| {
        let measured = item["measured"].as_str().expect("a string");
        measured.starts_with("needs stage ")
    });
    let unsolved: Vec<_> = unsolved.collect();
    let keys: Vec<_> = unsolved
        .iter()
        .filter_map(|item| item["key"].as_str())
        .collect();
    let expected = [
        "doubling-calls",
        "zeroed-faults",
        "small-kept",
        "small-cached",
        "vec",
        "sparse",
        "threads-cached",
    ];
    assert_eq!(keys, expected);
    assert!(unsolved.iter().all(|item| item["met"].is_null()));
}
