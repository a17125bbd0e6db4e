//! Grades mutants of the solutions: copies with one small change each. A grader must fail each of them, except those
//! that behave like the solution.
//!
//! `cargo test --test mutants` grades all of them, and `EXERCISE=private-alloc cargo test --test mutants` those of one
//! exercise. `cargo test --test mutants -- 60 SEED` grades a sample of 60, which the seed determines, and
//! `cargo test --test mutants -- Heap::trim` those whose description contains the text.
//!
//! `crates/mutants` makes the mutants. The equivalent ones are listed in `tests/mutants/EXERCISE.toml`.

mod workers;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Mutex;

use anyhow::{Context, Result, bail, ensure};
use course::cargo;
use course::exercise::{Exercise, Stage};
use course::log::Verdict;
use serde::Deserialize;
use similar::TextDiff;
use workbook::grade::grader::{Case, Grader, Stop};
use workbook::grade::slot::Slot;
use workers::Workers;

/// The largest share of equivalent mutants, in percent. Operators with more of them are not worth the time.
const MOST_EQUIVALENT: usize = 15;

/// A mutant as `crates/mutants` prints it.
#[derive(Debug, Clone, Deserialize)]
struct Mutant {
    function: String,
    change: String,
    /// The bytes of the solution that `text` replaces.
    range: Range<usize>,
    text: String,
}

/// Mutants of one function that behave like the solution in everything that a task asks for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Equivalent {
    function: String,
    changes: Vec<String>,
    reason: String,
}

/// Function and change.
type Key = (String, String);

/// The mutants of an exercise's solution.
struct Mutants {
    exercise: Exercise,
    solution: String,
    all: Vec<Mutant>,
    equivalent: BTreeSet<Key>,
}

/// What became of a mutant.
#[derive(Debug)]
enum Outcome {
    DoesNotBuild,
    Killed { case: String, sentence: String },
    Survived,
    NotGraded(String),
}

impl Outcome {
    fn name(&self) -> &'static str {
        match self {
            Outcome::DoesNotBuild => "do not build",
            Outcome::Killed { .. } => "killed",
            Outcome::Survived => "survived",
            Outcome::NotGraded(_) => "not graded",
        }
    }

    fn explain(&self) -> String {
        match self {
            Outcome::DoesNotBuild => "does not build".to_owned(),
            Outcome::Killed { case, sentence } => format!("{case}: {sentence}"),
            Outcome::Survived => "survives".to_owned(),
            Outcome::NotGraded(why) => format!("could not grade: {why}"),
        }
    }
}

/// The outcomes so far.
struct Report {
    file: File,
    counts: BTreeMap<&'static str, usize>,
    problems: usize,
}

impl Report {
    fn add(&mut self, mutant: &str, outcome: &'static str, line: &str) -> io::Result<()> {
        *self.counts.entry(outcome).or_default() += 1;
        writeln!(self.file, "{mutant}\n  {line}")
    }
}

fn main() -> Result<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    let chosen = arguments.next();
    let seed = arguments.next().unwrap_or_default();
    let root = course::root::find()?;
    let target = cargo::separate_target(&root);
    let built = cargo::build_program(&root, &target, "mutants", || {
        say("building crates/mutants");
    });
    let program = built?.context("crates/mutants does not build")?;
    let mut all = Vec::new();
    for exercise in Exercise::all(&root)? {
        let name = exercise.name.clone();
        all.push(Mutants::of(exercise, &program).with_context(|| name)?);
    }
    check_share(&all)?;
    if let Ok(name) = std::env::var("EXERCISE") {
        let exercise = Exercise::find(&root, &name)?;
        all.retain(|mutants| mutants.exercise.name == exercise.name);
    }
    match chosen.as_deref().map(str::parse) {
        None => {}
        Some(Ok(size)) => choose(&mut all, size, &seed),
        Some(Err(_)) => {
            let part = chosen.unwrap_or_default();
            for mutants in &mut all {
                let is_chosen = |mutant: &Mutant| mutant.describe().contains(&part);
                mutants.all.retain(is_chosen);
            }
        }
    }
    let mut problems = 0;
    for mutants in &all {
        let name = &mutants.exercise.name;
        problems += mutants.examine().with_context(|| name.clone())?;
    }
    Ok(match problems {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

fn say(line: &str) {
    let _ = writeln!(io::stderr(), "mutants: {line}");
}

fn check_share(all: &[Mutants]) -> Result<()> {
    let count: usize = all.iter().map(|mutants| mutants.all.len()).sum();
    let equivalent: usize = all.iter().map(|mutants| mutants.equivalent.len()).sum();
    ensure!(
        100 * equivalent <= MOST_EQUIVALENT * count,
        "{equivalent} of {count} mutants are listed as equivalent, which is more than {MOST_EQUIVALENT} %"
    );
    Ok(())
}

/// Keeps `size` mutants of all exercises, which the seed determines.
fn choose(all: &mut [Mutants], size: usize, seed: &str) {
    let hash = |name: &str, mutant: &Mutant| {
        let text = format!("{seed} {name} {} {}", mutant.function, mutant.change);
        // FNV-1a.
        text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        })
    };
    let mut hashes = Vec::new();
    for mutants in all.iter() {
        let name = &mutants.exercise.name;
        hashes.extend(mutants.all.iter().map(|mutant| hash(name, mutant)));
    }
    hashes.sort_unstable();
    say(&format!(
        "a sample of {size} of {}, seed {seed:?}",
        hashes.len()
    ));
    let chosen = BTreeSet::from_iter(hashes.into_iter().take(size));
    for mutants in all {
        let name = mutants.exercise.name.clone();
        mutants
            .all
            .retain(|mutant| chosen.contains(&hash(&name, mutant)));
    }
}

