//! Compares only the line that the compiler rejects and the error code, which cargo prints as JSON.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs, io};

use serde::Deserialize;

use super::{Case, CompileResult, bounded};
use crate::protocol;

/// The part of a cargo message that is used here.
#[derive(Deserialize)]
struct Message {
    reason: String,
    target: Option<Target>,
    message: Option<Diagnostic>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

/// The part of a compiler message that is used here.
#[derive(Deserialize)]
struct Diagnostic {
    level: String,
    code: Option<Code>,
    spans: Vec<Span>,
}

#[derive(Deserialize)]
struct Code {
    code: String,
}

#[derive(Deserialize)]
struct Span {
    is_primary: bool,
    line_start: usize,
}

/// Checks all cases as programs of one generated package. It shares trybuild's target folder, where the dependencies
/// have been checked already.
pub fn compile(root: &Path, package: &str, cases: &[Case]) -> BTreeMap<String, CompileResult> {
    if cases.is_empty() {
        return BTreeMap::new();
    }
    let checked =
        lay_out(root, package, cases).and_then(|(manifest, target)| check(&manifest, &target));
    let results = cases.iter().map(|case| {
        let compile_result = match &checked {
            Ok(checked) => compile_result(case, checked),
            Err(error) => {
                CompileResult::NotChecked(format!("cargo cannot check {}: {error}", case.name))
            }
        };
        (case.name.clone(), compile_result)
    });
    results.collect()
}

/// The errors of each program that was checked: code and line.
type Checked = BTreeMap<String, Vec<(String, usize)>>;

fn compile_result(case: &Case, checked: &Checked) -> CompileResult {
    let Some(errors) = checked.get(&case.name) else {
        return CompileResult::NotChecked(format!("cargo did not check {}", case.name));
    };
    let marked = case.marked.as_ref();
    let as_marked = |(code, line): &(String, usize)| {
        marked.is_some_and(|(at, with)| at == line && with.contains(code))
    };
    match errors.as_slice() {
        [] => CompileResult::Accepted,
        errors if errors.iter().all(as_marked) => CompileResult::Rejected,
        _ => CompileResult::OtherReason,
    }
}

/// Writes the package. Returns the paths of its manifest and of its target folder.
fn lay_out(root: &Path, package: &str, cases: &[Case]) -> io::Result<(PathBuf, PathBuf)> {
    let program = env::current_exe()?;
    // The path of a test is target/debug/deps/NAME.
    let target = program
        .ancestors()
        .nth(3)
        .ok_or_else(|| io::Error::other("the test was not built by cargo"))?
        .join("tests");
    let folder = target.join("refused").join(package);
    fs::create_dir_all(&folder)?;
    let mut manifest = format!(
        "[package]\nname = \"{package}-refused\"\nedition = \"2024\"\n\n\
         [dependencies]\n{package} = {{ path = {root:?} }}\n\n[workspace]\n"
    );
    for case in cases {
        let (name, path) = (&case.name, &case.path);
        manifest += &format!("\n[[bin]]\nname = \"{name}\"\npath = {path:?}\n");
    }
    let path = folder.join("Cargo.toml");
    fs::write(&path, manifest)?;
    let workspace = env::var_os("INSTA_WORKSPACE_ROOT").unwrap_or_default();
    fs::copy(
        Path::new(&workspace).join("Cargo.lock"),
        folder.join("Cargo.lock"),
    )?;
    Ok((path, target.join("trybuild")))
}

fn check(manifest: &Path, target: &Path) -> io::Result<Checked> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    protocol::hide_from(&mut command);
    command
        .args(["check", "--quiet", "--offline", "--keep-going", "--bins"])
        .arg("--message-format=json")
        .arg("--manifest-path")
        .arg(manifest)
        .arg("--target-dir")
        .arg(target)
        .stdin(Stdio::null());
    let output = bounded::output(command)?;
    let mut checked = Checked::new();
    for message in output
        .stdout
        .lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok())
    {
        let Some(target) = message.target else {
            continue;
        };
        match (message.reason.as_str(), message.message) {
            ("compiler-artifact", _) => {
                checked.entry(target.name).or_default();
            }
            ("compiler-message", Some(diagnostic)) if diagnostic.level == "error" => {
                let errors = checked.entry(target.name).or_default();
                errors.extend(error(diagnostic));
            }
            _ => {}
        }
    }
    if checked.is_empty() {
        return Err(io::Error::other(output.stderr.trim().to_owned()));
    }
    Ok(checked)
}

/// The code and line of an error; `None` for a summary, which has no line.
fn error(diagnostic: Diagnostic) -> Option<(String, usize)> {
    let line = diagnostic
        .spans
        .iter()
        .find(|span| span.is_primary)?
        .line_start;
    let code = diagnostic.code.map_or_else(String::new, |code| code.code);
    Some((code, line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_marked_error_on_the_marked_line_counts() {
        let case = Case {
            name: "a".to_owned(),
            path: PathBuf::new(),
            lesson: String::new(),
            marked: Some((3, vec!["E0277".to_owned()])),
        };
        let of = |errors: &[(&str, usize)]| {
            let errors = errors
                .iter()
                .map(|(code, line)| ((*code).to_owned(), *line));
            compile_result(&case, &Checked::from([("a".to_owned(), errors.collect())]))
        };
        assert_eq!(of(&[("E0277", 3), ("E0277", 3)]), CompileResult::Rejected);
        assert_eq!(of(&[]), CompileResult::Accepted);
        assert_eq!(of(&[("E0277", 4)]), CompileResult::OtherReason);
        assert_eq!(
            of(&[("E0277", 3), ("E0599", 3)]),
            CompileResult::OtherReason
        );
        let unknown = compile_result(&case, &Checked::new());
        assert!(matches!(unknown, CompileResult::NotChecked(_)));
    }
}
