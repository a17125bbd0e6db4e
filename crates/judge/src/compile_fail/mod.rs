//! Grades the code that must not compile, after each case's legal twin has run.
//!
//! Where the compiler's words point into the case alone they are compared, by trybuild. Where they quote the answer's own
//! source they differ from answer to answer: there the case marks the line that must be refused, and with which errors,
//! `//~ E0277 E0599`.

mod by_code;
mod by_text;

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::limits::Limits;
use crate::protocol;
use crate::role::{self, Role};
use crate::verdict::report::Outcome;
use crate::verdict::sentence;
use crate::verdict::{Failure, Verdict};
use crate::{child, supervise};

/// The folder of the cases, relative to the exercise.
const CASES: &str = "tests/grader/compile_fail";

/// The legal twin of one case: its name and its `main`.
pub type Twin = (&'static str, fn());

/// The whole body of the test `compile_fail::<stage>` of `package`: grades each case of `compile_fail/<stage>/`.
///
/// # Panics
/// If a case did not pass; and if `twins` and the folder do not hold the same cases, or none.
pub fn stage(package: &str, stage: &str, twins: &[Twin]) {
    let test = format!("compile_fail::{stage}");
    if by_text::is_asked(&test) {
        return;
    }
    for (name, twin) in twins {
        match role::role_of(&format!("{stage}::{name}")) {
            Role::Child { nonce } => child::run(&nonce, &mut || twin()),
            Role::Inline => twin(),
            Role::Judge { .. } => {}
        }
    }
    if env::var_os(protocol::CHILD).is_some() || env::var_os("JUDGE_INLINE").is_some() {
        return;
    }
    let root = env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    let root = Path::new(&root);
    let folder = root.join(CASES).join(stage);
    let named = twins.iter().map(|(name, _)| (*name).to_owned()).collect();
    if let Err(error) = same_cases(&folder, named) {
        panic!("{error}");
    }

    let ran: Vec<_> = twins
        .iter()
        .map(|(name, _)| supervise::run(&test, &format!("{stage}::{name}"), &Limits::default()))
        .collect();
    // The compiler takes seconds when it is cold: it is asked only of what is ready to be compiled.
    let ready = twins.iter().zip(&ran);
    let ready = ready.filter(|(_, twin)| twin.verdict == Verdict::Passed);
    let ready = ready.map(|((name, _), _)| Case::read(&folder, name));
    let (coded, texts): (Vec<_>, Vec<_>) = ready.partition(|case| case.marked.is_some());
    let mut said = by_text::ask(&test, &texts);
    said.extend(by_code::ask(root, package, &coded));

    let mut passed = true;
    for ((name, _), twin) in twins.iter().zip(ran) {
        let case = format!("{stage}::{name}");
        let verdict = match (twin.verdict, said.remove(*name)) {
            (Verdict::Passed, Some(refusal)) => refusal.verdict(Case::read(&folder, name).lesson),
            (Verdict::Passed, None) => {
                Refusal::NotAsked(format!("the compiler was not asked about {name}"))
                    .verdict(String::new())
            }
            (Verdict::Failed(failure), _) => Verdict::Failed(Failure::Twin(
                sentence::sentence(&Verdict::Failed(failure)).unwrap_or_default(),
            )),
            (other, _) => other,
        };
        let outcome = Outcome {
            verdict,
            details: Vec::new(),
            output: twin.output,
            transcript: None,
            diff: None,
        };
        outcome.record(&case);
        outcome.print(&case);
        passed &= !outcome.ends_the_test();
    }
    if !passed {
        std::panic::resume_unwind(Box::new(()));
    }
}

/// Whether `named` are the cases in `folder`, and not none: a case that nobody names would never be judged.
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
        return Err(io::Error::other(format!("{folder} holds no case")));
    }
    if cases != named {
        let error = format!("{folder} holds {cases:?}, and the grader names {named:?}");
        return Err(io::Error::other(error));
    }
    Ok(())
}

/// A case's file.
struct Case {
    name: String,
    path: PathBuf,
    /// What it shows: its first line, `//! A view outlives its region.`, as the end of a sentence.
    lesson: String,
    /// Which line, from 1, must be refused with one of which errors, where the case says so.
    marked: Option<(usize, Vec<String>)>,
}

impl Case {
    fn read(folder: &Path, name: &str) -> Case {
        let path = folder.join(name).with_extension("rs");
        let text = fs::read_to_string(&path).expect("the case was there when its folder was read");
        let first = text
            .lines()
            .next()
            .and_then(|line| line.strip_prefix("//! "));
        let first = first.expect("a case says in its first line, after //!, what it shows");
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

/// What the compiler made of one case.
#[derive(Debug, Clone, PartialEq)]
enum Refusal {
    /// It refused the case, for what is at stake.
    Refused,
    /// It took the case.
    Accepted,
    /// It refused the case for something else.
    Otherwise,
    /// It did not get as far as the case; why.
    NotAsked(String),
}

impl Refusal {
    fn verdict(self, lesson: String) -> Verdict {
        Verdict::Failed(match self {
            Refusal::Refused => return Verdict::Passed,
            Refusal::Accepted => Failure::Compiled(lesson),
            Refusal::Otherwise => Failure::OtherError(lesson),
            Refusal::NotAsked(why) => Failure::Grader(why),
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
    fn a_folder_holds_the_cases_that_the_grader_names() {
        let folder = tempfile::tempdir().unwrap();
        let named = |names: &[&str]| {
            let names = names.iter().map(|name| (*name).to_owned());
            same_cases(folder.path(), names.collect())
        };
        assert!(named(&[]).is_err(), "an empty folder");
        fs::write(folder.path().join("a.rs"), "").unwrap();
        fs::write(folder.path().join("a.stderr"), "").unwrap();
        assert!(named(&["a"]).is_ok());
        assert!(named(&["a", "b"]).is_err(), "a case that is not there");
        fs::write(folder.path().join("c.rs"), "").unwrap();
        assert!(named(&["a"]).is_err(), "a case that is not named");
    }
}