impl Mutant {
    fn key(&self) -> Key {
        (self.function.clone(), self.change.clone())
    }

    fn describe(&self) -> String {
        format!("{}: {}", self.function, self.change)
    }
}

impl Mutants {
    fn of(exercise: Exercise, program: &Path) -> Result<Mutants> {
        let printed = Command::new(program).arg(exercise.solution()).output()?;
        let errors = String::from_utf8_lossy(&printed.stderr);
        ensure!(printed.status.success(), "{errors}");
        let all: Vec<Mutant> = serde_json::from_slice(&printed.stdout)?;
        let equivalent = equivalent(&exercise)?;
        let known: BTreeSet<_> = all.iter().map(Mutant::key).collect();
        for key @ (function, change) in &equivalent {
            ensure!(
                known.contains(key),
                "tests/mutants/{}.toml lists a mutant that there is not: {function}: {change}",
                exercise.name
            );
        }
        Ok(Mutants {
            solution: fs::read_to_string(exercise.solution())?,
            exercise,
            all,
            equivalent,
        })
    }

    fn source(&self, mutant: &Mutant) -> String {
        let mut source = self.solution.clone();
        source.replace_range(mutant.range.clone(), &mutant.text);
        source
    }

    /// Grades the mutants, prints what is wrong, and returns the number of problems.
    fn examine(&self) -> Result<usize> {
        if self.all.is_empty() {
            return Ok(0);
        }
        let name = &self.exercise.name;
        let workers = Workers::new(&self.exercise, &self.solution)?;
        if let Some(why) = self.skipped(&workers.slots[0])? {
            // In CI nothing may be skipped because a tool or a permission is missing.
            ensure!(std::env::var_os("CI").is_none(), "{why}");
            say(&format!("{name}: skipped: {why}"));
            return Ok(0);
        }
        let folder = cargo::target(&self.exercise.root)?.join("mutants");
        fs::create_dir_all(&folder)?;
        let path = folder.join(format!("{name}.txt"));
        let report = Mutex::new(Report {
            file: File::create(&path)?,
            counts: BTreeMap::new(),
            problems: 0,
        });
        // The case that has failed the last mutant of each function. It often fails the next one.
        let killers = Mutex::new(BTreeMap::<String, String>::new());
        workers.grade_each(&self.all, |mutant, slot| {
            let killer = killers.lock().unwrap().get(&mutant.function).cloned();
            let outcome = self.grade(&self.source(mutant), slot, killer)?;
            if let Outcome::Killed { case, .. } = &outcome {
                let mut killers = killers.lock().unwrap();
                killers.insert(mutant.function.clone(), case.clone());
            }
            let mut report = report.lock().unwrap();
            let problem = self.problem(mutant, &outcome);
            let count = match outcome {
                Outcome::Survived if problem.is_none() => "equivalent",
                _ => outcome.name(),
            };
            report.add(&mutant.describe(), count, &outcome.explain())?;
            if let Some(problem) = problem {
                eprintln!("\n{problem}");
                report.problems += 1;
            }
            let done: usize = report.counts.values().sum();
            if done.is_multiple_of(50) {
                say(&format!("{name}: {done} of {} graded", self.all.len()));
            }
            Ok(())
        })?;
        let report = report.into_inner().unwrap();
        let counts = report.counts.iter();
        let counts: Vec<_> = counts
            .map(|(what, count)| format!("{count} {what}"))
            .collect();
        say(&format!(
            "{name}: of {} mutants, {}; {} is the whole list",
            self.all.len(),
            counts.join(", "),
            path.display()
        ));
        Ok(report.problems)
    }

