//! Measures the time from a save to its verdicts, and from an edit of a page to the browser, as ratios of medians of
//! alternating runs.
//!
//! `cargo test --test heartbeat` prints them. Nothing is asserted: times are not verdicts.

#[path = "../copy/mod.rs"]
mod copy;
mod live;
mod watching;

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use copy::Copy;
use live::Live;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};
use watching::Watching;

const ROUNDS: usize = 11;
/// The number of cases in the file that measures the cost of a case.
const CASES: u32 = 100;

fn main() {
    let copy = Copy::make("bench");
    add_tests(&copy);
    // Everything is solved, so `cargo test` succeeds and `watch` stays with one exercise.
    let exercises = course::exercise::Exercise::all(&copy.root).expect("exercises");
    for exercise in &exercises {
        fs::copy(exercise.solution(), exercise.answer()).expect("a solution");
    }
    after_a_save(&copy);
    all_exercises(&copy);
    one_case(&copy);
    page(&copy);
    first_use(&copy);
}

fn cargo_test(copy: &Copy, packages: &[&str], arguments: &[&str]) -> Command {
    let mut command = copy.command(env!("CARGO"));
    command.args(["test", "-q"]);
    for package in packages {
        command.args(["-p", package]);
    }
    command.args(arguments);
    command
}

/// Measures the time from a save to its verdicts. Each save is the first exercise's solution with a new comment.
fn after_a_save(copy: &Copy) {
    let packages = ["private-alloc"];
    let bare = || cargo_test(copy, &packages, &["--test", "empty"]);
    let skip = ["--test", "grader", "--", "--skip", "compile_fail"];
    let behaviour = || cargo_test(copy, &packages, &skip);
    let all = || cargo_test(copy, &packages, &["--test", "grader"]);
    let grade = || workbook(copy, &["grade", "private-alloc"]);
    let mut edits = 0;
    let mut save = || {
        edits += 1;
        copy.answer(&format!("{}// edit {edits}\n", copy.solution()));
    };
    // The first build is not measured. It also records every exercise as solved.
    time(workbook(copy, &["grade"]));
    for command in [bare(), behaviour(), all(), grade()] {
        save();
        time(command);
    }
    let mut watching = Watching::begin(workbook(copy, &["watch"]));
    let mut times = Times::default();
    for _ in 0..ROUNDS {
        for (what, command) in [
            ("bare", bare()),
            ("behaviour", behaviour()),
            ("all", all()),
            ("grade", grade()),
        ] {
            // `watch` must not grade this save at the same time.
            watching.pause();
            save();
            times.add(what, time(command));
            watching.resume();
        }
        let (stages, all) = watching.times(&mut save);
        times.add("watched stages", stages);
        times.add("watched", all);
    }
    watching.end();

    println!("from a save to its verdicts, medians of {ROUNDS} runs each:");
    let [bare, behaviour, all] = ["bare", "behaviour", "all"].map(|what| times.median(what));
    line("cargo test, an empty test in the same crate", bare, None);
    line(
        "cargo test, behaviour, relative to that",
        behaviour,
        Some((bare, 1.25)),
    );
    line("cargo test, all, relative to that", all, Some((bare, 2.0)));
    for (what, name, base, goal) in [
        (
            "watched stages",
            "watch, behaviour, relative to cargo test",
            behaviour,
            1.2,
        ),
        // `cargo test` compiles the compile-fail cases with trybuild.
        ("watched", "watch, all, relative to cargo test", all, 0.9),
        ("grade", "workbook grade, relative to cargo test", all, 0.9),
    ] {
        line(name, times.median(what), Some((base, goal)));
    }
    println!("  (including the 20 ms that watch waits for the end of a save)");
}

/// Grades all exercises, which are built already.
fn all_exercises(copy: &Copy) {
    let exercises = course::exercise::Exercise::all(&copy.root).expect("exercises");
    let packages: Vec<_> = exercises.iter().map(|one| one.name.as_str()).collect();
    let plain = || cargo_test(copy, &packages, &["--test", "grader"]);
    time(plain());
    let mut times = Times::default();
    for _ in 0..3 {
        times.add("plain", time(plain()));
        times.add("grade", time(workbook(copy, &["grade"])));
    }
    println!("all exercises, already built, medians of 3 runs each:");
    let plain = times.median("plain");
    line("cargo test of the same graders", plain, None);
    line("workbook grade", times.median("grade"), Some((plain, 1.5)));
}

