//! The exam of the graders: they grade the stub, the solution, right answers and wrong answers, and must distinguish
//! them.
//!
//! Each wrong answer is a patch to the solution. Its header describes the mistake and names the case that must catch
//! it, with its sentence. To save time, the answer is compiled with a copy of the grader that has only this case.
//!
//! The table of all answers is the snapshot `snapshots/exam__EXERCISE.snap`.
//!
//! All answers take several minutes, so a plain `cargo test` grades a sample. CI grades all of them, and so does
//! `EXERCISE=NAME cargo test --test exam` for one exercise.

mod answers;
mod workers;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Mutex;

use answers::{Answer, Expected};
use anyhow::{Context, Result, ensure};
use course::exercise::Exercise;
use course::log::Verdict;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};
use similar::TextDiff;
use workbook::grade::grader::{Case, Grader, Stop};
use workers::Workers;

/// Grades the answers to every exercise, or to the one that `EXERCISE` names.
#[test]
fn every_answer_gets_its_verdict() -> Result<()> {
    let root = course::root::find()?;
    let exercises = match std::env::var("EXERCISE") {
        Ok(name) => vec![Exercise::find(&root, &name)?],
        Err(_) => Exercise::all(&root)?,
    };
    let only_a_sample = ["EXERCISE", "CI"]
        .iter()
        .all(|name| std::env::var_os(name).is_none());
    let mut problems = Vec::new();
    for exercise in &exercises {
        let problem = exam(exercise, only_a_sample).with_context(|| exercise.name.clone())?;
        problems.extend(problem);
    }
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
    Ok(())
}

/// Returns everything that differs from what is expected of the exercise's answers.
fn exam(exercise: &Exercise, only_a_sample: bool) -> Result<Vec<String>> {
    let name = &exercise.name;
    let mut answers = answers::answers(exercise)?;
    if only_a_sample {
        let all = answers.len();
        answers = sample(answers);
        say(&format!(
            "{name}: {} of {all} answers, a sample. To grade all: EXERCISE={name} cargo test --test exam",
            answers.len()
        ));
    } else {
        say(&format!("{name}: {} answers", answers.len()));
    }
    let before = processor_time()?;
    let graded = grade(exercise, &answers)?;
    let each = (processor_time()? - before) / answers.len() as f64;
    say(&format!(
        "{name}: {each:.2} s of processor time for each answer (goal {GOAL:.2})"
    ));
    if let Some(why) = skipped(&graded["solution"]) {
        // In CI nothing may be skipped because a tool or a permission is missing.
        assert!(std::env::var_os("CI").is_none(), "{why}");
        say(&format!("{name}: skipped: {why}"));
        return Ok(Vec::new());
    }
    let problems: Vec<_> = answers
        .iter()
        .filter_map(|answer| {
            let problem = examine(exercise, answer, &graded[&answer.name])?;
            Some(format!("{}: {problem}", answer.name))
        })
        .collect();
    if only_a_sample || !problems.is_empty() {
        return Ok(problems);
    }
    let root = course::root::find()?;
    let snapshot = root.join(format!("tests/snapshots/exam__{name}.snap"));
    let mut differences = vec![difference(&snapshot, &table(&answers, &graded))];
    // On other architectures a mutex has another size, and so have the mappings.
    if cfg!(target_arch = "x86_64") {
        let calls = calls(&graded["solution"]);
        differences.push(difference(&exercise.solution_calls(), &calls));
    }
    Ok(differences.into_iter().flatten().collect())
}

/// Returns stub, solution, and the first of every six other answers: of the right ones, and of the wrong ones that each
/// stage must catch.
fn sample(answers: Vec<Answer>) -> Vec<Answer> {
    const EVERY: usize = 6;
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut is_chosen = |answer: &Answer| {
        let group = match &answer.expected {
            Expected::NotStarted | Expected::Solution => return true,
            Expected::Right => "right",
            Expected::Wrong { caught_by, .. } => caught_by.split("::").next().unwrap_or_default(),
        };
        let seen = seen.entry(group.to_owned()).or_default();
        *seen += 1;
        *seen % EVERY == 1
    };
    answers
        .into_iter()
        .filter(|answer| is_chosen(answer))
        .collect()
}

/// The goal for the average processor time of an answer, in seconds. It is printed and not asserted.
const GOAL: f64 = 0.6;

