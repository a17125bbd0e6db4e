//! Compiles a written answer into its check program, and runs that.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use course::process::{Limits, Ran};

use super::result::{Proof, describe_end};
use crate::bank::question::{ANSWER, Language};
use crate::input::run_until_interrupt;

const COMPILER_LIMITS: Limits = Limits::time(Duration::from_secs(60));

/// How much of the compiler's output is shown.
const MOST_LINES: usize = 12;
const LONGEST_LINE: usize = 160;

/// The learner's code may contain an endless loop.
const CHECK_LIMITS: Limits = Limits::time(Duration::from_secs(10));

/// The exit status of a check that has run to its end. An answer that calls exit(0) ends the process before.
const PASSED: i32 = 211;

/// Puts an answer into its check program, compiles that and runs it.
///
/// # Errors
/// Returns an error if a file cannot be written.
pub fn check_written(language: Language, check: &str, answer: &str) -> Result<Proof> {
    let folder = tempfile::tempdir().context("a temporary folder cannot be created")?;
    let mut compiler = write_program(language, check, answer, folder.path())?;
    let program = folder.path().join("check");
    // A compiler that is killed leaves its temporary files behind.
    compiler.env("TMPDIR", folder.path());
    let compiled = match run_until_interrupt(compiler.arg("-o").arg(&program), COMPILER_LIMITS) {
        Ok(compiled) => compiled,
        Err(error) => {
            let compiler = compiler.get_program().display();
            let why = format!("{compiler} cannot be started: {error}");
            return Ok(Proof::Skipped(why));
        }
    };
    if !compiled.success() {
        return Ok(Proof::Differs {
            why: "it does not compile".to_owned(),
            lines: compiler_errors(language, check, answer, &compiled.stderr, folder.path()),
        });
    }
    let mut command = Command::new(&program);
    let ran = run_until_interrupt(command.current_dir(folder.path()), CHECK_LIMITS);
    let ran = ran.context("the compiled check cannot be started")?;
    if ran.code() != Some(PASSED) {
        let why = match ran.code() {
            Some(0) => "it ended the process before the check was complete".to_owned(),
            _ => comment_on_status(check, &ran).unwrap_or_else(|| describe_end(&ran)),
        };
        let lines = Vec::new();
        return Ok(Proof::Differs { why, lines });
    }
    let lines = vec!["it compiles and passes its check".to_owned()];
    Ok(Proof::Proved {
        shown: lines.clone(),
        lines,
    })
}

/// Writes the source, and returns the compiler's command without its output file.
fn write_program(language: Language, check: &str, answer: &str, folder: &Path) -> Result<Command> {
    let (name, replacement) = match language {
        Language::C => {
            // In a separate file, the compiler's line numbers are those of the answer, not of the check.
            fs::write(folder.join("answer.c"), format!("{answer}\n"))?;
            ("check.c", "#include \"answer.c\"")
        }
        Language::Rust => ("check.rs", answer),
    };
    let lines = check.lines().map(|line| match line.trim() {
        ANSWER => replacement,
        _ => line,
    });
    let source = folder.join(name);
    let mut code = lines.collect::<Vec<_>>().join("\n") + "\n";
    if language == Language::Rust {
        code = code.replacen("fn main()", "fn main_of_check()", 1);
        code += &format!("fn main() {{ main_of_check(); std::process::exit({PASSED}) }}\n");
    }
    fs::write(&source, code)?;
    let (compiler, arguments): (_, &[&str]) = match language {
        Language::C => (
            "cc",
            &[
                "-std=c17",
                "-D_GNU_SOURCE",
                "-O1",
                "-pthread",
                "-w",
                "-Dmain=main_of_check",
            ],
        ),
        Language::Rust => (
            "rustc",
            &[
                "--edition=2024",
                "--cap-lints=allow",
                "--error-format=short",
            ],
        ),
    };
    let mut command = Command::new(compiler);
    command.args(arguments).arg(source);
    if language == Language::C {
        let main = folder.join("main.c");
        let code = format!(
            "#undef main\nint main_of_check(void);\nint main(void) {{ int status = main_of_check(); return status ? status : {PASSED}; }}\n"
        );
        fs::write(&main, code)?;
        command.arg(main);
    }
    Ok(command)
}

