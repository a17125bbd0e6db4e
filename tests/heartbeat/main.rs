//! Measures the time from a save to its verdicts, and from an edit of a page to the browser, as ratios of medians of
//! alternating runs.
//!
//! `cargo test --test heartbeat` prints each figure with its goal and that of the last measurement, and appends the
//! figures to `.workbook/heartbeat.jsonl`. Nothing is asserted: times are not verdicts. `cargo test --test heartbeat -- 3`
//! measures three rounds in place of eleven, and no first build.

#[path = "../copy/mod.rs"]
mod copy;
mod figures;
mod live;
mod watching;

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use copy::Copy;
use figures::Figures;
use live::Live;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};
use watching::Watching;

const ROUNDS: usize = 11;
/// The number of cases in the file that measures the cost of a case.
const CASES: u32 = 100;

fn main() {
    let few = std::env::args().nth(1);
    let few = few.map(|rounds| rounds.parse().expect("the number of rounds"));
    let rounds = few.unwrap_or(ROUNDS);
    let copy = Copy::make("bench");
    add_tests(&copy);
    // Everything is solved, so `cargo test` succeeds and `watch` stays with one exercise.
    let exercises = course::exercise::Exercise::all(&copy.root).expect("exercises");
    for exercise in &exercises {
        fs::copy(exercise.solution(), exercise.answer()).expect("a solution");
    }
    let root = course::root::find().expect("a clone");
    let mut figures = Figures::new(root.join(".workbook/heartbeat.jsonl"));
    after_a_save(&copy, rounds, &mut figures);
    all_exercises(&copy, &mut figures);
    one_case(&copy, rounds, &mut figures);
    page(&copy, rounds, &mut figures);
    if few.is_none() {
        first_use(&copy, &mut figures);
    }
    figures.save();
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
fn after_a_save(copy: &Copy, rounds: usize, figures: &mut Figures) {
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
    for _ in 0..rounds {
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

    let bare = times.median("bare");
    println!(
        "from a save to its verdicts, medians of {rounds} runs each, relative to an empty test:"
    );
    figures.time("cargo test, an empty test in the same crate", bare);
    for (what, name, goal) in [
        ("watched stages", "watch, behaviour", 1.25),
        ("watched", "watch, all", 1.5),
        ("grade", "workbook grade", 1.5),
        ("behaviour", "cargo test, behaviour", 2.0),
        // `cargo test` compiles the compile-fail cases with trybuild.
        ("all", "cargo test, all", 2.5),
    ] {
        figures.ratio(name, times.median(what), bare, goal);
    }
    println!("  (watch waits 20 ms for the end of a save)");
}

/// Grades all exercises, which are built already.
fn all_exercises(copy: &Copy, figures: &mut Figures) {
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
    figures.time("cargo test of the same graders", plain);
    figures.ratio("workbook grade", times.median("grade"), plain, 1.0);
}

/// Measures what the judge adds to a trivial case.
fn one_case(copy: &Copy, rounds: usize, figures: &mut Figures) {
    let one_thread = |test| {
        cargo_test(
            copy,
            &["private-alloc"],
            &["--test", test, "--", "--test-threads=1"],
        )
    };
    time(one_thread("trivial"));
    let mut times = Times::default();
    for _ in 0..rounds {
        times.add("trivial", time(one_thread("trivial")));
        times.add("plain", time(one_thread("empty")));
    }
    let each = times
        .median("trivial")
        .saturating_sub(times.median("plain"))
        / CASES;
    println!("one case, the mean of {CASES}:");
    figures.amount("what the judge adds to a trivial case", ms(each), "ms", 1.2);
}

/// Measures the time from a change on the disk to the event in the browser.
fn page(copy: &Copy, rounds: usize, figures: &mut Figures) {
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
    for round in 0..rounds {
        times.add("page", live.time_of_page(round));
        times.add("verdict", live.time_of_verdict(round));
    }
    println!("the live book, medians of {rounds}:");
    figures.time(
        "edit of a page to the browser's event",
        times.median("page"),
    );
    figures.time(
        "recorded verdict to the browser's event",
        times.median("verdict"),
    );
    println!(
        "  (the server waits 50 ms for the end of an edit, and polls for verdicts every 100 ms)"
    );
}

/// Measures what a reader waits for on a fresh clone, in processor time: half of it on two idle cores.
fn first_use(copy: &Copy, figures: &mut Figures) {
    println!("the first build, processor time:");
    let first = copy.root.join("Cargo.toml");
    let second = course::cargo::second_workspace(&copy.root);
    for (manifest, targets, what, goal) in [
        (
            &first,
            "-p workbook --bin workbook -p private-alloc --test grader",
            "of the command and the first grader",
            40.0,
        ),
        (
            &second,
            "-p preprocessor",
            "of the preprocessor, for mdbook serve",
            30.0,
        ),
        (&second, "-p drill", "of the drill", 120.0),
    ] {
        let target = tempfile::tempdir().expect("a folder");
        let mut command = copy.command(env!("CARGO"));
        command
            .args(["build", "-q"])
            .args(targets.split(' '))
            .arg("--manifest-path")
            .arg(manifest)
            .arg("--target-dir")
            .arg(target.path());
        let before = processor_time();
        time(command);
        let taken = processor_time() - before;
        figures.amount(what, taken, "s", goal);
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
