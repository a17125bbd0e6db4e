//! The `workbook` command from the outside: exit statuses, output, JSON.
//!
//! It runs in copies of the clone, so that the learner's answers are not modified.

mod copy;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use copy::Copy;
use course::exercise::Exercise;
use course::log::{Log, Record};
use serde_json::Value;

/// One of two copies, so that two tests can run at the same time. Only one test at a time may change a copy's answers.
fn copy() -> MutexGuard<'static, Copy> {
    static COPIES: LazyLock<[Mutex<Copy>; 2]> =
        LazyLock::new(|| ["copy-1", "copy-2"].map(|name| Mutex::new(Copy::make(name))));
    let [first, second] = &*COPIES;
    let copy = match first.try_lock() {
        Ok(copy) => copy,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => second.lock().unwrap_or_else(PoisonError::into_inner),
    };
    // The test before has left its answers.
    copy.reset();
    copy
}

/// An answer to the warm-up that fails, and is not the stub's.
fn wrong_warm_up(copy: &Copy) -> String {
    let flags = "MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE";
    copy.solution_of("warm-up")
        .replace("MapFlags::MAP_SHARED", flags)
}

/// For tests that run trybuild. It has one project for both copies, whose lock expires on a busy machine.
fn trybuild() -> MutexGuard<'static, ()> {
    static TRYBUILD: Mutex<()> = Mutex::new(());
    TRYBUILD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The time limit for building and grading an answer, also while the other copy's answer is built.
const LIMIT: Duration = Duration::from_secs(300);

fn workbook(copy: &Copy, arguments: &[&str]) -> Command {
    let mut command = copy.command(env!("CARGO_BIN_EXE_workbook"));
    command.args(arguments);
    command
}

/// The number of cases of a stage: the tests in its module, and its compile-fail cases.
fn cases(exercise: &Exercise, stage: &str) -> usize {
    let grader = exercise.grader();
    let module = fs::read_to_string(grader.join(format!("{stage}.rs"))).unwrap_or_default();
    let compile_fail = fs::read_dir(grader.join("compile_fail").join(stage));
    let compile_fail = compile_fail.into_iter().flatten().flatten();
    let is_source = |path: &Path| path.extension().is_some_and(|extension| extension == "rs");
    let compile_fail = compile_fail.filter(|entry| is_source(&entry.path()));
    module.matches("#[test]\n").count() + compile_fail.count()
}

