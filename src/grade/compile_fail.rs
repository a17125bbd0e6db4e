//! Compiles code that must not compile, with rustc itself. trybuild, which plain `cargo test` uses, runs cargo five times
//! for it, and builds the dependencies once more.
//!
//! Only a clear result is passed on to the judge: the compiler accepted a case, or rejected it with exactly the expected
//! errors. The judge compiles every other case again, in trybuild's way. So a different option of the compiler costs
//! time, and never a verdict.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Seek, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use course::cargo::Target;
use course::patience::{self, Patience};
use serde::{Deserialize, Serialize};

use crate::grade::grader::Stop;
use crate::grade::sandbox::Sandbox;

/// The folder of the cases in a package.
pub const FOLDER: &str = "tests/grader/compile_fail";

/// The file of a case in a package, if it is a compile-fail case.
pub fn file(case: &str) -> String {
    format!("{FOLDER}/{}.rs", case.replacen("::", "/", 1))
}

/// An answer that cargo has compiled.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Library {
    name: String,
    edition: String,
    /// Its interface (`.rmeta`), or the whole library.
    pub compiled: PathBuf,
}

impl Library {
    /// `files` are the results of the target. Returns `None` if it is not a library.
    pub fn of(target: &Target, files: &[PathBuf]) -> Option<Library> {
        let with_ending = |ending: &str| {
            let mut files = files.iter();
            files.find(|file| file.extension().is_some_and(|other| other == ending))
        };
        let compiled = with_ending("rmeta").or_else(|| with_ending("rlib"))?;
        target
            .kind
            .iter()
            .any(|kind| kind == "lib")
            .then(|| Library {
                name: target.name.replace('-', "_"),
                edition: target.edition.clone(),
                compiled: compiled.clone(),
            })
    }
}

/// Compiles the cases against the library and returns the clear results: a line for each case, such as
/// `views::two_writers rejected` or `views::two_writers accepted`. In a sandbox, where trybuild cannot run, a result that is
/// not clear is `other`.
///
/// # Errors
/// Returns an error if the grading was stopped.
pub fn compile(
    package: &Path,
    library: &Library,
    cases: &BTreeSet<String>,
    stop: &Stop,
    sandbox: Option<&Sandbox>,
) -> Result<String> {
    let cases = cases.iter().filter_map(|name| Case::read(package, name));
    let cases: Vec<Case> = cases.collect();
    let mut lines = String::new();
    for (case, result) in results(package, library, &cases, stop, sandbox) {
        let _ = writeln!(lines, "{case} {result}");
    }
    stop.check()?;
    Ok(lines)
}

/// What the compiler may use for these small programs. The judge has a longer limit.
const LIMITS: patience::Limits = patience::Limits {
    processor: Duration::from_secs(60),
    time: Duration::from_secs(5 * 60),
};

const REJECTED: &str = "rejected";
const ACCEPTED: &str = "accepted";
const OTHER: &str = "other";

/// Compiles all cases as modules of one program, which takes as long as one case. An error in one case may hide those in
/// another one, and a module is not quite a program. So the cases that are not rejected as expected are compiled again,
/// each by itself.
fn results<'a>(
    package: &Path,
    library: &Library,
    cases: &'a [Case],
    stop: &Stop,
    sandbox: Option<&Sandbox>,
) -> BTreeMap<&'a str, &'static str> {
    let rustc = Rustc {
        package,
        library,
        stop,
        sandbox,
    };
    let mut results = BTreeMap::new();
    if cases.is_empty() {
        return results;
    }
    // If the compiler cannot be run, the judge will say so.
    let Ok(together) = rustc.compile_together(cases) else {
        return results;
    };
    for case in cases {
        let result = match case.result(&together) {
            Some(result) => Some(result),
            None => {
                let alone = rustc.compile(&case.file, Stdio::null()).ok();
                let unclear = sandbox.map(|_| OTHER);
                alone.and_then(|alone| case.result(&alone).or(unclear))
            }
        };
        results.extend(result.map(|result| (case.name.as_str(), result)));
    }
    results
}

/// What the compiler said about a program.
struct Output {
    compiled: bool,
    diagnostics: Vec<Diagnostic>,
}

#[derive(Deserialize)]
struct Diagnostic {
    level: String,
    code: Option<Code>,
    spans: Vec<Span>,
    rendered: String,
}

#[derive(Deserialize)]
struct Code {
    code: String,
}

#[derive(Deserialize)]
struct Span {
    file_name: String,
    is_primary: bool,
    line_start: usize,
}

struct Rustc<'a> {
    package: &'a Path,
    library: &'a Library,
    stop: &'a Stop,
    sandbox: Option<&'a Sandbox>,
}

