//! From an edit to its verdict: how much longer than plain cargo, as ratios of medians of runs that take turns.
//!
//! `cargo test --test heartbeat` prints them; nothing is asserted, because a time is no verdict.

#[path = "../copy/mod.rs"]
mod copy;

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use copy::Copy;

const ROUNDS: usize = 11;
/// Cases in the file that measures what a case costs.
const CASES: u32 = 100;

fn main() {
    let copy = Copy::make("bench");
    add_tests(&copy);
    let cargo_test = |arguments: &[&str]| {
        let mut command = copy.command(env!("CARGO"));
        command.args(["test", "-q", "-p", "private-alloc"]);
        command.args(arguments);
        command
    };
    let bare = || cargo_test(&["--test", "empty"]);
    let behaviour = || cargo_test(&["--test", "grader", "--", "--skip", "compile_fail"]);
    let all = || cargo_test(&["--test", "grader"]);
    let grade = || {
        let mut command = copy.command(env!("CARGO_BIN_EXE_workbook"));
        command.args(["grade", "private-alloc"]);
        command
    };
    // Not the first build, but the edit.
    let mut edits = 0;
    let mut after_edit = |command: Command| {
        edits += 1;
        copy.answer(&format!("{}// edit {edits}\n", copy.solution()));
        time(command)
    };
    for command in [bare(), behaviour(), all(), grade()] {
        after_edit(command);
    }
    let [mut of_bare, mut of_behaviour, mut of_all, mut of_grade] = [const { Vec::new() }; 4];
    for _ in 0..ROUNDS {
        of_bare.push(after_edit(bare()));
        of_behaviour.push(after_edit(behaviour()));
        of_all.push(after_edit(all()));
        of_grade.push(after_edit(grade()));
    }
    let [bare, behaviour, all, grade] = [of_bare, of_behaviour, of_all, of_grade].map(median);
    println!("edit to verdict, medians of {ROUNDS} runs each:");
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    let line = |what: &str, time: Duration, over: Duration, goal: f64| {
        println!(
            "  {what:<42} {:>5.0} ms   {:.2} (goal {goal:.2})",
            ms(time),
            ms(time) / ms(over)
        );
    };
    println!(
        "  {:<42} {:>5.0} ms",
        "an empty test in the same crate",
        ms(bare)
    );
    line("the behaviour's verdicts, over that", behaviour, bare, 1.25);
    line("all verdicts, compile-fail included", all, bare, 2.0);
    line("workbook grade, over plain cargo test", grade, all, 1.2);

    let trivial = || cargo_test(&["--test", "trivial", "--", "--test-threads=1"]);
    let plain = || cargo_test(&["--test", "empty", "--", "--test-threads=1"]);
    time(trivial());
    let [mut of_trivial, mut of_plain] = [const { Vec::new() }; 2];
    for _ in 0..ROUNDS {
        of_trivial.push(time(trivial()));
        of_plain.push(time(plain()));
    }
    let each = median(of_trivial).saturating_sub(median(of_plain)) / CASES;
    println!(
        "what the judge adds to a trivial case, traced: {:.2} ms (goal 2.00)",
        ms(each)
    );
}

/// To the exercise's own grader: an empty test, and many trivial cases.
fn add_tests(copy: &Copy) {
    let folder = copy.root.join("exercises/private-alloc");
    let manifest = folder.join("Cargo.toml");
    let mut text = fs::read_to_string(&manifest).expect("a manifest");
    for name in ["empty", "trivial"] {
        text += &format!("\n[[test]]\nname = \"{name}\"\npath = \"{name}.rs\"\n");
    }
    fs::write(&manifest, text).expect("the copy can be changed");
    fs::write(folder.join("empty.rs"), "#[test]\nfn empty() {}\n").expect("as above");
    let mut cases = String::new();
    for number in 0..CASES {
        cases += &format!("#[test]\nfn case_{number}() {{\n    judge::case(|| ())\n}}\n");
    }
    fs::write(folder.join("trivial.rs"), cases).expect("as above");
}

fn time(mut command: Command) -> Duration {
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let begun = Instant::now();
    let output = command.output().expect("the command starts");
    let taken = begun.elapsed();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {words}");
    taken
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
