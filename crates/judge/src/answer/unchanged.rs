//! Detects a stage that is about code of the stub that the answer still contains unchanged.
//!
//! Some cases fail with the stub's signatures, whatever the functions do. Before the learner has begun such a stage,
//! that is not a mistake. The exercise's manifest lists the code: `begins_by_changing` of the stage. The cases
//! that fail in this way are its compile-fail cases, whose code then compiles, and those in `fails_until_changed`. Every
//! other failure has another cause, and is shown as one.

use std::path::{Path, PathBuf};
use std::{env, fs};

use toml::{Table, Value};

use super::source;
use crate::verdict::{Failure, Verdict};

/// Returns the verdict on a case. A failure that the stub's signatures explain means "not started".
pub fn verdict(case: &str, verdict: Verdict) -> Verdict {
    let Verdict::Failed(failure) = &verdict else {
        return verdict;
    };
    match package().and_then(|package| not_started(&package, case, failure)) {
        Some(why) => Verdict::Unchanged(why),
        None => verdict,
    }
}

fn package() -> Option<PathBuf> {
    env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from)
}

fn not_started(package: &Path, case: &str, failure: &Failure) -> Option<String> {
    let (stage, name) = case.split_once("::")?;
    let manifest = fs::read_to_string(package.join("Cargo.toml")).ok()?;
    let stage = stage_of(&manifest, stage)?;
    let fails = listed(&stage, "fails_until_changed").contains(&name.to_owned());
    let rest = match failure {
        Failure::Compiled(_) => ", and this stage is about changing that",
        Failure::Check(sentence) if fails => &format!(". {}", sentence.trim_end_matches('.')),
        _ => return None,
    };
    let listed = listed(&stage, "begins_by_changing");
    let answer = squeezed(&source::all_files(&package.join("src"))?);
    let is_unchanged = |code: &String| answer.contains(&squeezed(code));
    if listed.is_empty() || !listed.iter().all(is_unchanged) {
        return None;
    }
    let listed = listed
        .iter()
        .map(|code| format!("`{}`", code.trim_end_matches(" {")));
    let listed = listed.collect::<Vec<_>>().join(" and ");
    Some(format!("your file has {listed} as in the stub{rest}"))
}

/// The manifest's description of a stage.
fn stage_of(manifest: &str, stage: &str) -> Option<Value> {
    let manifest: Table = manifest.parse().ok()?;
    let path = ["package", "metadata", "workbook", "stages"];
    let stages = path
        .iter()
        .try_fold(&Value::Table(manifest), |value, key| value.get(key))?
        .as_array()?
        .clone();
    let is_it = |one: &&Value| one.get("name").and_then(Value::as_str) == Some(stage);
    stages.iter().find(is_it).cloned()
}

/// The strings under `key`.
fn listed(stage: &Value, key: &str) -> Vec<String> {
    let listed = stage.get(key).and_then(Value::as_array);
    let listed = listed.into_iter().flatten().filter_map(Value::as_str);
    listed.map(str::to_owned).collect()
}

/// The code without comments and white space.
fn squeezed(code: &str) -> String {
    let code = source::without_comments(code);
    code.chars()
        .filter(|letter| !letter.is_whitespace())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "[package.metadata.workbook]\nstages = [\n    { name = \"first\" },\n    \
                            { name = \"second\", begins_by_changing = [\"fn a<'a>(&self) {\", \"struct B<T> {\"], \
                            fails_until_changed = [\"sent\"] },\n]\n";

    fn with(answer: &str, case: &str) -> Option<String> {
        of_failure(answer, case, &Failure::Compiled("it is wrong".to_owned()))
    }

    fn of_failure(answer: &str, case: &str, failure: &Failure) -> Option<String> {
        let package = tempfile::tempdir().unwrap();
        fs::write(package.path().join("Cargo.toml"), MANIFEST).unwrap();
        fs::create_dir(package.path().join("src")).unwrap();
        fs::write(package.path().join("src/lib.rs"), answer).unwrap();
        not_started(package.path(), case, failure)
    }

    #[test]
    fn a_stage_is_not_started_while_all_of_its_code_is_the_stubs() {
        let stub = "/// A method.\npub fn a<'a>(&self) { todo!() }\npub struct B<T> { b: T }\n";
        let why = "your file has `fn a<'a>(&self)` and `struct B<T>` as in the stub, and this stage is about changing that";
        assert_eq!(with(stub, "second::case").as_deref(), Some(why));
        let reformatted = "fn a<'a>( &self )\n{\n}\nstruct B<T> // a comment\n{ c: T }";
        assert_eq!(with(reformatted, "second::case").as_deref(), Some(why));
        assert_eq!(with(stub, "first::case"), None, "a stage without such code");
        assert_eq!(with(stub, "third::case"), None, "an unknown stage");
    }

    #[test]
    fn a_stage_has_begun_when_some_of_its_code_has_changed() {
        let changed = [
            "fn a(&self) {}\nstruct B<T> { b: T }",
            "fn a<'a>(&self) {}\nstruct B<T: Copy> { b: T }",
            "// fn a<'a>(&self) {}\nfn a(&self) {}\nstruct B<T> { b: T }",
            "/* fn a<'a>(&self) {}\n */ fn a(&self) {}\nstruct B<T> { b: T }",
            "// a /* in a line comment\nfn a(&self) {}\nstruct B<T> { b: T }",
        ];
        for answer in changed {
            assert_eq!(with(answer, "second::case"), None, "{answer}");
        }
        assert!(
            with(
                "// a /* in a line comment\nfn a<'a>(&self) {}\nstruct B<T> { b: T }",
                "second::case"
            )
            .is_some()
        );
    }

    #[test]
    fn a_failure_that_the_stubs_code_does_not_explain_is_shown() {
        let stub = "fn a<'a>(&self) {}\nstruct B<T> { b: T }";
        let check = Failure::Check("It is wrong.".to_owned());
        let why = of_failure(stub, "second::sent", &check).unwrap();
        assert!(why.ends_with("as in the stub. It is wrong"), "{why}");
        assert_eq!(of_failure(stub, "second::case", &check), None);
        let others = [
            Failure::Killed(6, None),
            Failure::Twin("it is wrong".to_owned()),
            Failure::Grader("no memory".to_owned()),
        ];
        for other in others {
            assert_eq!(of_failure(stub, "second::sent", &other), None, "{other:?}");
        }
    }
}
