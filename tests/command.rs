//! The `workbook` command as its user meets it: statuses, words, JSON.
//!
//! It runs on a copy of the clone, so that the reader's own answers stay as they are.

mod copy;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

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

/// Clones may share a target directory, as this copy shares the clone's: what is built of one grades no other.
#[test]
fn an_answer_in_one_clone_is_not_graded_in_another() {
    let other = Copy::make("other");
    let copy = copy();
    copy.answer(&copy.solution());
    let (status, stdout, _) = run(&mut workbook(&copy, &["grade", "private-alloc"]));
    assert_eq!(status, Some(0), "{stdout}");
    let (_, stdout, stderr) = run(&mut workbook(&other, &["grade", "private-alloc"]));
    assert!(stdout.contains("0 of 35 passed"), "{stdout}{stderr}");
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
    let bonus = document["bonus"]["possible"].as_u64().expect("a number");
    assert_eq!(stages.iter().map(cases).sum::<u64>(), possible + bonus);
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
    let told = "private-alloc cannot be graded: it does not build:";
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

/// A `workbook watch`, and what it has said.
struct Watching {
    child: std::process::Child,
    said: std::sync::Arc<Mutex<String>>,
}

impl Watching {
    fn begin(copy: &Copy) -> Watching {
        Watching::begin_with(copy, Stdio::piped())
    }

    fn begin_with(copy: &Copy, stdin: Stdio) -> Watching {
        let mut child = workbook(copy, &["watch"])
            .stdin(stdin)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the command starts");
        let said = std::sync::Arc::new(Mutex::new(String::new()));
        let stdout = child.stdout.take().expect("a pipe was asked for");
        let heard = said.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                heard.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        Watching { child, said }
    }

    /// Waits until it says that, and forgets all it has said up to there.
    fn hears(&self, words: &str) -> String {
        let patience = Duration::from_secs(120);
        let begun = Instant::now();
        loop {
            let mut said = self.said.lock().unwrap();
            if let Some(found) = said.find(words) {
                let rest = said.split_off(found + words.len());
                return std::mem::replace(&mut said, rest);
            }
            assert!(
                begun.elapsed() < patience,
                "it never said {words:?}: {said}"
            );
            drop(said);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn is_told(&mut self, line: &str) {
        let mut stdin = self.child.stdin.as_ref().expect("a pipe was asked for");
        writeln!(stdin, "{line}").expect("it listens");
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn what_is_saved_is_graded_and_a_solved_exercise_leads_to_the_next() {
    let copy = copy();
    let stub = fs::read_to_string(copy.root.join("tests/private-alloc/answers/stub.rs")).unwrap();
    copy.answer(&stub);
    let mut watching = Watching::begin(&copy);
    watching.hears("Next: by_hand.");

    let shared = copy
        .solution()
        .replace("MapFlags::MAP_PRIVATE)", "MapFlags::MAP_SHARED)");
    copy.answer(&shared);
    watching.hears("its parent sees it: this memory is shared, not private.");
    watching.hears("2 failed.");
    watching.hears("Mend region::leaves_nothing first");
    watching.is_told("h");
    watching.hears("private-alloc, region:");
    watching.hears("More: h");
    watching.is_told("");
    watching.hears("The same as before. Type h for a hint.");
    watching.is_told("a");
    watching.hears("The lesson is book/src/private-alloc.md; type h for a hint.");
    watching.is_told("s");
    watching.is_told("?");
    let said = watching.hears("reset       put the stub back");
    assert!(
        !said.contains("+++"),
        "the solution, and it is not solved: {said}"
    );

    copy.answer(&copy.solution());
    watching.hears("Solved.");
    watching.hears("Memory between processes");
    watching.is_told("q");
    watching.hears("Your answers are as you saved them.");
    assert_eq!(watching.child.wait().unwrap().code(), Some(0));
}

/// Two saves, one while the first is graded: the verdict on screen is the second one's.
#[test]
fn a_save_during_a_run_starts_it_anew() {
    let copy = copy();
    let shared = copy
        .solution()
        .replace("MapFlags::MAP_PRIVATE)", "MapFlags::MAP_SHARED)");
    copy.answer(&shared);
    let mut watching = Watching::begin(&copy);
    watching.hears("? for help.");
    std::thread::sleep(Duration::from_millis(200));
    copy.answer(&copy.solution());
    let said = watching.hears("Solved.");
    assert!(
        !said.contains("failed."),
        "a verdict on the older save: {said}"
    );
    watching.is_told("q");
    assert_eq!(watching.child.wait().unwrap().code(), Some(0));
}

/// What was solved in one session is not begun with in the next.
#[test]
fn a_session_goes_on_where_the_last_one_ended() {
    let copy = copy();
    copy.answer(&copy.solution());
    run(&mut workbook(&copy, &["grade", "private-alloc"]));
    let mut watching = Watching::begin(&copy);
    let said = watching.hears("Next: by_hand.");
    assert!(said.contains("Memory between processes"), "{said}");
    assert!(!said.contains("Private allocation"), "{said}");

    // Who goes back to what is solved is not led away from it.
    copy.answer(&format!("{}// tidier\n", copy.solution()));
    watching.hears("Solved.");
    watching.hears("Type n for the next exercise.");

    // The stub is no solution, whatever the log says.
    watching.is_told("reset");
    watching.hears("Your file is");
    watching.hears("Next: by_hand.");
    watching.is_told("q");
    watching.hears("Your answers are as you saved them.");
    let again = Watching::begin(&copy);
    let said = again.hears("Next: by_hand.");
    assert!(said.contains("Private allocation"), "{said}");
}

/// As vim and others do: the old file is moved away, the new one moved there.
#[test]
fn a_save_by_renaming_is_seen_by_every_watcher_and_so_is_a_file_that_has_gone() {
    let copy = copy();
    let stub = fs::read_to_string(copy.root.join("tests/private-alloc/answers/stub.rs")).unwrap();
    copy.answer(&stub);
    let _ = fs::remove_file(copy.root.join(".workbook/log.jsonl"));
    let watchers = [Watching::begin(&copy), Watching::begin(&copy)];
    for watching in &watchers {
        watching.hears("Next: by_hand.");
    }
    let folder = copy.root.join("exercises/private-alloc/src");
    fs::write(folder.join(".lib.rs.new"), copy.solution()).unwrap();
    fs::rename(folder.join("lib.rs"), folder.join("lib.rs~")).unwrap();
    fs::rename(folder.join(".lib.rs.new"), folder.join("lib.rs")).unwrap();
    for watching in &watchers {
        watching.hears("Solved.");
        watching.hears("Next: by_hand.");
    }
    let log = workbook::state::Log::in_folder(&copy.root.join(".workbook"));
    let lines = log.read::<Value>().expect("a log");
    assert_eq!((lines.records.len(), lines.torn.len()), (6, 0));

    fs::remove_file(folder.join("lib.rs~")).unwrap();
    fs::remove_file(folder.join("lib.rs")).unwrap();
    watchers[0].hears("Save it again when that is mended.");
    let (status, stdout, stderr) = run(&mut workbook(&copy, &["grade", "private-alloc"]));
    assert_eq!(status, Some(2), "{stdout}");
    let told = "exercises/private-alloc/src/lib.rs is gone. To begin again, copy tests/private-alloc/answers/stub.rs there";
    assert!(stderr.contains(told), "{stderr}");
    let (status, stdout, _) = run(&mut workbook(&copy, &["reset", "private-alloc"]));
    assert_eq!(status, Some(0), "{stdout}");
    assert_eq!(fs::read_to_string(folder.join("lib.rs")).unwrap(), stub);
}

/// Nobody can type at /dev/null, and nobody has left.
#[test]
fn a_watcher_without_an_input_stays() {
    use nix::sys::signal::{Signal, kill};
    let copy = copy();
    copy.answer(&copy.solution());
    run(&mut workbook(&copy, &["grade", "private-alloc"]));
    let mut watching = Watching::begin_with(&copy, Stdio::null());
    watching.hears("Next: by_hand.");
    copy.answer(&format!("{}// again\n", copy.solution()));
    watching.hears("Solved.");
    let pid = nix::unistd::Pid::from_raw(watching.child.id() as i32);
    kill(pid, Signal::SIGTERM).expect("it is there");
    watching.hears("Your answers are as you saved them.");
    assert_eq!(watching.child.wait().unwrap().code(), Some(0));
}

/// The terminal is closed while an answer loops.
#[test]
fn a_session_that_is_hung_up_on_leaves_no_process() {
    use nix::sys::signal::{Signal, kill};
    let copy = copy();
    let loops = copy.solution().replace(
        "pub fn map_by_hand(len: usize) -> io::Result<*mut u8> {",
        "pub fn map_by_hand(len: usize) -> io::Result<*mut u8> {\n    while len > 0 {}",
    );
    assert_ne!(loops, copy.solution());
    copy.answer(&loops);
    let mut watching = Watching::begin(&copy);
    let watcher = watching.child.id();
    let begun = Instant::now();
    let grader = loop {
        // The watcher's child grades, and a child of that is the grader.
        let below = children(watcher).into_iter().flat_map(children);
        if let Some(grader) = below.into_iter().find(|process| is_grader(*process)) {
            break grader;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "nothing is graded"
        );
        std::thread::sleep(Duration::from_millis(10));
    };
    let all: Vec<u32> = children(watcher).into_iter().chain([grader]).collect();
    let pid = nix::unistd::Pid::from_raw(watcher as i32);
    kill(pid, Signal::SIGHUP).expect("it is there");
    assert_eq!(watching.child.wait().unwrap().code(), Some(0));
    let end = Instant::now() + Duration::from_secs(5);
    while all.iter().any(|process| runs(*process)) {
        assert!(Instant::now() < end, "{all:?} go on");
        std::thread::sleep(Duration::from_millis(10));
    }
    copy.answer(&copy.solution());
}

fn children(process: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{process}/task"))
        .into_iter()
        .flatten();
    let lists = tasks.flatten().map(|task| task.path().join("children"));
    let lists: Vec<String> = lists.flat_map(fs::read_to_string).collect();
    let numbers = lists.iter().flat_map(|list| list.split_whitespace());
    numbers.filter_map(|number| number.parse().ok()).collect()
}

fn is_grader(process: u32) -> bool {
    let name = fs::read_to_string(format!("/proc/{process}/comm"));
    name.is_ok_and(|name| name.starts_with("grader"))
}

/// What is dead and not waited for does not run.
fn runs(process: u32) -> bool {
    let about = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let state = about.rsplit_once(") ").map_or("", |(_, rest)| rest);
    !state.is_empty() && !state.starts_with(['Z', 'X'])
}

/// `| head -1`
#[test]
fn a_reader_who_has_gone_is_no_reason_to_panic() {
    let copy = copy();
    for arguments in [
        &["list"][..],
        &["completions", "bash"],
        &["hint", "private-alloc"],
    ] {
        let mut command = workbook(&copy, arguments);
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let (_, _, stderr) = run(command.stdout(writer));
        assert!(!stderr.contains("panicked"), "{arguments:?}: {stderr}");
    }
}

/// The chapter is complete with the core; what lies beyond is offered, and not missed.
#[test]
fn an_exercise_is_solved_with_its_core() {
    let copy = copy();
    let answers = copy.root.join("tests/threshold-alloc/answers");
    let core = fs::read_to_string(answers.join("right/headers.rs")).unwrap();
    let stub = fs::read_to_string(answers.join("stub.rs")).unwrap();
    copy.answer_to("threshold-alloc", &core);
    let (status, stdout, _) = run(&mut workbook(&copy, &["grade", "threshold-alloc"]));
    let (_, json, _) = run(&mut workbook(
        &copy,
        &["grade", "threshold-alloc", "--json"],
    ));
    copy.answer_to("threshold-alloc", &stub);
    assert_eq!(status, Some(0), "{stdout}");
    assert!(
        stdout.contains("Bonus: 0 of 35 passed, 35 not started."),
        "{stdout}"
    );
    assert!(stdout.contains("For more: merge."), "{stdout}");
    let document: Value = serde_json::from_str(&json).expect("one JSON document");
    assert_eq!(document["passed"], document["possible"]);
    assert_eq!(
        document["bonus"]["not_started"],
        document["bonus"]["possible"]
    );
}

/// After a `git pull` the reader's file is as it was, and the new stub is named.
#[test]
fn a_changed_stub_is_told_and_the_answer_kept() {
    let copy = copy();
    copy.answer(&copy.solution());
    run(&mut workbook(&copy, &["grade", "private-alloc"]));
    let stub = copy.root.join("tests/private-alloc/answers/stub.rs");
    let before = fs::read_to_string(&stub).unwrap();
    fs::write(&stub, before.clone() + "// new in this version\n").unwrap();
    let (_, _, stderr) = run(&mut workbook(&copy, &["grade", "private-alloc"]));
    fs::write(&stub, before).unwrap();
    assert!(
        stderr.contains("The stub of private-alloc has changed"),
        "{stderr}"
    );
    assert!(stderr.contains("+// new in this version"), "{stderr}");
    let file = copy.root.join("exercises/private-alloc/src/lib.rs");
    assert_eq!(fs::read_to_string(file).unwrap(), copy.solution());
    run(&mut workbook(&copy, &["grade", "private-alloc"]));
    let (_, _, stderr) = run(&mut workbook(&copy, &["grade", "private-alloc"]));
    assert!(!stderr.contains("has changed"), "told once: {stderr}");
}

#[test]
fn the_drill_is_told_of_every_verdict() {
    let copy = copy();
    let home = tempfile::tempdir().expect("a folder");
    let grade = |answer: &str| {
        copy.answer(answer);
        run(workbook(&copy, &["grade", "private-alloc", "--json"])
            .env("WORKBOOK_HOME", home.path()));
    };
    grade(&copy.solution());
    grade(
        &copy
            .solution()
            .replace("unsafe impl Sync for Region {}", ""),
    );
    let log = workbook::state::Log::in_folder(home.path());
    let records = log.read::<Value>().expect("a log").records;
    let told = |record: &Value| {
        let failed = record["stages"].as_array().expect("stages").iter();
        let failed: u64 = failed.filter_map(|stage| stage["failed"].as_u64()).sum();
        (record["exercise"].clone(), record["solved"].clone(), failed)
    };
    let told: Vec<_> = records.iter().map(told).collect();
    let expected = [(true, 0), (false, 1)];
    let expected = expected.map(|(solved, failed)| ("private-alloc".into(), solved.into(), failed));
    assert_eq!(told, expected);
}

#[test]
fn reset_keeps_what_was_written() {
    let copy = copy();
    let yours = format!("{}// mine\n", copy.solution());
    copy.answer(&yours);
    let (status, stdout, _) = run(&mut workbook(&copy, &["reset", "private-alloc"]));
    assert_eq!(status, Some(0), "{stdout}");
    let kept = stdout.split("Your file is ").nth(1).expect("it says where");
    let kept = kept.trim().trim_end_matches('.');
    assert_eq!(fs::read_to_string(kept).expect("it is there"), yours);
    let file = copy.root.join("exercises/private-alloc/src/lib.rs");
    let stub = copy.root.join("tests/private-alloc/answers/stub.rs");
    assert_eq!(fs::read(file).unwrap(), fs::read(stub).unwrap());
}

#[test]
fn nothing_is_reset_where_nothing_can_be_kept() {
    let copy = copy();
    copy.answer(&copy.solution());
    let mut command = workbook(&copy, &["reset", "private-alloc"]);
    let (status, _, stderr) = run(command.env("WORKBOOK_HOME", "/dev/null/nowhere"));
    assert_eq!(status, Some(2), "{stderr}");
    for words in ["nothing is changed", "WORKBOOK_HOME"] {
        assert!(stderr.contains(words), "{stderr}");
    }
    let file = copy.root.join("exercises/private-alloc/src/lib.rs");
    assert_eq!(fs::read_to_string(file).unwrap(), copy.solution());
}

#[test]
fn the_solution_is_shown_once_it_is_solved() {
    let copy = copy();
    let _ = fs::remove_file(copy.root.join(".workbook/log.jsonl"));
    copy.answer(&copy.solution().replace("isize::MAX", "usize::MAX"));
    let (status, stdout, stderr) = run(&mut workbook(&copy, &["solution", "private-alloc"]));
    assert_eq!(status, Some(2), "{stdout}");
    assert!(stderr.contains("--spoil"), "{stderr}");
    let (status, stdout, _) = run(&mut workbook(
        &copy,
        &["solution", "private-alloc", "--spoil"],
    ));
    assert_eq!(status, Some(0));
    assert!(
        stdout.contains("+        if len > isize::MAX as usize {"),
        "{stdout}"
    );
    copy.answer(&copy.solution());
    run(&mut workbook(&copy, &["grade", "private-alloc"]));
    let (status, _, _) = run(&mut workbook(&copy, &["solution", "private-alloc"]));
    assert_eq!(status, Some(0));
}

#[test]
fn a_hint_is_followed_by_the_next() {
    let copy = copy();
    let _ = fs::remove_file(copy.root.join(".workbook/log.jsonl"));
    let (status, stdout, _) = run(&mut workbook(&copy, &["hint"]));
    assert_eq!(status, Some(0), "{stdout}");
    let begins = "private-alloc, by_hand:\n1 nudge\n";
    assert!(
        stdout.starts_with(begins),
        "where nothing is solved: {stdout}"
    );
    let mut rungs = Vec::new();
    for _ in 0..4 {
        let (status, stdout, _) = run(&mut workbook(&copy, &["hint", "private-alloc", "region"]));
        assert_eq!(status, Some(0), "{stdout}");
        let shown = stdout
            .lines()
            .filter(|line| line.starts_with(['1', '2', '3']))
            .count();
        assert_eq!(shown, 1, "one rung at a time: {stdout}");
        rungs.push(stdout.lines().nth(1).unwrap_or_default().to_owned());
    }
    assert_eq!(
        rungs,
        [
            "1 nudge",
            "2 concept",
            "3 nearly the code",
            "3 nearly the code"
        ]
    );
}

#[test]
fn a_report_has_a_case_for_each_verdict() {
    let copy = copy();
    copy.answer(
        &copy
            .solution()
            .replace("MapFlags::MAP_PRIVATE)", "MapFlags::MAP_SHARED)"),
    );
    let (status, stdout, _) = run(&mut workbook(&copy, &["report", "--format", "junit"]));
    assert_eq!(status, Some(1));
    assert!(stdout.starts_with("<?xml"), "{stdout}");
    assert!(
        stdout.contains(r#"<testsuite name="private-alloc" tests="35""#),
        "{stdout}"
    );
    assert!(
        stdout.contains(r#"<testcase name="private" classname="region">"#),
        "{stdout}"
    );
    assert!(stdout.contains("its parent sees it"), "{stdout}");
}

#[test]
fn the_doctor_tells_what_is_skipped() {
    let copy = copy();
    let (status, stdout, _) = run(&mut workbook(&copy, &["doctor", "--json"]));
    assert_eq!(status, Some(0));
    let findings: Value = serde_json::from_str(&stdout).expect("one JSON document");
    let found: Vec<_> = findings
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| &one["what"])
        .collect();
    for what in [
        "kernel",
        "page size",
        "huge pages",
        "overcommit",
        "ptrace",
        "memory",
        "sandbox",
        "clone",
        "progress",
        "toolchain",
    ] {
        assert!(found.iter().any(|found| *found == what), "{what}: {stdout}");
    }
    let mut command = workbook(&copy, &["doctor"]);
    let (_, stdout, _) = run(command.env("WORKBOOK_HOME", "/proc/nowhere"));
    let told = "no verdict or hint is remembered: WORKBOOK_HOME can name another folder";
    assert!(stdout.contains(told), "{stdout}");
}