/// Returns the processor time of all processes that were started here and have ended, in seconds.
fn processor_time() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let seconds = |time: TimeVal| time.num_microseconds() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}

/// Prints progress. libtest does not capture it, so that a skipped exam does not look like a passed one.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "exam of {line}");
}

/// Compares with a snapshot, and returns the difference for a reviewer.
fn difference(snapshot: &Path, text: &str) -> Option<String> {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(snapshot.parent().expect("a file has a parent folder"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let name = snapshot.file_stem().unwrap_or_default().to_string_lossy();
    let compare = || settings.bind(|| insta::assert_snapshot!(&*name, text));
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(compare)).err()?;
    let stored = fs::read_to_string(snapshot).unwrap_or_default();
    // The header ends at the second line of dashes.
    let stored = stored.splitn(3, "---\n").nth(2).unwrap_or_default();
    let diff = TextDiff::from_lines(stored.trim_end(), text.trim_end());
    let diff = diff.unified_diff().context_radius(1).to_string();
    Some(format!(
        "Every answer got the expected verdict, but {} differs. If the difference is intended, `.ci/accept exam` accepts \
         it:\n{diff}",
        snapshot.display()
    ))
}

/// Grades all answers, and returns their cases by the answer's name.
fn grade(exercise: &Exercise, answers: &[Answer]) -> Result<BTreeMap<String, Vec<Case>>> {
    let graded = Mutex::new(BTreeMap::new());
    let solution = &answers
        .iter()
        .find(|one| matches!(one.expected, Expected::Solution));
    let solution = solution.context("no solution")?;
    // At the end: the lines of the solution keep their numbers.
    let first = solution.source.clone() + &needs_of(answers);
    let workers = Workers::new(exercise, &first)?;
    workers.grade_each(answers, |answer, slot| {
        let grader = answer.compile(slot)?;
        let cases = run(&grader, answer)?;
        if std::env::var_os("CI").is_some() && is_about_compiling(&grader, answer, &cases) {
            same_with_trybuild(&grader, &cases).with_context(|| answer.name.clone())?;
        }
        let mut graded = graded.lock().unwrap();
        graded.insert(answer.name.clone(), cases);
        let (done, all) = (graded.len(), answers.len());
        if done % 10 == 0 || done == all {
            say(&format!(
                "{}: {done} of {all} answers graded",
                exercise.name
            ));
        }
        Ok(())
    })?;
    Ok(graded.into_inner().unwrap())
}

/// Returns whether the answer's verdicts depend on what the compiler accepts.
fn is_about_compiling(grader: &Grader, answer: &Answer, cases: &[Case]) -> bool {
    match answer.expected {
        Expected::Solution => true,
        Expected::Wrong { .. } => !grader.compile_fail_among(&names(cases)).is_empty(),
        Expected::NotStarted | Expected::Right => false,
    }
}

fn names(cases: &[Case]) -> BTreeSet<String> {
    cases.iter().map(|case| case.name.clone()).collect()
}

/// Returns an error unless trybuild, which plain `cargo test` uses, leads to the same verdicts on the compile-fail cases.
/// `cases` are the verdicts for which the command has called the compiler itself.
fn same_with_trybuild(grader: &Grader, cases: &[Case]) -> Result<()> {
    let plain = Grader {
        library: None,
        ..grader.clone()
    };
    let mut stages: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for case in plain.compile_fail_among(&names(cases)) {
        let stage = case.split("::").next().unwrap_or_default().to_owned();
        stages.entry(stage).or_default().insert(case);
    }
    let mut verdicts = BTreeMap::new();
    for (stage, names) in &stages {
        plain.run_stage(stage, names.clone(), &Stop::default(), |case| {
            verdicts.insert(case.name.clone(), case);
        })?;
    }
    for name in stages.values().flatten() {
        let case = cases.iter().find(|case| case.name == *name);
        let (case, other) = case.zip(verdicts.get(name)).context("no verdict")?;
        ensure!(
            case.verdict == other.verdict && case.sentence == other.sentence,
            "{name}: rustc leads to {:?}, and trybuild to {:?}",
            (case.verdict, &case.sentence),
            (other.verdict, &other.sentence)
        );
    }
    Ok(())
}

/// The lines of all answers that name further dependencies.
fn needs_of(answers: &[Answer]) -> String {
    let lines = answers.iter().flat_map(|answer| answer.source.lines());
    let needs = lines.filter(|line| line.starts_with("// needs: "));
    needs.map(|line| format!("{line}\n")).collect()
}

fn run(grader: &Grader, answer: &Answer) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    // The learner's file is src/lib.rs.
    let package = grader.package.file_name().unwrap_or_default();
    let file = format!("{}/src/lib.rs", package.display());
    answer.grade(grader, |mut case| {
        case.sentence = case.sentence.map(|text| text.replace(&file, "src/lib.rs"));
        cases.push(case);
    })?;
    cases.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(cases)
}

