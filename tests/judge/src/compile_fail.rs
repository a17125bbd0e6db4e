//! Grades the code that must not compile: trybuild does the compiling, after each case's legal twin has run.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::limits::Limits;
use crate::protocol;
use crate::report::Outcome;
use crate::role::{self, Role};
use crate::verdict::{Failure, Verdict};
use crate::{child, sentence, supervise};

/// Marks the child that only runs trybuild.
const COMPILE: &str = "JUDGE_COMPILE";

/// The legal twin of one case: its name and its `main`.
pub type Twin = (&'static str, fn());

/// The whole body of the test `compile_fail::<stage>`: grades each case of `compile_fail/<stage>/`.
///
/// # Panics
/// If a case did not pass; and if `twins` and the folder do not hold the same cases, or none.
pub fn stage(stage: &str, twins: &[Twin]) {
    let test = format!("compile_fail::{stage}");
    let folder = format!("compile_fail/{stage}");
    if env::var(COMPILE).is_ok_and(|of| of == test) {
        trybuild::TestCases::new().compile_fail(format!("{folder}/*.rs"));
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
    let folder = Path::new(&root).join(folder);
    let named = twins.iter().map(|(name, _)| (*name).to_owned()).collect();
    if let Err(error) = same_cases(&folder, named) {
        panic!("{error}");
    }

    let ran: Vec<_> = twins
        .iter()
        .map(|(name, _)| supervise::run(&test, &format!("{stage}::{name}"), &Limits::default()))
        .collect();
    // The compiler takes seconds when it is cold: it is asked only once there is something to compile.
    let worth_it = ran.iter().any(|twin| twin.verdict == Verdict::Passed);
    let compiled = worth_it.then(|| compile(&test));

    let mut passed = true;
    for ((name, _), twin) in twins.iter().zip(ran) {
        let case = format!("{stage}::{name}");
        let verdict = match (twin.verdict, &compiled) {
            (Verdict::Passed, Some(compiled)) => {
                compiled.verdict(name, lesson(&folder.join(name).with_extension("rs")))
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

/// What a case shows: its first line, `//! A view outlives its region.`, as the end of a sentence.
fn lesson(case: &Path) -> String {
    let text = fs::read_to_string(case).unwrap_or_default();
    let line = text
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("//! "));
    let line = line.expect("a case says in its first line, after //!, what it shows");
    let (first, rest) = line.split_at(1);
    first.to_lowercase() + rest
}

/// What trybuild said of each case.
struct Compiled {
    said: BTreeMap<String, String>,
}

/// Runs trybuild in a process of its own, because it prints past libtest's capture.
fn compile(test: &str) -> Compiled {
    // By its own name: trybuild reads the build's hash from it, to find the features.
    let output = Command::new(env::current_exe().expect("this program has a name"))
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(COMPILE, test)
        .env_remove("JUDGE_REPORT")
        // trybuild colours its words even for a pipe.
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .output()
        .expect("the test binary starts");
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text += &String::from_utf8_lossy(&output.stderr);
    Compiled { said: parse(&text) }
}

/// From `test compile_fail/views/NAME.rs ... WORD` and what follows it, the text for each name.
fn parse(text: &str) -> BTreeMap<String, String> {
    let mut said = BTreeMap::new();
    let mut current: Option<String> = None;
    for line in text.lines() {
        if let Some((path, rest)) = line
            .strip_prefix("test compile_fail/")
            .and_then(|line| line.split_once(".rs ... "))
        {
            let name = path.rsplit('/').next().unwrap_or(path).to_owned();
            said.insert(name.clone(), format!("{rest}\n"));
            current = Some(name);
        } else if let Some(text) = current.as_ref().and_then(|name| said.get_mut(name)) {
            *text += line;
            text.push('\n');
        }
    }
    said
}

impl Compiled {
    fn verdict(&self, name: &str, lesson: String) -> Verdict {
        let Some(said) = self.said.get(name) else {
            return Verdict::Failed(Failure::Grader(format!(
                "trybuild gave no verdict on {name}"
            )));
        };
        let word = said.split_whitespace().next().unwrap_or_default();
        match word {
            "ok" => Verdict::Passed,
            _ if said.contains("but it succeeded") => Verdict::Failed(Failure::Compiled(lesson)),
            _ => Verdict::Failed(Failure::OtherError(lesson)),
        }
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

    #[test]
    fn each_case_gets_what_trybuild_said_of_it() {
        let said = parse(
            "noise\ntest compile_fail/views/a.rs ... ok\n\
             test compile_fail/views/b.rs ... error\n\
             Expected test case to fail to compile, but it succeeded.\n",
        );
        let compiled = Compiled { said };
        assert_eq!(
            compiled.verdict("a", "it bites.".to_owned()),
            Verdict::Passed
        );
        assert!(matches!(
            compiled.verdict("b", "it bites.".to_owned()),
            Verdict::Failed(Failure::Compiled(_))
        ));
        assert!(matches!(
            compiled.verdict("c", "it bites.".to_owned()),
            Verdict::Failed(Failure::Grader(_))
        ));
    }
}
