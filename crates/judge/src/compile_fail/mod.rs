//! Grades code that must not compile, after the legal twin of each case has run.
//!
//! If the compiler's messages point only into the case, trybuild compares them as text. If they quote the answer's
//! source, they differ from answer to answer. Such a case marks the line that the compiler must reject, and the
//! expected errors: `//~ E0277 E0599`.
//!
//! The `workbook` command compiles the cases itself and passes on the results that are clear.

mod bounded;
mod by_code;
mod by_command;
mod by_text;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::injection::Run;
use crate::limits::Limits;
use crate::role::{self, Role};
use crate::supervise::Finished;
use crate::verdict::report::Outcome;
use crate::verdict::{Failure, Verdict, sentence};
use crate::{answer, child, supervise};

/// The folder of the cases, relative to the exercise.
const CASES: &str = "tests/grader/compile_fail";

/// The legal twin of a case: the case's name, and the twin's `main`.
pub type Twin = (&'static str, fn());

/// The whole body of the test `compile_fail::<stage>` of `package`: grades each case of `compile_fail/<stage>/`.
///
/// # Panics
/// If a case did not pass. If `twins` and the folder do not hold the same cases, or none.
pub fn stage(package: &str, stage: &str, twins: &[Twin]) {
    let test = format!("compile_fail::{stage}");
    if by_text::run_if_requested(&test) {
        return;
    }
    for (name, twin) in twins {
        match role::of(&format!("{stage}::{name}")) {
            Role::Child { channel } => child::run(channel, None, &mut || twin()),
            Role::Inline => twin(),
            Role::Judge { .. } => {}
        }
    }
    if role::is_child() || role::inline() {
        return;
    }
    let root = env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    let root = Path::new(&root);
    let folder = root.join(CASES).join(stage);
    let named = twins.iter().map(|(name, _)| (*name).to_owned()).collect();
    if let Err(error) = same_cases(&folder, named) {
        panic!("{error}");
    }
    if let Some(verdict) = answer::stale() {
        for (name, _) in twins {
            let (case, outcome) = (format!("{stage}::{name}"), Outcome::of(verdict.clone()));
            outcome.record(&case);
            outcome.print(&case);
        }
        std::panic::resume_unwind(Box::new(()));
    }
    let ran: Vec<(&str, Finished)> = twins
        .iter()
        .map(|(name, _)| {
            let finished = supervise::run(
                &test,
                &format!("{stage}::{name}"),
                &Limits::default(),
                Run::Plain,
            );
            (*name, finished)
        })
        .collect();
    let mut results = compile(root, package, &test, &folder, &ran);
    let mut passed = true;
    let mut printed = BTreeSet::new();
    for (name, twin) in ran {
        let case = format!("{stage}::{name}");
        let compile_result = results.remove(name);
        let mut outcome = outcome(twin, compile_result, || Case::read(&folder, name).lesson);
        outcome.verdict = answer::unchanged::verdict(&case, outcome.verdict);
        outcome.record(&case);
        if printed.insert(outcome.sentence()) {
            outcome.print(&case);
        }
        passed &= !outcome.fails_the_test();
    }
    if !passed {
        std::panic::resume_unwind(Box::new(()));
    }
}

/// Compiles the cases whose twins passed; the compiler takes seconds if its cache is cold.
fn compile(
    root: &Path,
    package: &str,
    test: &str,
    folder: &Path,
    ran: &[(&str, Finished)],
) -> BTreeMap<String, CompileResult> {
    let ready = ran
        .iter()
        .filter(|(_, twin)| twin.verdict == Verdict::Passed)
        .map(|(name, _)| (*name).to_owned());
    let stage = test.trim_start_matches("compile_fail::");
    let mut results = by_command::results(stage);
    let ready = ready.filter(|name| !results.contains_key(name));
    let ready = ready.map(|name| Case::read(folder, &name));
    let (coded, texts): (Vec<_>, Vec<_>) = ready.partition(|case| case.marked.is_some());
    results.extend(by_text::compile(test, &texts));
    results.extend(by_code::compile(root, package, &coded));
    results
}

/// Combines the results of the twin and of the compiler, if it was run.
fn outcome(
    twin: Finished,
    compile_result: Option<CompileResult>,
    lesson: impl Fn() -> String,
) -> Outcome {
    let verdict = match (twin.verdict.under(twin.shortage.as_deref()), compile_result) {
        (Verdict::Passed, Some(compile_result)) => compile_result.verdict(lesson()),
        (Verdict::Passed, None) => {
            Verdict::Failed(Failure::Grader("the compiler was not asked".to_owned()))
        }
        (Verdict::Failed(failure), _) if !matches!(failure, Failure::Grader(_)) => {
            let sentence = sentence::sentence(&Verdict::Failed(failure));
            Verdict::Failed(Failure::Twin(sentence.unwrap_or_default()))
        }
        (other, _) => other,
    };
    // What a twin prints that works has nothing to do with a failure.
    let output = match verdict {
        Verdict::Failed(Failure::Compiled(_) | Failure::OtherError(_)) => Vec::new(),
        _ => twin.output,
    };
    Outcome {
        verdict,
        output,
        transcript: None,
        diff: None,
    }
}

/// Returns an error unless `named` are the cases in `folder`, and there is one: a case that is not named would never be
/// graded.
fn same_cases(folder: &Path, named: BTreeSet<String>) -> io::Result<()> {
    let mut cases = BTreeSet::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs")
            && let Some(name) = path.file_stem()
        {
            cases.insert(name.to_string_lossy().into_owned());
        }
    }
    let folder = folder.display();
    if cases.is_empty() {
        return Err(io::Error::other(format!("{folder} has no case")));
    }
    if cases != named {
        let error = format!("{folder} has the cases {cases:?}, but the grader names {named:?}");
        return Err(io::Error::other(error));
    }
    Ok(())
}