impl Rustc<'_> {
    /// Compiles the cases as modules of one program.
    fn compile_together(&self, cases: &[Case]) -> Result<Output> {
        let mut program = String::from("#![allow(dead_code)]\nfn main() {}\n");
        for (number, case) in cases.iter().enumerate() {
            let _ = writeln!(program, "#[path = {:?}]\nmod case_{number};", case.file);
        }
        let mut file = tempfile::tempfile()?;
        file.write_all(program.as_bytes())?;
        file.rewind()?;
        self.compile("-", file)
    }

    /// Compiles the program in the file, or the one on standard input, `-`. Its functions are checked, but no code is
    /// generated for them.
    fn compile(&self, program: &str, stdin: impl Into<Stdio>) -> Result<Output> {
        let folder = tempfile::tempdir()?;
        let (name, compiled) = (&self.library.name, &self.library.compiled);
        let mut dependencies = OsString::from("dependency=");
        dependencies.push(compiled.parent().unwrap_or(Path::new(".")));
        let mut library = OsString::from(format!("{name}="));
        library.push(compiled);
        let mut command = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
        command
            .args(["--crate-name", "case", "--crate-type", "bin"])
            .args(["--edition", &self.library.edition, "--emit", "metadata"])
            // trybuild's width: the expected errors have it.
            .args(["--error-format", "json", "--diagnostic-width", "140"])
            .arg("--out-dir")
            .arg(folder.path())
            .arg("-L")
            .arg(dependencies)
            .arg("--extern")
            .arg(library)
            .args(flags())
            .arg(program)
            // The expected errors contain the cases' paths in the package.
            .current_dir(self.package);
        let mut command = match self.sandbox {
            Some(sandbox) => sandbox.compiler(&command)?,
            None => command,
        };
        command
            .stdin(stdin)
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut rustc = self.stop.spawn(&mut command)?;
        let patience = Patience::begin(rustc.killer(), LIMITS);
        let stderr = rustc.take_stderr().context("a pipe was requested")?;
        let text = io::read_to_string(stderr)?;
        let compiled = rustc.wait()?.success();
        ensure!(!patience.is_exceeded(), "rustc did not end");
        let diagnostics = text.lines().map(serde_json::from_str);
        Ok(Output {
            compiled,
            diagnostics: diagnostics.collect::<Result<_, _>>()?,
        })
    }
}

/// The flags that cargo adds for every crate.
fn flags() -> Vec<String> {
    let flags = |name: &str, separator: char| {
        let text = env::var(name).ok()?;
        let flags = text.split(separator).filter(|flag| !flag.is_empty());
        Some(flags.map(str::to_owned).collect())
    };
    flags("CARGO_ENCODED_RUSTFLAGS", '\u{1f}')
        .or_else(|| flags("RUSTFLAGS", ' '))
        .unwrap_or_default()
}

/// A case and the errors that it must have.
struct Case {
    name: String,
    /// Relative to the package.
    file: String,
    expected: Expected,
}

enum Expected {
    /// The text of all errors and warnings.
    Text(String),
    /// The line, from 1, and the error codes of which each error must have one.
    Marked(usize, Vec<String>),
}

impl Case {
    /// Returns `None` if there is no such file, or nothing to expect.
    fn read(package: &Path, name: &str) -> Option<Case> {
        let file = file(name);
        let path = package.join(&file);
        let text = fs::read_to_string(&path).ok()?;
        let marked = text.lines().zip(1..).find_map(|(line, number)| {
            let (_, codes) = line.split_once("//~ ")?;
            let codes = codes.split_whitespace().map(str::to_owned);
            Some(Expected::Marked(number, codes.collect()))
        });
        let stored = || fs::read_to_string(path.with_extension("stderr")).ok();
        let expected = marked.or_else(|| stored().map(Expected::Text))?;
        Some(Case {
            name: name.to_owned(),
            file,
            expected,
        })
    }

    /// Returns the result, or `None` if it is not clear.
    fn result(&self, output: &Output) -> Option<&'static str> {
        if output.compiled {
            return Some(ACCEPTED);
        }
        let mut found = Vec::new();
        for diagnostic in &output.diagnostics {
            let mut places = diagnostic.spans.iter().filter(|span| span.is_primary);
            match places.next() {
                Some(place) if place.file_name == self.file => found.push((diagnostic, place)),
                _ => {}
            }
        }
        let mut errors = found.iter().filter(|(one, _)| one.level == "error");
        let is_expected = match &self.expected {
            Expected::Text(text) => {
                let found = found.iter().map(|(one, _)| one.rendered.trim_end());
                let found = found.collect::<Vec<_>>().join("\n\n");
                errors.next().is_some() && found == text.trim_end()
            }
            Expected::Marked(line, codes) => {
                let as_marked = |(one, place): &(&Diagnostic, &Span)| {
                    let code = one.code.as_ref().map_or("", |code| &code.code);
                    place.line_start == *line && codes.iter().any(|known| known == code)
                };
                let errors: Vec<_> = errors.collect();
                !errors.is_empty() && errors.into_iter().all(as_marked)
            }
        };
        is_expected.then_some(REJECTED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAK: &str = "\
fn main() {
    let view = {
        let region = lib::Region;
        region.view()
    };
    drop(view);
}
";