/// Returns the first lines of the compiler's output, without the temporary folder's name.
fn compiler_errors(
    language: Language,
    check: &str,
    answer: &str,
    stderr: &str,
    folder: &Path,
) -> Vec<String> {
    let stderr = stderr.replace(&format!("{}/", folder.display()), "");
    let lines = stderr.lines();
    let lines = lines.skip_while(|line| line.starts_with("In file included"));
    let lines = lines.filter(|line| !line.starts_with("error: aborting"));
    let lines = lines.map(|line| match language {
        Language::C => line.to_owned(),
        Language::Rust => with_line_of_answer(line, check, answer),
    });
    let lines = lines.take(MOST_LINES);
    let lines = lines.map(|line| line.chars().take(LONGEST_LINE).collect());
    lines.collect()
}

/// Replaces `check.rs:12:5:` by `answer.rs:2:5:` if the line is one of the answer's, which replaced a line of the check.
fn with_line_of_answer(error: &str, check: &str, answer: &str) -> String {
    let replaced = || -> Option<String> {
        let (number, rest) = error.strip_prefix("check.rs:")?.split_once(':')?;
        let number: usize = number.parse().ok()?;
        let before = check.lines().position(|line| line.trim() == ANSWER)?;
        let number = number.checked_sub(before)?;
        (1..=answer.lines().count())
            .contains(&number)
            .then(|| format!("answer.rs:{number}:{rest}"))
    };
    replaced().unwrap_or_else(|| error.to_owned())
}

/// Returns the comment beside `return 3;` in the check if the program exited with status 3.
fn comment_on_status(check: &str, ran: &Ran) -> Option<String> {
    let returns = format!("return {};", ran.code()?);
    let line = check.lines().find(|line| line.contains(&returns))?;
    let (_, comment) = line.split_once("/*").or(line.split_once("//"))?;
    let comment = comment.trim_end().trim_end_matches("*/");
    Some(comment.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_errors_are_counted_in_the_answer() {
        let check = "fn main() {\n    // ANSWER\n}\n";
        let line =
            |number| with_line_of_answer(&format!("check.rs:{number}:5: error: no"), check, "a\nb");
        assert_eq!(line(1), "check.rs:1:5: error: no");
        assert_eq!(line(2), "answer.rs:1:5: error: no");
        assert_eq!(line(3), "answer.rs:2:5: error: no");
        assert_eq!(line(4), "check.rs:4:5: error: no");
    }

    #[test]
    fn an_answer_that_ends_the_process_does_not_pass() {
        let c = "#include <stdlib.h>\n// ANSWER\nint main(void) { f(); return 3; /* wrong */ }\n";
        let rust = "// ANSWER\nfn main() {\n    f();\n    panic!();\n}\n";
        for (language, check, answer) in [
            (Language::C, c, "void f(void) { exit(0); }"),
            (Language::Rust, rust, "fn f() { std::process::exit(0) }"),
        ] {
            match check_written(language, check, answer).expect("a result") {
                Proof::Differs { why, .. } => {
                    assert_eq!(why, "it ended the process before the check was complete");
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn rustc_names_the_line_of_the_answer() {
        let check = "fn main() {\n// ANSWER\n}\n";
        let proof = check_written(Language::Rust, check, "let one = 1;\nlet two = ;");
        match proof.expect("a result") {
            Proof::Differs { lines, .. } => {
                assert!(lines[0].starts_with("answer.rs:2:"), "{lines:?}");
                assert_eq!(lines.len(), 1, "{lines:?}");
            }
            other => panic!("{other:?}"),
        }
    }
}
