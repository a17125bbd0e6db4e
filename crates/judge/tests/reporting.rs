//! How a case reports to programs (`JUDGE_REPORT`) and runs under debuggers (`JUDGE_INLINE`).
//!
//! Each test starts this binary again for one test, with the variable set, and checks the output of that process.

mod common {
    pub mod rerun;
}

use std::fs;
use std::path::Path;
use std::process::Output;

use common::rerun::rerun;
use serde_json::Value;

/// Runs the calling test again with `variable` set; `None` in the inner process.
fn run_again(variable: &str, value: &Path) -> Option<Output> {
    rerun(|command| {
        command.env(variable, value);
    })
}

/// The one line of the report on `case`.
fn reported(case: fn()) -> Option<Value> {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let file = folder.path().join("report");
    let Some(output) = run_again("JUDGE_REPORT", &file) else {
        case();
        return None;
    };
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.ends_with('\n'));
    Some(serde_json::from_str(&text).unwrap())
}

#[test]
fn a_pass_is_reported_as_one_line() {
    let case = || judge::case(|| println!("printed"));
    let Some(line) = reported(case) else { return };
    assert_eq!(line["case"], "a_pass_is_reported_as_one_line");
    assert_eq!(line["verdict"], "passed");
    assert_eq!(line["kind"], "passed");
    assert_eq!(line["sentence"], Value::Null);
    assert_eq!(line["output"][0], "printed");
}

#[test]
fn a_failure_is_reported_with_its_sentence() {
    let case = || judge::case(|| judge::fail("No.\nReally \"no\".".to_owned()));
    let Some(line) = reported(case) else { return };
    assert_eq!(line["verdict"], "failed");
    assert_eq!(line["kind"], "check");
    assert_eq!(line["sentence"], "No.\nReally \"no\".");
    assert_eq!(line["debug"], Value::Null);
}

#[test]
fn a_skip_is_neither_passed_nor_failed() {
    let case = || judge::case(|| judge::skip("a reason"));
    let Some(line) = reported(case) else { return };
    assert_eq!(line["verdict"], "skipped");
    assert_eq!(line["sentence"], "Skipped: a reason.");
}

#[test]
fn a_todo_is_reported_as_not_started_with_its_line() {
    let case = || judge::case(|| todo!());
    let Some(line) = reported(case) else { return };
    assert_eq!(line["verdict"], "not started");
    let sentence = line["sentence"].as_str().unwrap();
    assert!(sentence.contains("reporting.rs:"), "{sentence}");
}

#[test]
fn a_watched_case_is_reported_with_its_transcript() {
    let case = || {
        judge::watched(
            || {
                // SAFETY: munmap fails with EINVAL for a length of 0.
                judge::watch(|| unsafe { nix::libc::munmap(std::ptr::null_mut(), 0) });
            },
            |_| (),
        )
    };
    let Some(line) = reported(case) else { return };
    assert_eq!(line["transcript"], "P: munmap(NULL, 0) = EINVAL\n");
}

#[test]
fn a_crash_is_reported_with_a_debugger_command() {
    let case = || judge::case(|| std::process::abort());
    let Some(line) = reported(case) else { return };
    let command = line["debug"].as_str().expect("a command line");
    assert!(
        command.starts_with("JUDGE_INLINE=1 rust-gdb --args "),
        "{command}"
    );
    let end = " a_crash_is_reported_with_a_debugger_command --exact --nocapture";
    assert!(command.ends_with(end), "{command}");
}

#[test]
fn a_report_that_cannot_be_written_fails_the_test() {
    let Some(output) = run_again("JUDGE_REPORT", Path::new("/proc/none/report")) else {
        return judge::case(|| ());
    };
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr);
    let expected = "the verdict of a_report_that_cannot_be_written_fails_the_test cannot be written to /proc/none/report";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn an_inline_case_runs_in_the_tests_process() {
    let Some(output) = run_again("JUDGE_INLINE", Path::new("1")) else {
        let me = std::process::id();
        return judge::case(move || println!("same: {}", std::process::id() == me));
    };
    let text = String::from_utf8_lossy(&output.stdout);
    // A child would print the same, because it runs the test from its start. But the judge would capture its output.
    assert!(text.contains("same: true"), "{text}");
    assert!(output.status.success());
}

#[test]
fn a_child_of_an_inline_case_returns() {
    let Some(output) = run_again("JUDGE_INLINE", Path::new("1")) else {
        return judge::case(|| println!("returned: {}", judge::in_child(|| 7)));
    };
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("returned: 7"), "{text}");
}

#[test]
fn an_inline_case_says_why_it_fails() {
    let Some(output) = run_again("JUDGE_INLINE", Path::new("1")) else {
        return judge::case(|| judge::fail("Too small.".to_owned()));
    };
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("Too small.\n"), "{text}");
    assert!(!output.status.success());
}

/// Without a tracer, for example.
#[test]
fn an_inline_case_says_why_it_is_skipped() {
    let Some(output) = run_again("JUDGE_INLINE", Path::new("1")) else {
        return judge::case(|| judge::skip("no tracer"));
    };
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("Skipped: no tracer.\n"), "{text}");
    assert!(output.status.success());
}