    /// The errors of the case with that name, if it is `LEAK`.
    fn errors_of_leak(name: &str) -> String {
        format!(
            "\
error[E0597]: `region` does not live long enough
 --> tests/grader/compile_fail/views/{name}.rs:4:9
  |
2 |     let view = {{
  |         ---- borrow later stored here
3 |         let region = lib::Region;
  |             ------ binding `region` declared here
4 |         region.view()
  |         ^^^^^^ borrowed value does not live long enough
5 |     }};
  |     - `region` dropped here while still borrowed
"
        )
    }

    /// A package with these cases, and a library for them.
    fn package(cases: &[(&str, &str, Option<&str>)]) -> (tempfile::TempDir, Library) {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        let stage = root.join(FOLDER).join("views");
        fs::create_dir_all(&stage).expect("a folder");
        for (name, text, stderr) in cases {
            fs::write(stage.join(name).with_extension("rs"), text).expect("a case");
            if let Some(stderr) = stderr {
                fs::write(stage.join(name).with_extension("stderr"), stderr).expect("errors");
            }
        }
        let source = "pub struct Region;\nimpl Region { pub fn view(&self) -> &u8 { &7 } }\n";
        fs::write(root.join("lib.rs"), source).expect("a library");
        let status = Command::new("rustc")
            .args([
                "--crate-type=lib",
                "--edition=2024",
                "--emit=metadata",
                "lib.rs",
            ])
            .current_dir(root)
            .status();
        assert!(status.expect("rustc starts").success());
        let target = Target {
            kind: vec!["lib".to_owned()],
            name: "lib".to_owned(),
            edition: "2024".to_owned(),
        };
        let library = Library::of(&target, &[root.join("liblib.rmeta")]).expect("a library");
        (folder, library)
    }

    /// The results by the cases' names without the stage.
    fn compiled(cases: &[(&str, &str, Option<&str>)]) -> BTreeMap<String, String> {
        let (folder, library) = package(cases);
        let names = cases.iter().map(|(name, ..)| format!("views::{name}"));
        let lines = compile(
            folder.path(),
            &library,
            &names.collect(),
            &Stop::default(),
            None,
        );
        let lines = lines.expect("nothing stops it");
        let results = lines.lines().filter_map(|line| line.split_once(' '));
        results
            .map(|(name, result)| (name.replace("views::", ""), result.to_owned()))
            .collect()
    }

    #[test]
    fn only_clear_results_are_passed_on() {
        let mark = |text: &str| LEAK.replace("region.view()", &format!("region.view() {text}"));
        let marked = mark("//~ E0515 E0597");
        let code = mark("//~ E0308");
        let elsewhere = format!("{LEAK}// //~ E0597\n");
        let both = "use lib::Region;\nfn main() { let _: u8 = Region.view(); let _: u8 = \"\"; } //~ E0308\n";
        let more = "fn main() { let _: u8 = \"\"; } //~ E0308\nfn f() -> u8 { 'a' }\n";
        let results = compiled(&[
            ("text", LEAK, Some(&errors_of_leak("text"))),
            ("other_text", LEAK, Some("error: another one\n")),
            ("nothing_expected", LEAK, None),
            ("accepted", "fn main() {}\n", Some("error\n")),
            ("accepted_marked", "fn main() {} //~ E0308\n", None),
            ("marked", &marked, None),
            ("other_line", &elsewhere, None),
            ("other_code", &code, None),
            ("two_errors", both, None),
            ("one_error_elsewhere", more, None),
        ]);
        let expected = [
            ("accepted", ACCEPTED),
            ("accepted_marked", ACCEPTED),
            ("marked", REJECTED),
            ("text", REJECTED),
            ("two_errors", REJECTED),
        ];
        let expected = expected.map(|(name, result)| (name.to_owned(), result.to_owned()));
        assert_eq!(results, BTreeMap::from(expected));
    }

    /// The compiler resolves all names of a program before it checks lifetimes.
    #[test]
    fn an_unresolved_name_in_one_case_does_not_hide_the_errors_in_another() {
        let unresolved = "use lib::Missing; //~ E0432\nfn main() {}\n";
        let results = compiled(&[
            ("accepted", "fn main() {}\n", Some("error\n")),
            ("text", LEAK, Some(&errors_of_leak("text"))),
            ("unresolved", unresolved, None),
        ]);
        assert_eq!(results["text"], REJECTED);
        assert_eq!(results["accepted"], ACCEPTED);
        assert_eq!(results["unresolved"], REJECTED);
    }

    #[test]
    fn a_library_that_cannot_be_loaded_gives_no_result() {
        let (folder, library) = package(&[
            ("a", LEAK, None),
            ("b", "use lib::X; //~ E0432\nfn main() {}\n", None),
        ]);
        fs::write(folder.path().join("liblib.rmeta"), "nonsense").expect("a file");
        let cases = BTreeSet::from(["views::a", "views::b"].map(str::to_owned));
        let lines = compile(folder.path(), &library, &cases, &Stop::default(), None);
        assert_eq!(lines.expect("nothing stops it"), "");
    }
}
