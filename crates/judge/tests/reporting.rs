//! What a case tells programs (`JUDGE_REPORT`) and debuggers (`JUDGE_INLINE`).
//!
//! Each test starts this binary again for itself alone, with the variable set, and looks at what that one has told.

use std::path::Path;
use std::process::{Command, Output};
use std::{env, fs};

use serde_json::Value;

/// Set in the process whose words are looked at.
const TELLING: &str = "JUDGE_TEST_TELLING";

/// In the outer process: runs this test again with `variable` set. In the inner one: `None`.
fn telling(variable: &str, value: &Path) -> Option<Output> {
    if env::var_os(TELLING).is_some() {
        return None;
    }
    let test = std::thread::current().name().unwrap().to_owned();
    let output = Command::new(env::current_exe().unwrap())
        .args([&test, "--exact", "--nocapture"])
        .env(TELLING, "1")
        .env(variable, value)
        .output();
    Some(output.unwrap())
}

/// The one line of the report on `case`.
fn reported(case: fn()) -> Option<Value> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("report");
    let Some(output) = telling("JUDGE_REPORT", &file) else {
        case();
        return None;
    };
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.ends_with('\n'));
    Some(serde_json::from_str(&text).unwrap())
}

#[test]
fn a_pass_is_one_line() {
    let case = || judge::case(|| println!("printed"));
    let Some(line) = reported(case) else { return };
    assert_eq!(line["case"], "a_pass_is_one_line");
    assert_eq!(line["verdict"], "passed");
    assert_eq!(line["kind"], "passed");
    assert_eq!(line["sentence"], Value::Null);
    assert_eq!(line["output"][0], "printed");
}

#[test]
fn a_failure_carries_its_sentence() {
    let case = || judge::case(|| judge::fail("No.\nReally \"no\".".to_owned()));
    let Some(line) = reported(case) else { return };
    assert_eq!(line["verdict"], "failed");
    assert_eq!(line["kind"], "check");
    assert_eq!(line["sentence"], "No.\nReally \"no\".");
    assert_eq!(line["debug"], Value::Null);
}

#[test]
fn a_skip_and_a_todo_are_neither_passed_nor_failed() {
    let case = || judge::case(|| judge::skip("a reason"));
    let Some(line) = reported(case) else { return };
    assert_eq!(line["verdict"], "skipped");
    assert_eq!(line["sentence"], "Skipped: a reason.");
}

#[test]
fn what_is_not_started_says_where() {
    let case = || judge::case(|| todo!());
    let Some(line) = reported(case) else { return };
    assert_eq!(line["verdict"], "not started");
    let sentence = line["sentence"].as_str().unwrap();
    assert!(sentence.contains("reporting.rs:"), "{sentence}");
}

#[test]
fn a_watched_case_carries_its_transcript() {
    let case = || {
        judge::watched(
            || {
                // SAFETY: a length of 0 is refused.
                judge::watch(|| unsafe { nix::libc::munmap(std::ptr::null_mut(), 0) });
            },
            |_| (),
        )
    };
    let Some(line) = reported(case) else { return };
    assert_eq!(line["transcript"], "P: munmap(NULL, 0) = EINVAL\n");
}

#[test]
fn a_crash_names_the_command_for_a_debugger() {
    let case = || judge::case(|| std::process::abort());
    let Some(line) = reported(case) else { return };
    let command = line["debug"].as_str().expect("a command line");
    assert!(
        command.starts_with("JUDGE_INLINE=1 rust-gdb --args "),
        "{command}"
    );
    let end = " a_crash_names_the_command_for_a_debugger --exact --nocapture";
    assert!(command.ends_with(end), "{command}");
}

#[test]
fn a_report_that_cannot_be_written_is_told() {
    let Some(output) = telling("JUDGE_REPORT", Path::new("/proc/none/report")) else {
        return judge::case(|| ());
    };
    assert!(!output.status.success());
    let words = String::from_utf8_lossy(&output.stderr);
    let told = "the verdict of a_report_that_cannot_be_written_is_told cannot be written to /proc/none/report";
    assert!(words.contains(told), "{words}");
}

#[test]
fn inline_runs_in_the_tests_own_process() {
    let Some(output) = telling("JUDGE_INLINE", Path::new("1")) else {
        let me = std::process::id();
        return judge::case(move || println!("same: {}", std::process::id() == me));
    };
    let words = String::from_utf8_lossy(&output.stdout);
    // A child would run the closure with its own number on both sides; only inline is it not captured.
    assert!(words.contains("same: true"), "{words}");
    assert!(output.status.success());
}