/// Measures what the judge adds to a trivial case.
fn one_case(copy: &Copy) {
    let one_thread = |test| {
        cargo_test(
            copy,
            &["private-alloc"],
            &["--test", test, "--", "--test-threads=1"],
        )
    };
    time(one_thread("trivial"));
    let mut times = Times::default();
    for _ in 0..ROUNDS {
        times.add("trivial", time(one_thread("trivial")));
        times.add("plain", time(one_thread("empty")));
    }
    let each = times
        .median("trivial")
        .saturating_sub(times.median("plain"))
        / CASES;
    println!(
        "what the judge adds to a trivial case, traced: {:.2} ms (goal 2.00)",
        ms(each)
    );
}

/// Measures the time from a change on the disk to the event in the browser.
fn page(copy: &Copy) {
    time({
        let mut command = copy.command(env!("CARGO"));
        command.args(["build", "-q", "-p", "reader", "--target-dir"]);
        command.arg(course::cargo::separate_target(
            &course::root::find().expect("a clone"),
        ));
        command
            .arg("--manifest-path")
            .arg(course::cargo::second_workspace(&copy.root));
        command
    });
    let mut live = Live::serve(copy);
    let mut times = Times::default();
    for round in 0..ROUNDS {
        times.add("page", live.time_of_page(round));
        times.add("verdict", live.time_of_verdict(round));
    }
    println!("the live book, medians of {ROUNDS}:");
    line(
        "edit of a page to the browser's event",
        times.median("page"),
        None,
    );
    line(
        "recorded verdict to the browser's event",
        times.median("verdict"),
        None,
    );
    println!(
        "  (the server waits 50 ms for the end of an edit, and polls for verdicts every 100 ms)"
    );
}

/// Measures what a reader waits for on a fresh clone, in processor time: half of it on two idle cores.
fn first_use(copy: &Copy) {
    println!("the first build, processor time:");
    for (package, what, goal) in [
        (
            "preprocessor",
            "of the preprocessor, for mdbook serve",
            30.0,
        ),
        ("drill", "of the drill", 120.0),
    ] {
        let target = tempfile::tempdir().expect("a folder");
        let mut command = copy.command(env!("CARGO"));
        command
            .args(["build", "-q", "--package", package, "--manifest-path"])
            .arg(course::cargo::second_workspace(&copy.root))
            .arg("--target-dir")
            .arg(target.path());
        let before = processor_time();
        time(command);
        let taken = processor_time() - before;
        println!("  {what:<46} {taken:>5.1} s (goal {goal:.0})");
    }
}

/// Returns the processor time of all processes that were started here and have ended, in seconds.
fn processor_time() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("the usage");
    let seconds = |time: TimeVal| time.num_microseconds() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}

/// Adds two test targets to the exercise: an empty test, and many trivial cases.
fn add_tests(copy: &Copy) {
    let folder = copy.root.join("exercises/private-alloc");
    let manifest = folder.join("Cargo.toml");
    let mut text = fs::read_to_string(&manifest).expect("a manifest");
    for name in ["empty", "trivial"] {
        text += &format!("\n[[test]]\nname = \"{name}\"\npath = \"{name}.rs\"\n");
    }
    fs::write(&manifest, text).expect("the copy can be changed");
    fs::write(folder.join("empty.rs"), "#[test]\nfn empty() {}\n")
        .expect("the copy can be changed");
    let mut cases = String::new();
    for number in 0..CASES {
        cases += &format!("#[test]\nfn case_{number}() {{\n    judge::case(|| ())\n}}\n");
    }
    fs::write(folder.join("trivial.rs"), cases).expect("the copy can be changed");
}

fn workbook(copy: &Copy, arguments: &[&str]) -> Command {
    let mut command = copy.command(env!("CARGO_BIN_EXE_workbook"));
    command.args(arguments);
    command
}

fn time(mut command: Command) -> Duration {
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let begun = Instant::now();
    let output = command.output().expect("the command starts");
    let taken = begun.elapsed();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
    taken
}

/// Measured times by name.
#[derive(Default)]
struct Times(Vec<(&'static str, Duration)>);

impl Times {
    fn add(&mut self, what: &'static str, time: Duration) {
        self.0.push((what, time));
    }

    fn median(&self, what: &str) -> Duration {
        let times = self.0.iter().filter(|(name, _)| *name == what);
        let mut times: Vec<_> = times.map(|(_, time)| *time).collect();
        times.sort();
        times[times.len() / 2]
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Prints a time, and its ratio to another time with the goal for it.
fn line(what: &str, time: Duration, base: Option<(Duration, f64)>) {
    let ratio = base.map_or(String::new(), |(base, goal)| {
        format!("   {:.2} (goal {goal:.2})", ms(time) / ms(base))
    });
    println!("  {what:<46} {:>5.0} ms{ratio}", ms(time));
}
