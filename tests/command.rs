//! The `workbook` command as its user meets it: statuses, words, JSON.
//!
//! It runs on a copy of the clone, so that the reader's own answers stay as they are.

mod copy;

use std::fs;
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, OnceLock};

use copy::Copy;
use serde_json::Value;

/// The copy; one test at a time changes its answer.
fn copy() -> MutexGuard<'static, Copy> {
    static COPY: OnceLock<Mutex<Copy>> = OnceLock::new();
    let copy = COPY.get_or_init(|| Mutex::new(Copy::make("copy")));
    copy.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn workbook(copy: &Copy, arguments: &[&str]) -> Command {
    let mut command = copy.command(env!("CARGO_BIN_EXE_workbook"));
    command.args(arguments);
    command
}

fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().expect("the command starts");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn an_unsolved_exercise_is_told_where_to_begin() {
    let copy = copy();
    copy.answer(
        &fs::read_to_string(copy.root.join("tests/private-alloc/answers/stub.rs")).unwrap(),
    );
    let (status, stdout, _) = run(&mut workbook(&copy, &[]));
    assert_eq!(status, Some(1), "{stdout}");
    assert!(stdout.contains("Next: by_hand."), "{stdout}");
    assert!(!stdout.contains('✗'), "{stdout}");
}

#[test]
fn a_solved_exercise_is_status_0() {
    let copy = copy();
    copy.answer(&copy.solution());
    let (status, stdout, stderr) = run(&mut workbook(&copy, &["grade", "private-alloc"]));
    assert_eq!(status, Some(0), "{stdout}{stderr}");
    assert!(stdout.contains("Solved."), "{stdout}");
    assert!(
        !stdout.contains('\x1b'),
        "colours, and no terminal: {stdout}"
    );
}

#[test]
fn a_wrong_answer_is_told_its_mistake_and_the_next_hint() {
    let copy = copy();
    let shared = copy
        .solution()
        .replace("MapFlags::MAP_PRIVATE", "MapFlags::MAP_SHARED");
    copy.answer(&shared);
    let (status, stdout, _) = run(&mut workbook(&copy, &["grade", "private-alloc"]));
    assert_eq!(status, Some(1), "{stdout}");
    for words in [
        "mapped: 512 KiB private anonymous",
        "this memory is shared, not private.",
        "cargo run -- hint private-alloc region",
    ] {
        assert!(stdout.contains(words), "no {words:?} in\n{stdout}");
    }
}

#[test]
fn json_counts_what_is_possible() {
    let copy = copy();
    let forgotten = copy
        .solution()
        .replace("unsafe impl Sync for Region {}", "");
    copy.answer(&forgotten);
    let (status, stdout, _) = run(&mut workbook(&copy, &["grade", "private-alloc", "--json"]));
    assert_eq!(status, Some(1), "{stdout}");
    let document: Value = serde_json::from_str(&stdout).expect("one JSON document");
    assert_eq!(document["failed"], 1);
    assert_eq!(document["skipped"], 0);
    let possible = document["possible"].as_u64().expect("a number");
    assert_eq!(document["passed"], possible - 1);
    let stages = document["exercises"][0]["stages"]
        .as_array()
        .expect("stages");
    let cases = |stage: &Value| stage["cases"].as_array().map_or(0, Vec::len) as u64;
    assert_eq!(stages.iter().map(cases).sum::<u64>(), possible);
    let names: Vec<_> = stages.iter().map(|stage| stage["name"].as_str()).collect();
    assert_eq!(names.first(), Some(&Some("by_hand")));
}

#[test]
fn a_skip_is_status_3_and_strictly_a_failure() {
    let copy = copy();
    copy.answer(&copy.solution());
    let mut command = workbook(&copy, &["grade", "private-alloc", "--json"]);
    let (status, stdout, _) = run(command.env("JUDGE_NO_PTRACE", "1"));
    assert_eq!(status, Some(3), "{stdout}");
    let untraced: Value = serde_json::from_str(&stdout).expect("one JSON document");
    let (_, stdout, _) = run(&mut workbook(&copy, &["grade", "private-alloc", "--json"]));
    let traced: Value = serde_json::from_str(&stdout).expect("one JSON document");
    assert_eq!(untraced["possible"], traced["possible"]);
    assert!(untraced["skipped"].as_u64() > Some(0));

    let mut command = workbook(&copy, &["grade", "private-alloc", "--strict"]);
    let (status, stdout, _) = run(command.env("JUDGE_NO_PTRACE", "1"));
    assert_eq!(status, Some(1), "{stdout}");
    assert!(stdout.contains("ptrace is refused"), "{stdout}");
}

#[test]
fn what_does_not_compile_is_shown_once_as_cargo_shows_it() {
    let copy = copy();
    copy.answer("pub fn map_by_hand() { let x: u8 = \"\"; }");
    let (status, stdout, stderr) = run(&mut workbook(&copy, &["grade", "private-alloc"]));
    assert_eq!(status, Some(2), "{stdout}{stderr}");
    assert_eq!(stderr.matches("error[E0308]").count(), 1, "{stderr}");
    let told = "Could not grade private-alloc: private-alloc does not build";
    assert!(stderr.contains(told), "{stderr}");

    let (status, stdout, _) = run(&mut workbook(&copy, &["grade", "private-alloc", "--json"]));
    assert_eq!(status, Some(2));
    let document: Value = serde_json::from_str(&stdout).expect("one JSON document");
    assert!(document["exercises"][0]["error"].is_string(), "{stdout}");
}

#[test]
fn an_answer_that_ends_the_grader_still_gets_a_verdict_on_every_case() {
    let copy = copy();
    // A constructor runs before main, in the judge itself.
    let hostile = "#[used]\n#[unsafe(link_section = \".init_array\")]\nstatic END: extern \"C\" fn() = end;\n\
                   extern \"C\" fn end() {\n    if std::env::var_os(\"JUDGE_REPORT\").is_some() {\n        \
                   std::process::exit(0);\n    }\n}\n";
    copy.answer(&(copy.solution() + hostile));
    let (status, stdout, stderr) = run(&mut workbook(&copy, &["grade", "private-alloc", "--json"]));
    assert_eq!(status, Some(1), "{stdout}{stderr}");
    let document: Value = serde_json::from_str(&stdout).expect("one JSON document");
    assert_eq!(document["failed"], document["possible"], "{stdout}");
    assert!(stdout.contains("no-verdict"), "{stdout}");
}

#[test]
fn an_unknown_name_is_told_the_known_ones() {
    let copy = copy();
    for arguments in [
        ["grade", "private"].as_slice(),
        &["hint", "private-alloc", "regions"],
        &["hint", "private-alloc", "region", "4"],
    ] {
        let (status, _, stderr) = run(&mut workbook(&copy, arguments));
        assert_eq!(status, Some(2), "{stderr}");
        assert!(stderr.starts_with("workbook: "), "{stderr}");
        assert!(stderr.ends_with(".\n"), "{stderr}");
    }
}

#[test]
fn hints_come_one_rung_at_a_time() {
    let copy = copy();
    let (status, stdout, _) = run(&mut workbook(&copy, &["hint", "private-alloc", "region"]));
    assert_eq!(status, Some(0));
    assert!(stdout.starts_with("1 nudge"), "{stdout}");
    assert!(stdout.contains("hint private-alloc region 2"), "{stdout}");
    assert!(!stdout.contains("2 concept"), "{stdout}");
}
