//! `workbook handout`: what students get builds, grades, and shows no solution. Not part of `cargo test`:
//! `cargo test --test handout` grades every stub and every solution in a handout.

#[allow(dead_code, reason = "the handout is made by the command")]
mod copy;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use copy::Copy;
use course::exercise::Exercise;
use serde_json::Value;

/// Three lines of code with fewer letters, spaces not counted, are the same in many programs.
const SAYS_SOMETHING: usize = 75;

const WORKBOOK: &str = env!("CARGO_BIN_EXE_workbook");

fn clone() -> PathBuf {
    course::root::find().expect("the tests run in a clone")
}

/// Makes the handout `.workbook/NAME`. It is in the clone, as [`Copy`] is, to share its target directory.
fn handout(name: &str) -> PathBuf {
    let folder = clone().join(".workbook").join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder).expect("the old handout can be removed");
    }
    let made = output(Command::new(WORKBOOK).arg("handout").arg(&folder));
    assert!(made.contains("no solutions"), "{made}");
    folder
}

fn output(command: &mut Command) -> String {
    let Output { stdout, stderr, .. } = command.output().expect("the command starts");
    String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned()
}

#[test]
fn builds_and_grades_stubs_and_solutions() {
    let copy = Copy::adopt(handout("handout"), "handout");
    // The version has changed, and with it the lock file; no package may.
    let mut command = copy.command("cargo");
    let text = output(command.args(["check", "--quiet", "--offline"]));
    assert_eq!(text, "");
    let exercises = Exercise::all(&copy.root).expect("the handout has exercises");
    assert_eq!(
        exercises.len(),
        Exercise::all(&clone()).expect("exercises").len()
    );
    let grade = |exercise: &Exercise| -> Value {
        let mut command = copy.command(WORKBOOK);
        let text = output(command.args(["grade", "--json", &exercise.name]));
        let document: Value = serde_json::from_str(&text).expect(&text);
        document["exercises"][0].clone()
    };
    for exercise in &exercises {
        let stub = grade(exercise);
        let counts = ["passed", "failed", "skipped"].map(|count| stub[count].as_u64());
        assert_eq!(counts, [Some(0); 3], "{stub:#}");

        let solution = Exercise::find(&clone(), &exercise.name).expect("the same exercise");
        fs::copy(solution.solution(), exercise.answer()).expect("a solution");
        let solved = grade(exercise);
        let counts = ["failed", "not_started"].map(|count| solved[count].as_u64());
        assert_eq!(counts, [Some(0); 2], "{solved:#}");
        assert_ne!(solved["passed"].as_u64(), Some(0), "{solved:#}");
    }
    let mut command = copy.command(WORKBOOK);
    let refused = output(command.args(["solution", "private-alloc", "--spoil"]));
    assert!(refused.contains("has no solutions"), "{refused}");
    let refused = output(copy.command(WORKBOOK).args(["bench", "--solution"]));
    assert!(refused.contains("has no solutions"), "{refused}");
}

/// Three successive lines of code may be in the handout if the student has them anyway: in the stub, a hint, a legal
/// twin, or the shim, which `workbook handout` mentions.
#[test]
fn shows_no_passage_of_a_solution() {
    let folder = handout("handout-read");
    let mut texts = Vec::new();
    read_all(&folder, &mut texts);
    let (mut count, mut shown) = (0, Vec::new());
    for exercise in Exercise::all(&clone()).expect("exercises") {
        let solution = fs::read_to_string(exercise.solution()).expect("a solution");
        let given = given(&exercise);
        // Tests of the judge may import what a solution imports.
        let lines = solution
            .lines()
            .filter(|line| !line.trim_start().starts_with("use "));
        let lines = lines.map(packed);
        let code: Vec<_> = lines
            .filter(|line| !line.is_empty() && !line.starts_with("//"))
            .collect();
        let passages = code.windows(3).map(<[String]>::concat);
        let secret =
            passages.filter(|passage| passage.len() >= SAYS_SOMETHING && !given.contains(passage));
        for passage in secret {
            count += 1;
            let found = texts.iter().find(|(_, text)| text.contains(&passage));
            shown.extend(found.map(|(path, _)| format!("{}: {passage}", path.display())));
        }
    }
    assert!(
        count > 100,
        "the solutions have {count} passages to keep secret"
    );
    assert!(shown.is_empty(), "{}", shown.join("\n"));
}

fn packed(text: &str) -> String {
    text.split_whitespace().collect()
}

/// The stub, the hints, the legal twins and the shim, without spaces.
fn given(exercise: &Exercise) -> String {
    let twins = exercise.grader().join("main.rs");
    // On it, answers without stage 10 of threshold-alloc run real programs.
    let shim = clone().join("crates/preload/src/shim.rs");
    let hints = exercise.folder().join("hints.md");
    let files = [exercise.stub(), hints, twins, shim];
    let read = |path: &PathBuf| fs::read_to_string(path).expect("a file of the exercise");
    packed(&files.iter().map(read).collect::<String>())
}

fn read_all(folder: &Path, texts: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        match path.is_dir() {
            true => read_all(&path, texts),
            false => {
                let bytes = fs::read(&path).expect("a file");
                texts.push((path, packed(&String::from_utf8_lossy(&bytes))));
            }
        }
    }
}
