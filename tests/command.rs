//! The `workbook` command as its user meets it: statuses, words, JSON.
//!
//! It runs on a copy of the clone, so that the reader's own answers stay as they are. The copy builds into the clone's
//! target directory, where the dependencies are built already; it does not lie there, because trybuild would print
//! other paths.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, OnceLock};

use serde_json::Value;

/// The copy; one test at a time changes its answer.
fn copy() -> MutexGuard<'static, PathBuf> {
    static COPY: OnceLock<Mutex<PathBuf>> = OnceLock::new();
    let copy = COPY.get_or_init(|| {
        let root = workbook::root::find().expect("a clone");
        let copy = root.join(".workbook/copy");
        let stale = copy.join("exercises");
        if stale.exists() {
            fs::remove_dir_all(stale).expect("the old copy goes away");
        }
        fs::create_dir_all(&copy).expect("a folder for the copy");
        for part in [
            "Cargo.toml",
            "Cargo.lock",
            ".cargo",
            "src",
            "exercises",
            "solutions",
            "tests",
            "book",
        ] {
            copy_all(&root.join(part), &copy.join(part)).expect("the clone can be copied");
        }
        Mutex::new(copy)
    });
    copy.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn copy_all(from: &Path, to: &Path) -> io::Result<()> {
    if from.is_symlink() {
        let _ = fs::remove_file(to);
        return std::os::unix::fs::symlink(fs::read_link(from)?, to);
    }
    if from.is_dir() {
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)? {
            let name = entry?.file_name();
            copy_all(&from.join(&name), &to.join(&name))?;
        }
        return Ok(());
    }
    // To cargo a file that is newer has changed.
    let text = fs::read(from)?;
    if fs::read(to).is_ok_and(|old| old == text) {
        return Ok(());
    }
    fs::write(to, text)
}

fn target() -> &'static Path {
    static TARGET: OnceLock<PathBuf> = OnceLock::new();
    TARGET.get_or_init(|| {
        let root = workbook::root::find().expect("a clone");
        workbook::grader::target(&root).expect("cargo knows its target directory")
    })
}

fn answer(copy: &Path, text: &str) {
    let path = copy.join("exercises/private-alloc/src/lib.rs");
    fs::write(path, text).expect("the answer can be written");
}

fn solution(copy: &Path) -> String {
    let path = copy.join("solutions/src/private_alloc.rs");
    fs::read_to_string(path).expect("there is a solution")
}

fn workbook(copy: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_workbook"));
    command
        .args(arguments)
        .env("WORKBOOK_ROOT", copy)
        .env("CARGO_TARGET_DIR", target())
        .env_remove("JUDGE_NO_PTRACE");
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
    answer(
        &copy,
        &fs::read_to_string(copy.join("tests/private-alloc/answers/stub.rs")).unwrap(),
    );
    let (status, stdout, _) = run(&mut workbook(&copy, &[]));
    assert_eq!(status, Some(1), "{stdout}");
    assert!(stdout.contains("Next: by_hand."), "{stdout}");
    assert!(!stdout.contains('✗'), "{stdout}");
}

#[test]
fn a_solved_exercise_is_status_0() {
    let copy = copy();
    answer(&copy, &solution(&copy));
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
    let shared = solution(&copy).replace("MapFlags::MAP_PRIVATE", "MapFlags::MAP_SHARED");
    answer(&copy, &shared);
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
    let forgotten = solution(&copy).replace("unsafe impl Sync for Region {}", "");
    answer(&copy, &forgotten);
    let (status, stdout, _) = run(&mut workbook(&copy, &["grade", "--json"]));
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
    answer(&copy, &solution(&copy));
    let mut command = workbook(&copy, &["grade", "--json"]);
    let (status, stdout, _) = run(command.env("JUDGE_NO_PTRACE", "1"));
    assert_eq!(status, Some(3), "{stdout}");
    let untraced: Value = serde_json::from_str(&stdout).expect("one JSON document");
    let (_, stdout, _) = run(&mut workbook(&copy, &["grade", "--json"]));
    let traced: Value = serde_json::from_str(&stdout).expect("one JSON document");
    assert_eq!(untraced["possible"], traced["possible"]);
    assert!(untraced["skipped"].as_u64() > Some(0));

    let mut command = workbook(&copy, &["grade", "--strict"]);
    let (status, stdout, _) = run(command.env("JUDGE_NO_PTRACE", "1"));
    assert_eq!(status, Some(1), "{stdout}");
    assert!(stdout.contains("ptrace is refused"), "{stdout}");
}

#[test]
fn what_does_not_compile_is_shown_once_as_cargo_shows_it() {
    let copy = copy();
    answer(&copy, "pub fn map_by_hand() { let x: u8 = \"\"; }");
    let (status, stdout, stderr) = run(&mut workbook(&copy, &["grade", "private-alloc"]));
    assert_eq!(status, Some(2), "{stdout}{stderr}");
    assert_eq!(stderr.matches("error[E0308]").count(), 1, "{stderr}");
    let told = "Could not grade private-alloc: private-alloc does not build";
    assert!(stderr.contains(told), "{stderr}");

    let (status, stdout, _) = run(&mut workbook(&copy, &["grade", "--json"]));
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
    answer(&copy, &(solution(&copy) + hostile));
    let (status, stdout, stderr) = run(&mut workbook(&copy, &["grade", "--json"]));
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