/// A case, as read from its file.
struct Case {
    name: String,
    path: PathBuf,
    /// The lesson in its first line, `//! A view outlives its region.`, as the end of a sentence.
    lesson: String,
    /// The number of the line, from 1, that must be rejected, and the expected errors, if the case marks them.
    marked: Option<(usize, Vec<String>)>,
}

impl Case {
    fn read(folder: &Path, name: &str) -> Case {
        let path = folder.join(name).with_extension("rs");
        let text = fs::read_to_string(&path).expect("a case that its folder lists can be read");
        let first = text
            .lines()
            .next()
            .and_then(|line| line.strip_prefix("//! "));
        let first = first.expect("the first line of a case, after //!, is its lesson");
        let (letter, rest) = first.split_at(1);
        let marked = text.lines().zip(1..).find_map(|(line, number)| {
            let (_, codes) = line.split_once("//~ ")?;
            let codes = codes.split_whitespace().map(str::to_owned);
            Some((number, codes.collect()))
        });
        Case {
            name: name.to_owned(),
            path,
            lesson: letter.to_lowercase() + rest,
            marked,
        }
    }
}

/// The compiler's answer to one case.
#[derive(Debug, Clone, PartialEq)]
enum CompileResult {
    /// It rejected the case for the intended reason.
    Rejected,
    /// It accepted the case.
    Accepted,
    /// It rejected the case for another reason.
    OtherReason,
    /// It did not check the case, for this reason.
    NotChecked(String),
}

impl CompileResult {
    fn verdict(self, lesson: String) -> Verdict {
        Verdict::Failed(match self {
            CompileResult::Rejected => return Verdict::Passed,
            CompileResult::Accepted => Failure::Compiled(lesson),
            CompileResult::OtherReason => Failure::OtherError(lesson),
            CompileResult::NotChecked(why) => Failure::Grader(why),
        })
    }
}

/// Declares for each stage the test `compile_fail::<stage>` with its cases: `compile_fail! { views: two_writers, … }`.
///
/// Stages are separated by a semicolon. Each case `NAME` is the file `compile_fail/<stage>/NAME.rs` beside the grader;
/// its legal twin, `compile_fail/<stage>/legal/NAME.rs`, is compiled into the grader.
#[macro_export]
macro_rules! compile_fail {
    ($($stage:ident: $($case:ident),+ $(,)?);+ $(;)?) => {
        mod compile_fail {
            $(
                mod $stage {
                    $(
                        pub mod $case {
                            include!(concat!(
                                "compile_fail/", stringify!($stage), "/legal/", stringify!($case), ".rs"
                            ));
                            pub fn run() {
                                main()
                            }
                        }
                    )+
                }

                #[test]
                fn $stage() {
                    $crate::compile_fail::stage(
                        env!("CARGO_PKG_NAME"),
                        stringify!($stage),
                        &[$((stringify!($case), $stage::$case::run as fn())),+],
                    );
                }
            )+
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_must_hold_the_cases_that_the_grader_names() {
        let folder = tempfile::tempdir().unwrap();
        let named = |names: &[&str]| {
            let names = names.iter().map(|name| (*name).to_owned());
            same_cases(folder.path(), names.collect())
        };
        assert!(named(&[]).is_err(), "no case");
        fs::write(folder.path().join("a.rs"), "").unwrap();
        fs::write(folder.path().join("a.stderr"), "").unwrap();
        assert!(named(&["a"]).is_ok());
        assert!(named(&["a", "b"]).is_err(), "a named case without a file");
        fs::write(folder.path().join("c.rs"), "").unwrap();
        assert!(named(&["a"]).is_err(), "a file that is not named");
    }
}