/// The number of cases of an exercise's core stages, and of its bonus stages.
fn all_cases(exercise: &str) -> (usize, usize) {
    let root = course::root::find().expect("a clone");
    let exercise = Exercise::find(&root, exercise).expect("an exercise");
    let of = |bonus| {
        let stages = exercise.about.stages.iter();
        let stages = stages.filter(|stage| stage.bonus == bonus);
        stages.map(|stage| cases(&exercise, &stage.name)).sum()
    };
    (of(false), of(true))
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

/// Writes an executable shell script. Another process does it: a file that is open for writing cannot be executed, and a
/// child that another test starts meanwhile inherits this process's open files.
fn script(path: &Path, lines: &str) {
    let text = path.with_extension("txt");
    fs::write(&text, format!("#!/bin/sh\n{lines}\n")).expect("a file");
    let mut install = Command::new("install");
    let status = install.args(["-m", "755"]).arg(text).arg(path).status();
    assert!(status.expect("coreutils").success());
}

/// A stand-in for cargo takes two seconds, or none, and reports a stand-in for the drill.
#[test]
fn a_build_of_the_drill_is_announced() {
    let copy = copy();
    let folder = tempfile::tempdir().expect("a folder");
    let (drill, cargo) = (folder.path().join("drill"), folder.path().join("cargo"));
    script(&drill, r#"echo "drill: $*"; exit 7"#);
    let artifact = serde_json::json!({
        "reason": "compiler-artifact", "manifest_path": "", "filenames": [], "executable": drill,
        "target": { "kind": ["bin"], "name": "drill", "edition": "2024" },
    });
    for (seconds, announced) in [(2, true), (0, false)] {
        script(&cargo, &format!("sleep {seconds}; echo '{artifact}'"));
        let mut command = workbook(&copy, &["drill", "--help"]);
        let (status, stdout, stderr) = run(command.env("CARGO", &cargo));
        assert_eq!((status, &*stdout), (Some(7), "drill: --help\n"), "{stderr}");
        assert_eq!(
            stderr.contains("Building the drill."),
            announced,
            "{stderr}"
        );
    }
    script(&cargo, "echo 'error: no' >&2; exit 101");
    let (status, stdout, stderr) = run(workbook(&copy, &["drill"]).env("CARGO", &cargo));
    assert_eq!((status, &*stdout, &*stderr), (Some(2), "", "error: no\n"));
}

/// Two clones with the same version may share a target directory. Cargo then runs the grader of one clone for the
/// other.
#[test]
fn an_answer_in_one_clone_is_not_graded_in_another() {
    let copy = copy();
    let (all, _) = all_cases("warm-up");
    let name = copy.root.file_name().expect("a name").to_string_lossy();
    let other = Copy::with_version_of("other", &name);
    copy.answer_to("warm-up", &copy.solution_of("warm-up"));
    let (status, stdout, _) = run(&mut workbook(&copy, &["grade", "warm-up"]));
    assert_eq!(status, Some(0), "{stdout}");
    let (_, stdout, stderr) = run(&mut workbook(&other, &["grade", "warm-up"]));
    let sum = format!("\n0 of {all} passed");
    assert!(stdout.contains(&sum), "{stdout}{stderr}");
    copy.answer_to("warm-up", &copy.solution_of("warm-up"));
    let (_, stdout, stderr) = run(&mut workbook(&copy, &["grade", "warm-up"]));
    let sum = format!("\n{all} of {all} passed");
    assert!(stdout.contains(&sum), "{stdout}{stderr}");
}

/// For example after `cp -p`, or from a backup. Cargo alone would keep the grader of the newer file.
#[test]
fn an_older_file_in_place_of_the_answer_is_graded() {
    let _alone = trybuild();
    let copy = copy();
    let path = copy.root.join("exercises/private-alloc/src/lib.rs");
    let replace_by_older = |text: &str| {
        copy.answer(text);
        let hour_ago = std::time::SystemTime::now() - Duration::from_secs(3600);
        let file = fs::File::options().append(true).open(&path);
        file.expect("the answer")
            .set_modified(hour_ago)
            .expect("the modification time can be set");
    };
    copy.answer(&copy.solution());
    let (status, stdout, _) = run(&mut workbook(&copy, &["grade", "private-alloc"]));
    assert_eq!(status, Some(0), "{stdout}");

    // The first mistake shows in a case that runs, the second only in one that is compiled.
    let shared = copy
        .solution()
        .replace("MapFlags::MAP_PRIVATE)", "MapFlags::MAP_SHARED)");
    let not_sync = copy
        .solution()
        .replace("unsafe impl Sync for Region {}", "");
    for (wrong, case) in [(shared, "private"), (not_sync, "shared_with_a_thread")] {
        replace_by_older(&wrong);
        let mut cargo = copy.command(env!("CARGO"));
        cargo.args(["test", "--package", "private-alloc", "--test", "grader"]);
        let (status, _, stderr) = run(&mut cargo);
        assert_eq!(status, Some(101), "{stderr}");
        let (status, stdout, stderr) = run(&mut workbook(&copy, &["grade", "private-alloc"]));
        assert_eq!(status, Some(1), "{stdout}{stderr}");
        assert!(stdout.contains(case), "{stdout}");
    }
    assert!(fs::read_to_string(&path).unwrap().contains("MAP_PRIVATE)"));
}

#[test]
fn an_unsolved_exercise_says_where_to_begin() {
    let copy = copy();
    for exercise in ["warm-up", "private-alloc"] {
        let stub = copy.root.join(format!("exercises/{exercise}/stub.rs"));
        copy.answer_to(exercise, &fs::read_to_string(stub).unwrap());
    }
    let (status, stdout, _) = run(&mut workbook(&copy, &[]));
    assert_eq!(status, Some(1), "{stdout}");
    assert!(stdout.contains("Next: by_hand."), "{stdout}");
    assert!(!stdout.contains('✗'), "{stdout}");
    // The stub of the warm-up is complete code, so what it does is shown.
    let shown = stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    let sentence = "Not started: your file has `let flags = MapFlags::MAP_PRIVATE;` as in the stub. A forked child stored \
                    42 in the number, and its parent reads 0; expected 42.";
    assert!(shown.contains(sentence), "{stdout}");
}

/// The compile-fail cases compile with the stub's signatures, which is not the learner's mistake.
#[test]
fn a_stage_whose_signatures_are_the_stubs_is_not_started() {
    let _alone = trybuild();
    let copy = copy();
    let stubs = [
        (
            "as_slice(&self) -> &[u8]",
            "as_slice<'a>(&self) -> &'a [u8]",
        ),
        (
            "as_mut_slice(&mut self) -> &mut [u8]",
            "as_mut_slice<'a>(&mut self) -> &'a mut [u8]",
        ),
        ("unsafe impl Send for Region {}", ""),
        ("unsafe impl Sync for Region {}", ""),
    ];
    let untouched = stubs.iter().fold(copy.solution(), |text, (ours, stub)| {
        text.replace(ours, stub)
    });
    copy.answer(&untouched);
    let (status, stdout, stderr) = run(&mut workbook(&copy, &["grade", "private-alloc"]));
    assert_eq!(status, Some(1), "{stdout}{stderr}");
    let (all, _) = all_cases("private-alloc");
    let sum = format!("\n{} of {all} passed, 6 not started.", all - 6);
    assert!(stdout.contains(&sum), "{stdout}");
    assert!(stdout.contains("Next: views."), "{stdout}");
    assert!(!stdout.contains('✗'), "{stdout}");
    let (_, list, _) = run(&mut workbook(&copy, &["list"]));
    assert!(list.contains("· views"), "{list}");
    let mut cargo = copy.command(env!("CARGO"));
    cargo.args([
        "test",
        "--package",
        "private-alloc",
        "--test",
        "grader",
        "views",
    ]);
    let (status, stdout, _) = run(&mut cargo);
    assert_eq!(status, Some(101), "{stdout}");
    assert_eq!(stdout.matches("✗").count(), 0, "{stdout}");
    assert!(
        stdout.contains("· Not started: your file has `pub fn as_slice<'a>(&self) -> &'a [u8]`"),
        "{stdout}"
    );

    // The learner has begun, so the mistakes that are left are shown.
    copy.answer(&untouched.replace(
        "as_slice<'a>(&self) -> &'a [u8]",
        "as_slice(&self) -> &[u8]",
    ));
    let (_, stdout, stderr) = run(&mut workbook(&copy, &["grade", "private-alloc"]));
    assert!(stdout.contains("✗ sent_to_a_thread"), "{stdout}{stderr}");
    let sum = format!("\n{} of {all} passed, 4 failed.", all - 4);
    assert!(stdout.contains(&sum), "{stdout}");
    assert_eq!(
        stdout
            .matches("This compiled, but your signatures must prevent it:")
            .count(),
        1,
        "{stdout}"
    );
    copy.answer(&copy.solution());
}

#[test]
fn a_solved_exercise_is_status_0() {
    let copy = copy();
    copy.answer_to("warm-up", &copy.solution_of("warm-up"));
    let (status, stdout, stderr) = run(&mut workbook(&copy, &["grade", "warm-up"]));
    assert_eq!(status, Some(0), "{stdout}{stderr}");
    assert!(stdout.contains("Solved."), "{stdout}");
    assert!(
        !stdout.contains('\x1b'),
        "colours without a terminal: {stdout}"
    );
}

#[test]
fn a_wrong_answer_gets_its_sentence_and_a_hint() {
    let copy = copy();
    let shared = copy
        .solution()
        .replace("MapFlags::MAP_PRIVATE", "MapFlags::MAP_SHARED");
    copy.answer(&shared);
    let (status, stdout, _) = run(&mut workbook(&copy, &["grade", "private-alloc"]));
    assert_eq!(status, Some(1), "{stdout}");
    for expected in [
        "✗ lazy",
        "The region is shared: a forked child writes to the same pages. Map it MAP_PRIVATE.",
        "its parent sees the write. Map the memory with MAP_PRIVATE.",
        "cargo run -- hint private-alloc region",
    ] {
        assert!(stdout.contains(expected), "no {expected:?} in\n{stdout}");
    }
}

#[test]
fn json_has_the_sums() {
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
fn a_skip_is_status_3_and_with_strict_a_failure() {
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
fn a_compile_error_is_printed_once_and_is_part_of_the_json() {
    let copy = copy();
    copy.answer("pub fn map_by_hand() { let x: u8 = \"\"; }");
    let (status, stdout, stderr) = run(&mut workbook(&copy, &["grade", "private-alloc"]));
    assert_eq!(status, Some(2), "{stdout}{stderr}");
    assert_eq!(stderr.matches("error[E0308]").count(), 1, "{stderr}");
    let expected = "private-alloc cannot be graded: it does not build; see the errors above.";
    assert!(stderr.contains(expected), "{stderr}");

    let (status, stdout, _) = run(&mut workbook(&copy, &["grade", "private-alloc", "--json"]));
    assert_eq!(status, Some(2));
    let document: Value = serde_json::from_str(&stdout).expect("one JSON document");
    let error = document["exercises"][0]["error"]
        .as_str()
        .expect("an error");
    assert!(error.contains("error[E0308]: mismatched types"), "{error}");
}

/// The errors are all in the grader's code, where the learner can change nothing.
#[test]
fn an_answer_with_another_interface_gets_one_sentence() {
    let copy = copy();
    let solution = fs::read_to_string(copy.root.join("solutions/src/shared_ipc.rs")).unwrap();
    let too_strict = solution.replace("FromBytes +", "FromBytes + Copy +");
    let mutable = copy
        .solution()
        .replace("as_slice(&self)", "as_slice(&mut self)");
    for (exercise, answer, code, sentence) in [
        (
            "shared-ipc",
            too_strict,
            "error[E0277]",
            "Shared<T> requires T: Copy, but the grader uses it with AtomicU64, which is not Copy. Relax the bound.",
        ),
        (
            "private-alloc",
            mutable,
            "error[E0596]",
            "Region::as_slice takes &mut self; the task's signature is `pub fn as_slice(&self) -> &[u8]`. Restore it.",
        ),
    ] {
        let stub = copy.root.join(format!("exercises/{exercise}/stub.rs"));
        let stub = fs::read_to_string(stub).unwrap();
        assert_ne!(answer, solution);
        copy.answer_to(exercise, &answer);
        let (status, stdout, stderr) = run(&mut workbook(&copy, &["grade", exercise]));
        assert_eq!(status, Some(2), "{stdout}{stderr}");
        let (_, rustc) = stderr
            .split_once(sentence)
            .unwrap_or_else(|| panic!("{stderr}"));
        assert!(rustc.contains(code), "{stderr}");
        assert!(stderr.lines().count() < 100, "{stderr}");

        let (status, json, _) = run(&mut workbook(&copy, &["grade", exercise, "--json"]));
        assert_eq!(status, Some(2));
        let document: Value = serde_json::from_str(&json).expect("one JSON document");
        let error = document["exercises"][0]["error"]
            .as_str()
            .expect("an error");
        assert!(
            error.starts_with(sentence) && error.contains(code),
            "{error}"
        );
        copy.answer_to(exercise, &stub);
    }
}

/// The solution, and code that runs before main, in the judge itself.
fn with_constructor(solution: String, body: &str) -> String {
    let constructor = format!(
        "#[used]\n#[unsafe(link_section = \".init_array\")]\nstatic BEGIN: extern \"C\" fn() = begin;\n\
         extern \"C\" fn begin() {{\n{body}\n}}\n"
    );
    solution + &constructor
}

/// Nothing distinguishes it from a grader that the machine has ended.
#[test]
fn a_grader_that_ends_without_verdicts_could_not_grade() {
    let copy = copy();
    let hostile = "if std::env::var_os(\"JUDGE_REPORT\").is_some() { std::process::exit(0); }";
    copy.answer(&with_constructor(copy.solution(), hostile));
    let (status, stdout, stderr) = run(&mut workbook(&copy, &["grade", "private-alloc", "--json"]));
    assert_eq!(status, Some(2), "{stdout}{stderr}");
    let document: Value = serde_json::from_str(&stdout).expect("one JSON document");
    assert_eq!(document["failed"], document["possible"], "{stdout}");
    let sentence = "Could not grade: the grader exited with status 98, then exited with status 98 without a verdict on this case.";
    assert!(stdout.contains(sentence), "{stdout}");
    let printed = "code of the answer that runs before main (.init_array) called exit. Remove it.";
    assert!(stdout.contains(printed), "{stdout}");
    assert!(stderr.contains("nothing was recorded"), "{stderr}");
}

#[test]
fn code_around_main_that_does_not_end_is_stopped() {
    let copy = copy();
    let body = "loop { std::thread::sleep(std::time::Duration::from_secs(60)) }";
    let before = with_constructor(copy.solution_of("warm-up"), body);
    let after = before.replace(".init_array", ".fini_array");
    let sentences = [
        "the test program did not reach main within 20 s, so no test of the answer began: code of the answer that runs before main (.init_array) does not end, or the machine is overloaded.",
        "the test program, which listed its cases, had not ended after 20 s: code of the answer that runs after main (.fini_array, atexit) does not end, or the machine is overloaded.",
    ];
    for (answer, sentence) in [before, after].iter().zip(sentences) {
        copy.answer_to("warm-up", answer);
        let begun = Instant::now();
        let (status, stdout, stderr) = run(&mut workbook(&copy, &["grade", "warm-up"]));
        assert_eq!(status, Some(2), "{stdout}{stderr}");
        assert!(stderr.contains(sentence), "{stderr}");
        assert!(begun.elapsed() < LIMIT);
    }
}

#[test]
fn code_before_main_that_ends_the_test_program_is_named() {
    let copy = copy();
    let ends = [
        ("std::process::exit(0)", "exited with status 0", ""),
        (
            "panic!(\"in a constructor\")",
            "was killed by SIGABRT",
            ": in a constructor",
        ),
    ];
    for (body, how, message) in ends {
        copy.answer_to(
            "warm-up",
            &with_constructor(copy.solution_of("warm-up"), body),
        );
        let (status, stdout, stderr) = run(&mut workbook(&copy, &["grade", "warm-up"]));
        assert_eq!(status, Some(2), "{stdout}{stderr}");
        let sentence = format!(
            "the test program {how} before it listed its cases, so no test of the answer began: look for code of the answer that runs before main (.init_array)."
        );
        assert!(stderr.contains(&sentence), "{stderr}");
        assert!(stderr.contains(message), "{stderr}");
    }
}

#[test]
fn code_after_main_that_ends_the_test_program_is_named() {
    let copy = copy();
    let solution = with_constructor(copy.solution_of("warm-up"), "std::process::abort();");
    copy.answer_to("warm-up", &solution.replace(".init_array", ".fini_array"));
    let (status, stdout, stderr) = run(&mut workbook(&copy, &["grade", "warm-up"]));
    assert_eq!(status, Some(2), "{stdout}{stderr}");
    let sentence = "the test program was killed by SIGABRT after it had listed its cases: look for code of the answer that runs after main (.fini_array, atexit)";
    assert!(stderr.contains(sentence), "{stderr}");
}

#[test]
fn forged_verdicts_are_not_believed() {
    let copy = copy();
    let forge = "if let Some(path) = std::env::var_os(\"JUDGE_REPORT\") {\n\
                 let line = r#\"{\"case\":\"flag::extra\",\"verdict\":\"passed\",\"kind\":\"passed\",\"sentence\":null}\"#;\n\
                 use std::io::Write;\n\
                 let mut file = std::fs::File::options().append(true).open(path).unwrap();\n\
                 file.write_all(b\"\\xff\\xfe\\n\").unwrap();\n\
                 writeln!(file, \"{line}\").unwrap();\n}";
    copy.answer_to(
        "warm-up",
        &with_constructor(copy.solution_of("warm-up"), forge),
    );
    let (status, stdout, stderr) = run(&mut workbook(&copy, &["grade", "warm-up"]));
    assert_eq!(status, Some(2), "{stdout}{stderr}");
    let sentence = "lines of the judge's report were not written by the judge: the answer writes verdicts of its own.";
    assert!(stderr.contains(sentence), "{stderr}");
    assert!(!stdout.contains("Solved"), "{stdout}");
}

/// Tries each kind of file that is not source, or whose reading does not end.
#[test]
fn a_source_that_is_no_file_is_refused_at_once() {
    let copy = copy();
    let source = copy.root.join("exercises/private-alloc/src");
    let expect = |path: &str, kind: &str| {
        let begun = Instant::now();
        let (status, stdout, stderr) = run(&mut workbook(&copy, &["grade", "private-alloc"]));
        assert_eq!(status, Some(2), "{stdout}{stderr}");
        let sentence = format!("exercises/private-alloc/src/{path}{kind}");
        assert!(stderr.contains(&sentence), "{stderr}");
        assert!(begun.elapsed() < Duration::from_secs(60), "{stderr}");
    };
    let fifo = |path: &std::path::Path| {
        let made = Command::new("mkfifo").arg(path).status();
        assert!(made.expect("mkfifo").success());
    };
    copy.answer(&copy.solution());

    let other = source.join("other.rs");
    fifo(&other);
    expect("other.rs", " is a FIFO (named pipe)");
    fs::remove_file(&other).expect("a FIFO");
    std::os::unix::fs::symlink("/dev/zero", &other).expect("a link");
    expect("other.rs", " is a device");
    fs::remove_file(&other).expect("a link");
    let huge = fs::File::create(&other).expect("a file");
    huge.set_len(1 << 40).expect("a sparse file");
    expect("other.rs", " is too large");
    fs::remove_file(&other).expect("a file");

    fs::write(
        &other,
        "const ZEROS: &[u8] = include_bytes!(\"/dev/zero\");",
    )
    .expect("a file");
    let only = "an answer includes only regular files of exercises/private-alloc";
    expect("other.rs includes /dev/zero; ", only);
    fs::write(&other, "#[path = \"../../../src/lib.rs\"]\nmod all;").expect("a file");
    expect("other.rs includes ../../../src/lib.rs; ", only);
    fs::remove_file(&other).expect("a file");

    let answer = source.join("lib.rs");
    fs::remove_file(&answer).expect("the answer");
    fifo(&answer);
    expect("lib.rs", " is a FIFO (named pipe)");
    fs::remove_file(&answer).expect("a FIFO");
    fs::create_dir(&answer).expect("a folder");
    expect("lib.rs", " is a directory");
    fs::remove_dir(&answer).expect("a folder");
    copy.answer(&copy.solution());
}

/// It is one mistake, so it costs the verdict of no other case.
#[test]
fn an_answer_that_signals_the_judge_gets_a_verdict_on_every_case() {
    let copy = copy();
    let hostile = copy.solution().replacen(
        "pub fn new(len: usize) -> io::Result<Region> {",
        "pub fn new(len: usize) -> io::Result<Region> {\n        let _ = nix::sys::signal::kill(nix::unistd::getppid(), nix::sys::signal::SIGKILL);",
        1,
    );
    assert_ne!(hostile, copy.solution());
    copy.answer(&hostile);
    let (status, stdout, stderr) = run(&mut workbook(&copy, &["grade", "private-alloc", "--json"]));
    assert_eq!(status, Some(1), "{stdout}{stderr}");
    assert!(
        stdout.contains("is the judge. The judge refused the call."),
        "{stdout}"
    );
    assert!(!stdout.contains("no-verdict"), "{stdout}");
    let document: Value = serde_json::from_str(&stdout).expect("one JSON document");
    assert!(document["passed"].as_u64() > Some(0), "{stdout}");
}

#[test]
fn escape_sequences_of_an_answer_do_not_reach_the_terminal() {
    let copy = copy();
    let hostile = copy.solution().replacen(
        "pub fn new(len: usize) -> io::Result<Region> {",
        "pub fn new(len: usize) -> io::Result<Region> {\n        println!(\"a\\x1b[2J\\u{9b}1m\\u{202e}\\x07\\rb\");\n        assert!(len == 7, \"\\x1b[31mpanic\");",
        1,
    );
    assert_ne!(hostile, copy.solution());
    copy.answer(&hostile);
    let shown = r"a\u{1b}[2J\u{9b}1m\u{202e}\u{7}\rb";
    let commands: [&[&str]; 3] = [
        &["grade", "private-alloc"],
        &["grade", "private-alloc", "--json"],
        &["report", "--format", "junit"],
    ];
    for arguments in commands {
        let (status, stdout, stderr) = run(&mut workbook(&copy, arguments));
        assert_eq!(status, Some(1), "{stdout}{stderr}");
        let raw = |text: &str| text.contains(['\x1b', '\u{9b}', '\u{202e}', '\x07', '\r']);
        assert!(!raw(&stdout) && !raw(&stderr), "{stdout}{stderr}");
        // JSON doubles the backslash.
        assert!(stdout.contains("u{1b}[31mpanic"), "{stdout}");
        let shows_output = arguments[0] == "grade";
        assert!(!shows_output || stdout.contains("u{1b}[2J"), "{stdout}");
    }
    let mut cargo = copy.command(env!("CARGO"));
    cargo.args([
        "test",
        "--package",
        "private-alloc",
        "--test",
        "grader",
        "region",
    ]);
    let (_, stdout, _) = run(&mut cargo);
    assert!(stdout.contains(shown), "{stdout}");
    assert!(!stdout.contains('\x1b'), "{stdout}");
}

#[test]
fn an_unknown_name_lists_the_known_ones() {
    let copy = copy();
    for arguments in [
        ["grade", "private"].as_slice(),
        &["grade", "private-alloc", "regions"],
        &["hint", "private-alloc", "regions"],
        &["watch", "private"],
        &["hint", "private-alloc", "region", "4"],
    ] {
        let (status, _, stderr) = run(&mut workbook(&copy, arguments));
        assert_eq!(status, Some(2), "{stderr}");
        assert!(stderr.starts_with("workbook: "), "{stderr}");
        assert!(stderr.ends_with(".\n"), "{stderr}");
    }
}

/// A running `workbook watch` and its output.
struct Watching {
    child: std::process::Child,
    output: std::sync::Arc<Mutex<String>>,
}

impl Watching {
    fn begin(copy: &Copy) -> Watching {
        Watching::begin_with(copy, Stdio::piped())
    }

    fn begin_with(copy: &Copy, stdin: Stdio) -> Watching {
        Watching::start(workbook(copy, &["watch", "private-alloc"]).stdin(stdin))
    }

    fn start(command: &mut Command) -> Watching {
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .expect("the command starts");
        let output = std::sync::Arc::new(Mutex::new(String::new()));
        let stdout = child.stdout.take().expect("a pipe was requested");
        let lines = output.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                lines.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        Watching { child, output }
    }

    /// Waits until the output contains `text`. Removes the output up to its end, and returns the part before it.
    fn waits_for(&self, text: &str) -> String {
        let begun = Instant::now();
        loop {
            let mut output = self.output.lock().unwrap();
            if let Some(found) = output.find(text) {
                let rest = output.split_off(found + text.len());
                return std::mem::replace(&mut output, rest);
            }
            assert!(
                begun.elapsed() < LIMIT,
                "{text:?} was not printed: {output}"
            );
            drop(output);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn types(&mut self, line: &str) {
        let mut stdin = self.child.stdin.as_ref().expect("a pipe was requested");
        writeln!(stdin, "{line}").expect("the command reads its input");
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_save_is_graded_and_a_solved_exercise_leads_to_the_next() {
    let copy = copy();
    let _ = fs::remove_file(copy.root.join(".workbook/log.jsonl"));
    let stub = fs::read_to_string(copy.root.join("exercises/private-alloc/stub.rs")).unwrap();
    copy.answer(&stub);
    let mut watching = Watching::begin(&copy);
    watching.waits_for("Next: by_hand.");

    let shared = copy
        .solution()
        .replace("MapFlags::MAP_PRIVATE)", "MapFlags::MAP_SHARED)");
    copy.answer(&shared);
    watching.waits_for("its parent sees the write. Map the memory with MAP_PRIVATE.");
    watching.waits_for("Fix region::lazy first");
    watching.types("h");
    watching.waits_for("private-alloc, region:");
    watching.waits_for("More: h");
    watching.types("");
    watching.waits_for("The same as before. Type h for a hint.");
    watching.types("a");
    watching.waits_for("The page on it is book/src/private-alloc.md; type h for a hint.");
    watching.types("s");
    watching.types("?");
    let output = watching.waits_for("reset       restore the stub");
    assert!(
        !output.contains("+++"),
        "the solution was shown before it was solved: {output}"
    );

    copy.answer(&copy.solution());
    watching.waits_for("Solved.");
    watching.waits_for("Shared-memory IPC");
    // The session has turned to the next exercise, and still shows the solution of the one before.
    watching.types("s");
    watching.waits_for("+++ solutions/src/private_alloc.rs");
    watching.types("q");
    watching.waits_for("Your answers are as you saved them.");
    assert_eq!(watching.child.wait().unwrap().code(), Some(0));
}

/// The verdict on the screen must be that of the second save.
#[test]
fn a_save_during_a_grading_restarts_it() {
    let copy = copy();
    let shared = copy
        .solution()
        .replace("MapFlags::MAP_PRIVATE)", "MapFlags::MAP_SHARED)");
    copy.answer(&shared);
    let mut watching = Watching::begin(&copy);
    watching.waits_for("type ? and Enter.");
    std::thread::sleep(Duration::from_millis(200));
    copy.answer(&copy.solution());
    let output = watching.waits_for("Solved.");
    assert!(
        !output.contains("failed."),
        "a verdict on the first save: {output}"
    );
    watching.types("q");
    assert_eq!(watching.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_session_begins_with_the_first_unsolved_exercise() {
    let copy = copy();
    copy.answer(&copy.solution());
    copy.answer_to("warm-up", &copy.solution_of("warm-up"));
    for solved in ["warm-up", "private-alloc"] {
        run(&mut workbook(&copy, &["grade", solved]));
    }
    let begin = || Watching::start(workbook(&copy, &["watch"]).stdin(Stdio::piped()));
    let mut watching = begin();
    let output = watching.waits_for("Next: by_hand.");
    assert!(output.contains("Shared-memory IPC"), "{output}");
    assert!(!output.contains("Private allocation"), "{output}");

    // Saving a solved exercise does not switch to another one.
    copy.answer(&format!("{}// tidier\n", copy.solution()));
    watching.waits_for("Solved.");
    watching.waits_for("Type n for the next exercise.");

    // The log records it as solved, but the file is newer.
    watching.types("reset");
    watching.waits_for("A copy of your file is");
    watching.waits_for("Next: by_hand.");
    watching.types("q");
    watching.waits_for("Your answers are as you saved them.");
    let output = begin().waits_for("Next: by_hand.");
    assert!(output.contains("Private allocation"), "{output}");
}

/// Like vim: renames the old file, and puts the new file in its place.
#[test]
fn a_save_by_renaming_and_a_removed_file_are_seen_by_every_watcher() {
    let copy = copy();
    let stub = fs::read_to_string(copy.root.join("exercises/private-alloc/stub.rs")).unwrap();
    copy.answer(&stub);
    let _ = fs::remove_file(copy.root.join(".workbook/log.jsonl"));
    let watchers = [Watching::begin(&copy), Watching::begin(&copy)];
    for watching in &watchers {
        watching.waits_for("Next: by_hand.");
    }
    let folder = copy.root.join("exercises/private-alloc/src");
    fs::write(folder.join(".lib.rs.new"), copy.solution()).unwrap();
    fs::rename(folder.join("lib.rs"), folder.join("lib.rs~")).unwrap();
    fs::rename(folder.join(".lib.rs.new"), folder.join("lib.rs")).unwrap();
    for watching in &watchers {
        watching.waits_for("Solved.");
        watching.waits_for("Next: by_hand.");
    }
    // A verdict is recorded after it has been printed.
    let log = Log::in_folder(&copy.root.join(".workbook"));
    let begun = Instant::now();
    while log.read().expect("a log").records.len() < 6 && begun.elapsed() < LIMIT {
        std::thread::sleep(Duration::from_millis(20));
    }
    let lines = log.read().expect("a log");
    assert_eq!((lines.records.len(), lines.torn.len()), (6, 0));

    fs::remove_file(folder.join("lib.rs~")).unwrap();
    fs::remove_file(folder.join("lib.rs")).unwrap();
    watchers[0].waits_for("Fix that and save again.");
    let (status, stdout, stderr) = run(&mut workbook(&copy, &["grade", "private-alloc"]));
    assert_eq!(status, Some(2), "{stdout}");
    let expected = "exercises/private-alloc/src/lib.rs is missing; `cargo run -- reset private-alloc` puts the stub there";
    assert!(stderr.contains(expected), "{stderr}");
    let (status, stdout, _) = run(&mut workbook(&copy, &["reset", "private-alloc"]));
    assert_eq!(status, Some(0), "{stdout}");
    assert_eq!(fs::read_to_string(folder.join("lib.rs")).unwrap(), stub);
}

/// The end of /dev/null does not mean that the learner has quit.
#[test]
fn a_watcher_without_input_keeps_running() {
    use nix::sys::signal::{Signal, kill};
    let copy = copy();
    copy.answer(&copy.solution());
    run(&mut workbook(&copy, &["grade", "private-alloc"]));
    let mut watching = Watching::begin_with(&copy, Stdio::null());
    watching.waits_for("Solved.");
    copy.answer(&format!("{}// again\n", copy.solution()));
    watching.waits_for("Solved.");
    let pid = nix::unistd::Pid::from_raw(watching.child.id() as i32);
    kill(pid, Signal::SIGTERM).expect("the process exists");
    watching.waits_for("Your answers are as you saved them.");
    assert_eq!(watching.child.wait().unwrap().code(), Some(0));
}

/// The terminal is closed while an answer loops.
#[test]
fn a_session_whose_terminal_is_closed_leaves_no_process() {
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
        if let Some(grader) = children(watcher)
            .into_iter()
            .find(|process| is_grader(*process))
        {
            break grader;
        }
        assert!(begun.elapsed() < LIMIT, "no grader was started");
        std::thread::sleep(Duration::from_millis(10));
    };
    let all: Vec<u32> = children(grader).into_iter().chain([grader]).collect();
    let pid = nix::unistd::Pid::from_raw(watcher as i32);
    kill(pid, Signal::SIGHUP).expect("the process exists");
    assert_eq!(watching.child.wait().unwrap().code(), Some(0));
    let end = Instant::now() + Duration::from_secs(5);
    while all.iter().any(|process| runs(*process)) {
        assert!(Instant::now() < end, "some of {all:?} still run");
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

/// A zombie does not run.
fn runs(process: u32) -> bool {
    let about = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let state = about.rsplit_once(") ").map_or("", |(_, rest)| rest);
    !state.is_empty() && !state.starts_with(['Z', 'X'])
}

/// `| head -1`
#[test]
fn a_closed_pipe_is_not_an_error() {
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

#[test]
fn an_exercise_is_solved_without_its_bonus_stages() {
    let copy = copy();
    let core = copy
        .root
        .join("tests/answers/threshold-alloc/right/headers.rs");
    let core = fs::read_to_string(core).unwrap();
    let stub = copy.root.join("exercises/threshold-alloc/stub.rs");
    let stub = fs::read_to_string(stub).unwrap();
    copy.answer_to("threshold-alloc", &core);
    let (status, stdout, _) = run(&mut workbook(&copy, &["grade", "threshold-alloc"]));
    let (_, json, _) = run(&mut workbook(
        &copy,
        &["grade", "threshold-alloc", "--json"],
    ));
    copy.answer_to("threshold-alloc", &stub);
    assert_eq!(status, Some(0), "{stdout}");
    let (_, bonus) = all_cases("threshold-alloc");
    let sum = format!("Bonus: 0 of {bonus} passed, {bonus} not started.");
    assert!(stdout.contains(&sum), "{stdout}");
    assert!(stdout.contains("Bonus: merge."), "{stdout}");
    let document: Value = serde_json::from_str(&json).expect("one JSON document");
    assert_eq!(document["passed"], document["possible"]);
    assert_eq!(
        document["bonus"]["not_started"],
        document["bonus"]["possible"]
    );
}

/// As after a `git pull`.
#[test]
fn a_changed_stub_is_reported_once() {
    let copy = copy();
    copy.answer_to("warm-up", &copy.solution_of("warm-up"));
    run(&mut workbook(&copy, &["grade", "warm-up"]));
    let stub = copy.root.join("exercises/warm-up/stub.rs");
    let before = fs::read_to_string(&stub).unwrap();
    fs::write(&stub, before.clone() + "// new in this version\n").unwrap();
    let (_, _, stderr) = run(&mut workbook(&copy, &["grade", "warm-up"]));
    fs::write(&stub, before).unwrap();
    assert!(
        stderr.contains("The stub of warm-up has changed"),
        "{stderr}"
    );
    assert!(stderr.contains("+// new in this version"), "{stderr}");
    let file = copy.root.join("exercises/warm-up/src/lib.rs");
    assert_eq!(
        fs::read_to_string(file).unwrap(),
        copy.solution_of("warm-up")
    );
    run(&mut workbook(&copy, &["grade", "warm-up"]));
    let (_, _, stderr) = run(&mut workbook(&copy, &["grade", "warm-up"]));
    assert!(!stderr.contains("has changed"), "reported twice: {stderr}");
}

#[test]
fn every_grading_is_recorded() {
    let copy = copy();
    let home = tempfile::tempdir().expect("a folder");
    let grade = |answer: &str| {
        copy.answer_to("warm-up", answer);
        run(workbook(&copy, &["grade", "warm-up", "--json"]).env("WORKBOOK_HOME", home.path()));
    };
    let solution = copy.solution_of("warm-up");
    grade(&solution);
    grade(&wrong_warm_up(&copy));
    let log = Log::in_folder(home.path());
    let records = log.read().expect("a log").records;
    let summary = |record: &Record| match record {
        Record::Exercise(graded) => (graded.exercise.clone(), graded.solved, graded.failed()),
        other => panic!("not a grading: {other:?}"),
    };
    let recorded: Vec<_> = records.iter().map(summary).collect();
    let expected = [(true, false), (false, true)];
    let expected = expected.map(|(solved, failed)| ("warm-up".to_owned(), solved, failed));
    assert_eq!(recorded, expected);
}

#[test]
fn reset_keeps_the_answer() {
    let copy = copy();
    let answer = format!("{}// mine\n", copy.solution());
    copy.answer(&answer);
    let (status, stdout, _) = run(&mut workbook(&copy, &["reset", "private-alloc"]));
    assert_eq!(status, Some(0), "{stdout}");
    let kept = stdout
        .split("A copy of your file is ")
        .nth(1)
        .expect("the path of the copy");
    let kept = kept.trim().trim_end_matches('.');
    assert_eq!(fs::read_to_string(kept).expect("the copy"), answer);
    let file = copy.root.join("exercises/private-alloc/src/lib.rs");
    let stub = copy.root.join("exercises/private-alloc/stub.rs");
    assert_eq!(fs::read(file).unwrap(), fs::read(stub).unwrap());
}

#[test]
fn nothing_is_reset_if_the_answer_cannot_be_kept() {
    let copy = copy();
    copy.answer(&copy.solution());
    let mut command = workbook(&copy, &["reset", "private-alloc"]);
    let (status, _, stderr) = run(command.env("WORKBOOK_HOME", "/dev/null/nowhere"));
    assert_eq!(status, Some(2), "{stderr}");
    for expected in ["nothing was changed", "WORKBOOK_HOME"] {
        assert!(stderr.contains(expected), "{stderr}");
    }
    let file = copy.root.join("exercises/private-alloc/src/lib.rs");
    assert_eq!(fs::read_to_string(file).unwrap(), copy.solution());
}

#[test]
fn the_solution_is_shown_after_it_is_solved() {
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

    // Also while the learner tries something else.
    copy.answer(&copy.solution().replace("isize::MAX", "usize::MAX"));
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
    let begins = "warm-up, flag:\n1 nudge\n";
    assert!(stdout.starts_with(begins), "{stdout}");
    let mut rungs = Vec::new();
    for _ in 0..4 {
        let (status, stdout, _) = run(&mut workbook(&copy, &["hint", "private-alloc", "region"]));
        assert_eq!(status, Some(0), "{stdout}");
        let shown = stdout
            .lines()
            .filter(|line| line.starts_with(['1', '2', '3']))
            .count();
        assert_eq!(shown, 1, "one hint at a time: {stdout}");
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
    let (all, _) = all_cases("private-alloc");
    let suite = format!(r#"<testsuite name="private-alloc" tests="{all}""#);
    assert!(stdout.contains(&suite), "{stdout}");
    assert!(
        stdout.contains(r#"<testcase name="private" classname="region">"#),
        "{stdout}"
    );
    assert!(stdout.contains("its parent sees the write"), "{stdout}");
}

#[test]
fn the_doctor_has_all_findings() {
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
    let expected =
        "verdicts and hints are not remembered: WORKBOOK_HOME=FOLDER puts them elsewhere";
    assert!(stdout.contains(expected), "{stdout}");
}

/// The other tests set no root either: it is found from the current directory.
#[test]
fn the_root_is_found_upwards_from_the_current_directory() {
    let copy = copy();
    let mut command = workbook(&copy, &["doctor", "--json"]);
    let (status, stdout, _) = run(command.current_dir(copy.root.join("book/src")));
    assert_eq!(status, Some(0), "{stdout}");
    let root = copy.root.canonicalize().expect("a folder");
    assert!(stdout.contains(&*root.to_string_lossy()), "{stdout}");

    let outside = tempfile::tempdir().expect("a folder");
    let (status, _, stderr) = run(workbook(&copy, &["list"]).current_dir(outside.path()));
    assert_eq!(status, Some(2), "{stderr}");
    assert!(stderr.contains("is not inside a clone"), "{stderr}");
}

#[test]
fn a_clone_of_another_version_is_refused() {
    let copy = copy();
    let other = tempfile::tempdir().expect("a folder");
    fs::create_dir(other.path().join("exercises")).expect("a folder");
    let manifest = "[workspace.package]\nversion = \"99.0.0\"\n";
    fs::write(other.path().join("Cargo.toml"), manifest).expect("a manifest");
    let (status, _, stderr) = run(workbook(&copy, &["list"]).current_dir(other.path()));
    assert_eq!(status, Some(2), "{stderr}");
    assert!(stderr.contains("is version 99.0.0"), "{stderr}");
}

#[test]
fn one_stage_is_graded_and_not_recorded() {
    let copy = copy();
    let home = tempfile::tempdir().expect("a folder");
    copy.answer(&copy.solution());
    let root = course::root::find().expect("a clone");
    let exercise = Exercise::find(&root, "private-alloc").expect("an exercise");
    for stage in ["region", "views"] {
        let cases = cases(&exercise, stage);
        let arguments = ["grade", "private-alloc", stage];
        let mut command = workbook(&copy, &arguments);
        let (status, stdout, _) = run(command.env("WORKBOOK_HOME", home.path()));
        assert_eq!(status, Some(0), "{stdout}");
        let sum = format!("{cases} of {cases} passed.");
        assert!(stdout.contains(&sum), "{stdout}");
    }
    let lines = Log::in_folder(home.path()).read().expect("no log");
    assert!(lines.records.is_empty());
}

#[test]
fn a_session_can_begin_with_a_named_exercise() {
    let copy = copy();
    let mut command = workbook(&copy, &["watch", "mutex-counter"]);
    let mut watching = Watching::start(command.stdin(Stdio::piped()));
    let output = watching.waits_for("Next: lock.");
    assert!(!output.contains("Private allocation"), "{output}");
    watching.types("q");
    assert_eq!(watching.child.wait().unwrap().code(), Some(0));
}

#[test]
fn reset_restores_all_stubs() {
    let copy = copy();
    copy.answer(&copy.solution());
    let (status, stdout, _) = run(&mut workbook(&copy, &["reset", "--all"]));
    assert_eq!(status, Some(0), "{stdout}");
    assert!(
        stdout.contains("private-alloc is the stub again."),
        "{stdout}"
    );
    assert!(
        stdout.contains("shared-ipc is already the stub."),
        "{stdout}"
    );
    let (status, _, stderr) = run(&mut workbook(&copy, &["reset"]));
    assert_eq!(status, Some(2));
    assert!(stderr.contains("reset --all"), "{stderr}");
}

#[test]
fn a_stub_is_skipped_in_junit() {
    let copy = copy();
    run(&mut workbook(&copy, &["reset", "--all"]));
    let (status, stdout, _) = run(&mut workbook(&copy, &["report", "--format", "junit"]));
    assert_eq!(status, Some(1));
    assert!(stdout.contains(r#"failures="0" errors="0""#), "{stdout}");
    assert!(stdout.contains("<skipped"), "{stdout}");
}

#[test]
fn a_full_disk_is_an_error_and_not_a_panic() {
    let copy = copy();
    let full = fs::File::options().write(true).open("/dev/full");
    let mut command = workbook(&copy, &["list"]);
    let (status, _, stderr) = run(command.stdout(full.expect("a device")));
    assert_eq!(status, Some(2), "{stderr}");
    assert!(
        stderr.contains("standard output cannot be written"),
        "{stderr}"
    );
}

#[test]
fn the_core_of_a_solution_is_shown_first() {
    let copy = copy();
    let show = |more: &[&str]| {
        let arguments = [&["solution", "threshold-alloc", "--spoil"], more].concat();
        let (status, stdout, _) = run(&mut workbook(&copy, &arguments));
        assert_eq!(status, Some(0), "{stdout}");
        stdout
    };
    let (core, full) = (show(&[]), show(&["--bonus"]));
    assert!(
        core.contains("solution threshold-alloc --spoil --bonus"),
        "{core}"
    );
    assert!(!core.contains("+mod cache {"), "{core}");
    assert!(full.contains("+mod cache {"), "{full}");
}

#[test]
fn a_wrong_answer_is_made_from_the_learners_file() {
    let copy = copy();
    let wrong = copy
        .solution()
        .replace("MapFlags::MAP_PRIVATE)", "MapFlags::MAP_SHARED)");
    let make = |slug| {
        run(&mut workbook(
            &copy,
            &["new", "answer", "private-alloc", slug],
        ))
    };
    copy.answer(&copy.solution());
    let (status, _, stderr) = make("none");
    assert_eq!(status, Some(2), "{stderr}");
    assert!(stderr.contains("is the solution"), "{stderr}");

    copy.answer(&wrong);
    let (status, _, stderr) = make("../outside");
    assert_eq!(status, Some(2), "{stderr}");
    let (status, stdout, stderr) = make("maps_shared");
    assert_eq!(status, Some(0), "{stdout}{stderr}");
    assert!(stdout.contains("Caught by region::"), "{stdout}");
    let file = "tests/answers/private-alloc/wrong/maps_shared.patch";
    let text = fs::read_to_string(copy.root.join(file)).expect("the answer");
    let (header, patch) = text.split_once("\n\n").expect("a header");
    assert!(header.contains("\ncaught by: region::"), "{header}");
    assert!(header.contains("\ntold: "), "{header}");
    let patch = diffy::Patch::from_str(patch).expect("a patch");
    let patched = diffy::apply(&copy.solution(), &patch).expect("the patch applies");
    assert_eq!(patched, wrong);
    let (status, _, stderr) = make("maps_shared");
    assert_eq!(status, Some(2), "{stderr}");
    assert!(stderr.contains("exists already"), "{stderr}");
}

/// A snapshot that grades must not be overwritten by the answer that it grades.
#[test]
fn an_exported_insta_update_changes_no_snapshot() {
    let copy = copy();
    let shared = copy
        .solution()
        .replace("libc::MAP_PRIVATE", "libc::MAP_SHARED");
    assert_ne!(shared, copy.solution());
    copy.answer(&shared);
    let file = "exercises/private-alloc/tests/grader/snapshots/by_hand.snap";
    let before = fs::read_to_string(copy.root.join(file)).expect("a snapshot");
    let mut cargo = copy.command(env!("CARGO"));
    cargo.args(["test", "--package", "private-alloc", "--", "by_hand"]);
    let (status, stdout, _) = run(cargo.env("INSTA_UPDATE", "always"));
    assert_eq!(status, Some(101), "{stdout}");
    let after = fs::read_to_string(copy.root.join(file)).expect("a snapshot");
    assert_eq!(after, before);
}

/// If a hard limit is too low for a case, a failure says nothing about the answer.
#[test]
fn a_fault_of_the_machine_is_status_2_and_not_recorded() {
    let copy = copy();
    let home = tempfile::tempdir().expect("a folder");
    copy.answer_to("warm-up", &wrong_warm_up(&copy));
    let arguments = ["grade", "warm-up", "--json"];
    let (status, stdout, _) = run(&mut workbook(&copy, &arguments));
    assert_eq!(status, Some(1), "{stdout}");

    let mut limited = copy.command("sh");
    limited.args(["-c", "ulimit -n 60; exec \"$0\" \"$@\""]);
    limited.arg(env!("CARGO_BIN_EXE_workbook")).args(arguments);
    let (status, stdout, stderr) = run(limited.env("WORKBOOK_HOME", home.path()));
    assert_eq!(status, Some(2), "{stdout}{stderr}");
    assert!(stderr.contains("nothing was recorded"), "{stderr}");
    let lines = Log::in_folder(home.path()).read().expect("no log");
    assert!(lines.records.is_empty());
}
