//! Compares the compiler's messages on a case as text, with trybuild.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::{env, io};

use super::{CASES, Case, CompileResult, bounded};
use crate::protocol;

/// Set for the process that only runs trybuild: the test's name and the paths of the cases, one a line.
const REQUEST: &str = "JUDGE_COMPILE";

/// Runs trybuild if this process was started for that; returns whether it was.
pub fn run_if_requested(test: &str) -> bool {
    let Ok(request) = env::var(REQUEST) else {
        return false;
    };
    let mut lines = request.lines();
    if lines.next() != Some(test) {
        return false;
    }
    let cases = trybuild::TestCases::new();
    lines.for_each(|path| cases.compile_fail(path));
    true
}

/// Runs trybuild in a separate process, because libtest does not capture its output.
pub fn compile(test: &str, cases: &[Case]) -> BTreeMap<String, CompileResult> {
    if cases.is_empty() {
        return BTreeMap::new();
    }
    let stage = test.trim_start_matches("compile_fail::");
    let paths = cases
        .iter()
        .map(|case| format!("{CASES}/{stage}/{}.rs", case.name));
    let request = [test.to_owned()].into_iter().chain(paths);
    let answers = run(test, &request.collect::<Vec<_>>().join("\n"));
    let results = cases.iter().map(|case| {
        let compile_result = match answers.as_ref().map(|answers| answers.get(&case.name)) {
            Ok(Some(answer)) => compile_result(answer),
            Ok(None) => {
                CompileResult::NotChecked(format!("trybuild printed no result for {}", case.name))
            }
            Err(error) => CompileResult::NotChecked(format!("trybuild cannot be started: {error}")),
        };
        (case.name.clone(), compile_result)
    });
    results.collect()
}

fn run(test: &str, request: &str) -> io::Result<BTreeMap<String, String>> {
    // Not /proc/self/exe: trybuild finds the enabled features by the hash in the program's name.
    let mut command = Command::new(env::current_exe()?);
    protocol::hide_from(&mut command);
    command
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(REQUEST, request)
        // trybuild colours its output even in a pipe.
        .env("NO_COLOR", "1")
        .stdin(Stdio::null());
    let output = bounded::output(command)?;
    Ok(parse(&(output.stdout + &output.stderr)))
}

/// The text after each `test tests/grader/compile_fail/views/NAME.rs ... `, by name.
fn parse(text: &str) -> BTreeMap<String, String> {
    let mut answers = BTreeMap::new();
    let mut current: Option<String> = None;
    for line in text.lines() {
        if let Some((path, rest)) = line
            .strip_prefix("test ")
            .and_then(|line| line.strip_prefix(CASES))
            .and_then(|line| line.split_once(".rs ... "))
        {
            let name = path.rsplit('/').next().unwrap_or(path).to_owned();
            answers.insert(name.clone(), format!("{rest}\n"));
            current = Some(name);
        } else if let Some(text) = current.as_ref().and_then(|name| answers.get_mut(name)) {
            *text += line;
            text.push('\n');
        }
    }
    answers
}

fn compile_result(answer: &str) -> CompileResult {
    match answer.split_whitespace().next() {
        Some("ok") => CompileResult::Rejected,
        _ if answer.contains("but it succeeded") => CompileResult::Accepted,
        _ => CompileResult::OtherReason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_case_gets_its_own_result() {
        let answers = parse(
            "noise\ntest tests/grader/compile_fail/views/a.rs ... ok\n\
             test tests/grader/compile_fail/views/b.rs ... error\n\
             Expected test case to fail to compile, but it succeeded.\n\
             test tests/grader/compile_fail/views/c.rs ... mismatch\n",
        );
        let of = |name: &str| compile_result(&answers[name]);
        assert_eq!(of("a"), CompileResult::Rejected);
        assert_eq!(of("b"), CompileResult::Accepted);
        assert_eq!(of("c"), CompileResult::OtherReason);
    }
}