/// Returns why this machine cannot grade the solution completely, if it cannot.
fn skipped(solution: &[Case]) -> Option<&str> {
    let case = solution
        .iter()
        .find(|case| case.verdict == Verdict::Skipped)?;
    case.sentence.as_deref()
}

/// Returns how the verdicts differ from the expected ones.
fn examine(exercise: &Exercise, answer: &Answer, cases: &[Case]) -> Option<String> {
    let other = |allowed: &dyn Fn(&Case) -> bool| {
        let case = cases.iter().find(|case| !allowed(case))?;
        let sentence = case.sentence.as_deref().unwrap_or("passed");
        Some(format!("{}: {sentence}", case.name))
    };
    let bonus = |case: &Case| {
        let (stage, _) = case.name.split_once("::").unwrap_or_default();
        exercise.stage(stage).is_ok_and(|stage| stage.bonus)
    };
    // The packages of the exam have no metadata, so that a wrong answer may contain code of the stub.
    let until_changed = |case: &Case| {
        let (stage, name) = case.name.split_once("::").unwrap_or_default();
        let stage = exercise.stage(stage);
        stage.is_ok_and(|stage| stage.fails_until_changed.iter().any(|one| one == name))
    };
    let passed = |case: &Case| case.verdict == Verdict::Passed;
    let not_started = |case: &Case| case.verdict == Verdict::NotStarted;
    match &answer.expected {
        Expected::NotStarted => other(&|case| not_started(case) || until_changed(case)),
        Expected::Solution => other(&passed),
        Expected::Right => other(&|case| passed(case) || bonus(case) && not_started(case)),
        Expected::Wrong {
            caught_by,
            sentence,
            ..
        } => match cases.iter().find(|case| case.name == *caught_by) {
            None => Some(format!("there is no case {caught_by}")),
            Some(case) if case.verdict != Verdict::Failed => Some(format!(
                "{caught_by} must catch it, but its verdict is {:?}: {}",
                case.verdict,
                case.sentence.as_deref().unwrap_or("(no sentence)")
            )),
            Some(case) if case.sentence.as_deref() != Some(sentence) => Some(format!(
                "expected the sentence\n  {sentence}\nbut got\n  {}",
                case.sentence.as_deref().unwrap_or_default()
            )),
            Some(_) => None,
        },
    }
}

/// The table of answers and verdicts, for reviewers.
fn table(answers: &[Answer], graded: &BTreeMap<String, Vec<Case>>) -> String {
    let mut text = String::new();
    for answer in answers {
        let cases = &graded[&answer.name];
        let passed = |case: &&Case| case.verdict == Verdict::Passed;
        let passed = cases.iter().filter(passed).count();
        text += &match &answer.expected {
            Expected::NotStarted => {
                format!("{}: {} cases not started\n\n", answer.name, cases.len())
            }
            Expected::Solution | Expected::Right => {
                format!("{}: {passed} of {} passed\n\n", answer.name, cases.len())
            }
            Expected::Wrong {
                wrong,
                caught_by,
                sentence,
            } => format!("{}: {wrong}\n  {caught_by}\n  {sentence}\n\n", answer.name),
        };
    }
    text
}

/// Cases whose calls vary, because they depend on the address that the kernel chooses for a mapping.
const VARYING: [&str; 6] = [
    "c_interface::asks_the_page_size",
    "large::aligned_by_chance",
    "large::mmap_fails",
    "large::munmap_fails",
    "resize::asks_the_page_size",
    "resize::realloc_fails",
];

/// Returns the calls of every watched case.
fn calls(cases: &[Case]) -> String {
    let mut text = String::new();
    for case in cases {
        if let Some(transcript) = &case.transcript
            && !VARYING.contains(&case.name.as_str())
        {
            text += &format!("{}\n{transcript}\n", case.name);
        }
    }
    text
}