    /// Grades a mutant with the case `first`, and then, unless it fails, with all cases.
    fn grade(&self, mutant: &str, slot: &Slot, first: Option<String>) -> Result<Outcome> {
        if let Some(case) = first
            && let Some((stage, _)) = case.split_once("::")
            && let Ok(grader) = slot.compile_case(mutant, &case)?
        {
            let cases = BTreeSet::from([case.clone()]);
            let outcome = until_one_fails(|stop, each| grader.run_stage(stage, cases, stop, each))?;
            if !matches!(outcome, Outcome::Survived) {
                return Ok(outcome);
            }
        }
        match slot.compile_change(mutant)? {
            Ok(grader) => grade_all(&self.exercise, &grader),
            Err(_) => Ok(Outcome::DoesNotBuild),
        }
    }

    /// Returns what is wrong with an outcome.
    fn problem(&self, mutant: &Mutant, outcome: &Outcome) -> Option<String> {
        let described = mutant.describe();
        let is_equivalent = self.equivalent.contains(&mutant.key());
        match outcome {
            Outcome::Killed { .. } if is_equivalent => Some(format!(
                "listed as equivalent, but {}: {described}",
                outcome.explain()
            )),
            Outcome::Survived if !is_equivalent => {
                Some(format!("survives: {described}\n{}", self.diff(mutant)))
            }
            Outcome::NotGraded(why) => Some(format!("could not grade: {described}\n{why}")),
            _ => None,
        }
    }

    /// Grades the solution, which must pass. Returns why this machine cannot grade it completely, if it cannot.
    fn skipped(&self, slot: &Slot) -> Result<Option<String>> {
        let grader = slot.compile_change(&self.solution)?;
        let grader = grader.map_err(anyhow::Error::msg)?;
        let mut cases = Vec::new();
        grader.run(|case| cases.push(case))?;
        for case in cases {
            let sentence = case.sentence.unwrap_or_default();
            match case.verdict {
                Verdict::Passed => {}
                Verdict::Skipped => return Ok(Some(sentence)),
                _ => bail!("the solution fails {}: {sentence}", case.name),
            }
        }
        Ok(None)
    }

    fn diff(&self, mutant: &Mutant) -> String {
        let source = self.source(mutant);
        let diff = TextDiff::from_lines(&self.solution, &source);
        diff.unified_diff().context_radius(2).to_string()
    }
}

/// Runs the cases until one fails, the stages in the order in which a learner solves them.
fn grade_all(exercise: &Exercise, grader: &Grader) -> Result<Outcome> {
    let cases = grader.cases()?;
    let of_stage = |stage: &Stage| {
        let prefix = format!("{}::", stage.name);
        let cases = cases.iter().filter(|case| case.starts_with(&prefix));
        (stage.name.clone(), cases.cloned().collect())
    };
    for (stage, cases) in exercise.about.stages.iter().map(of_stage) {
        let outcome = until_one_fails(|stop, each| grader.run_stage(&stage, cases, stop, each))?;
        if !matches!(outcome, Outcome::Survived) {
            return Ok(outcome);
        }
    }
    Ok(Outcome::Survived)
}

fn until_one_fails(run: impl FnOnce(&Stop, &mut dyn FnMut(Case)) -> Result<()>) -> Result<Outcome> {
    let stop = Stop::default();
    let mut outcome = Outcome::Survived;
    let ran = run(&stop, &mut |case| {
        if case.verdict == Verdict::Passed || !matches!(outcome, Outcome::Survived) {
            return;
        }
        let sentence = case.sentence.clone().unwrap_or_default();
        outcome = match case.could_not_be_graded() {
            true => Outcome::NotGraded(format!("{}: {sentence}", case.name)),
            false => Outcome::Killed {
                case: case.name,
                sentence,
            },
        };
        stop.stop();
    });
    match outcome {
        Outcome::Survived => ran.map(|()| outcome),
        // The run was stopped.
        _ => Ok(outcome),
    }
}

/// Reads the list of equivalent mutants.
fn equivalent(exercise: &Exercise) -> Result<BTreeSet<Key>> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct List {
        #[serde(default)]
        equivalent: Vec<Equivalent>,
    }
    let path = format!("tests/mutants/{}.toml", exercise.name);
    let text = fs::read_to_string(exercise.root.join(&path)).unwrap_or_default();
    let list: List = toml::from_str(&text).with_context(|| path.clone())?;
    let mut keys = BTreeSet::new();
    for entry in list.equivalent {
        ensure!(
            !entry.reason.trim().is_empty(),
            "{path}: {} has no reason",
            entry.function
        );
        for change in entry.changes {
            let key = (entry.function.clone(), change);
            ensure!(!keys.contains(&key), "{path} lists twice: {key:?}");
            keys.insert(key);
        }
    }
    Ok(keys)
}
