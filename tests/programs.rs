//! `workbook programs` on allocators that are wrong: what it reports.
//!
//! It runs in a copy of the clone, and builds into the clone's target directories.

#[allow(dead_code)] // Other tests use more of it.
mod copy;

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use copy::Copy;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

fn copy() -> MutexGuard<'static, Copy> {
    static COPY: OnceLock<Mutex<Copy>> = OnceLock::new();
    let copy = COPY.get_or_init(|| Mutex::new(Copy::make("programs")));
    copy.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Runs the command on the answer of the copy, and returns its exit status and both outputs.
fn run(copy: &Copy, arguments: &[&str]) -> (Option<i32>, String, String) {
    let clone = course::root::find().expect("a clone");
    let mut command = copy.command(env!("CARGO_BIN_EXE_workbook"));
    command
        .arg("programs")
        .args(arguments)
        .env("WORKBOOK_HOME", clone.join(".workbook"))
        .env("NO_COLOR", "1");
    let output = command.output().expect("the command starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// The naive allocator, with one change.
fn naive(from: &str, to: &str) -> String {
    let text = include_str!("programs/naive.rs");
    assert!(text.contains(from), "{from}");
    text.replace(from, to)
}

/// The naive allocator, which never returns a block of more than 20,000 bytes.
fn hanging() -> String {
    let class = "let class = class_of(size + HEADER);";
    naive(class, &format!("while size > 20_000 {{}}\n{class}"))
}

/// Returns the sentence on each program that failed.
fn failed(stdout: &str) -> Vec<String> {
    let document: Value = serde_json::from_str(stdout).expect("one JSON document");
    let programs = document["programs"].as_array().expect("a list");
    programs
        .iter()
        .filter_map(|program| Some(program["failed"].as_str()?.to_owned()))
        .collect()
}

/// Whether this machine has the programs that the tests run.
fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder: PathBuf| folder.join(program).is_file())
}

#[test]
fn threads_without_a_lock_crash_python() {
    if !has("python3") {
        println!("skipped: python3 is not installed");
        return;
    }
    let copy = copy();
    let unlocked = naive("let _held = LOCK.lock();", "let _ = &LOCK;");
    // Another thread gets the same block in almost every round.
    let first = "let first = heap.free[class];";
    let slow = unlocked.replace(first, &format!("{first} std::thread::yield_now();"));
    assert_ne!(slow, unlocked);
    copy.answer_to("threshold-alloc", &slow);
    let arguments = ["--json", "--rounds", "50", "--seconds", "10", "python3"];
    let (status, stdout, stderr) = run(&copy, &arguments);
    assert_eq!(status, Some(1), "{stdout}{stderr}");
    let failed = failed(&stdout);
    // It may also hang or print something else, but not in the same way each time.
    let known = [
        "was killed by SIG",
        "did not end within",
        "differs from that",
        "exited with status",
    ];
    assert!(
        failed
            .iter()
            .all(|sentence| known.iter().any(|known| sentence.contains(known))),
        "{failed:?}"
    );
    assert!(
        failed
            .iter()
            .any(|sentence| sentence.starts_with("python3 ")),
        "{failed:?}"
    );
}

#[test]
fn misaligned_blocks_are_reported_although_nothing_crashes() {
    if !has("perl") {
        println!("skipped: perl is not installed");
        return;
    }
    let copy = copy();
    let changed = naive("const HEADER: usize = 16;", "const HEADER: usize = 8;");
    copy.answer_to("threshold-alloc", &changed);
    let (status, stdout, stderr) = run(&copy, &["--json", "--rounds", "1", "perl"]);
    assert_eq!(status, Some(1), "{stdout}{stderr}");
    let failed = failed(&stdout).concat();
    assert!(failed.contains("are not aligned to 16 bytes"), "{failed}");
}

#[test]
fn a_hang_is_stopped() {
    if !has("perl") {
        println!("skipped: perl is not installed");
        return;
    }
    let copy = copy();
    copy.answer_to("threshold-alloc", &hanging());
    let arguments = ["--json", "--rounds", "1", "--seconds", "3", "perl"];
    let (status, stdout, stderr) = run(&copy, &arguments);
    assert_eq!(status, Some(1), "{stdout}{stderr}");
    let failed = failed(&stdout).concat();
    let expected = "perl did not end within 3 seconds, and was stopped.";
    assert!(failed.starts_with(expected), "{failed}");
}

/// One program hangs, so the signal arrives while it runs.
#[test]
fn an_interrupted_command_leaves_nothing_behind() {
    if !has("perl") {
        println!("skipped: perl is not installed");
        return;
    }
    let copy = copy();
    copy.answer_to("threshold-alloc", &hanging());
    let folder = tempfile::tempdir().expect("a folder");
    let clone = course::root::find().expect("a clone");
    let mut command = copy.command(env!("CARGO_BIN_EXE_workbook"));
    command
        .args(["programs", "perl"])
        .env("WORKBOOK_HOME", clone.join(".workbook"))
        .env("TMPDIR", folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = command.spawn().expect("the command starts");
    // One folder has the object, the other one the inputs. Those of rustc have another prefix.
    let begun = Instant::now();
    let folders = || {
        let entries = fs::read_dir(folder.path()).expect("a folder").flatten();
        let names = entries.map(|entry| entry.file_name());
        names
            .filter(|name| name.to_string_lossy().starts_with(".tmp"))
            .count()
    };
    while folders() < 2 {
        assert!(begun.elapsed() < Duration::from_secs(300), "nothing runs");
        thread::sleep(Duration::from_millis(20));
    }
    let process = Pid::from_raw(child.id().cast_signed());
    kill(process, Signal::SIGINT).expect("it runs");
    let status = child.wait().expect("it ends");
    assert_eq!((status.code(), folders()), (Some(130), 0));
}

#[test]
fn nothing_runs_on_a_stub() {
    let copy = copy();
    let stub = copy.root.join("exercises/threshold-alloc/stub.rs");
    let stub = std::fs::read_to_string(stub).expect("a stub");
    copy.answer_to("threshold-alloc", &stub);
    let (status, stdout, stderr) = run(&copy, &[]);
    assert_eq!((status, &*stdout), (Some(2), ""), "{stderr}");
    assert!(stderr.contains("first solve the stages 1 to 4"), "{stderr}");
    let (status, _, stderr) = run(&copy, &["emacs"]);
    assert_eq!(status, Some(2), "{stderr}");
    assert!(
        stderr.contains("there is no program emacs here; choose from sqlite3, git,"),
        "{stderr}"
    );
}
