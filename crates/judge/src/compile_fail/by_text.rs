//! Compares what the compiler says of a case, word by word: trybuild does it.

use std::collections::BTreeMap;
use std::env;
use std::process::{Command, Stdio};

use super::{CASES, Case, Refusal};

/// Set for the process that only runs trybuild: the test's name, and the cases' paths.
const ASKED: &str = "JUDGE_COMPILE";

/// Runs trybuild, if that is what this process is for.
pub fn is_asked(test: &str) -> bool {
    let Ok(asked) = env::var(ASKED) else {
        return false;
    };
    let mut lines = asked.lines();
    if lines.next() != Some(test) {
        return false;
    }
    let cases = trybuild::TestCases::new();
    lines.for_each(|path| cases.compile_fail(path));
    true
}

/// Runs trybuild in a process of its own, because it prints past libtest's capture.
pub fn ask(test: &str, cases: &[Case]) -> BTreeMap<String, Refusal> {
    if cases.is_empty() {
        return BTreeMap::new();
    }
    let stage = test.trim_start_matches("compile_fail::");
    let paths = cases
        .iter()
        .map(|case| format!("{CASES}/{stage}/{}.rs", case.name));
    let asked = [test.to_owned()].into_iter().chain(paths);
    // By its own name: trybuild reads the build's hash from it, to find the features.
    let output = Command::new(env::current_exe().expect("this program has a name"))
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(ASKED, asked.collect::<Vec<_>>().join("\n"))
        .env_remove("JUDGE_REPORT")
        // trybuild colours its words even for a pipe.
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .output()
        .expect("the test binary starts");
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text += &String::from_utf8_lossy(&output.stderr);
    let said = parse(&text);
    let refusals = cases.iter().map(|case| {
        let refusal = match said.get(&case.name) {
            None => Refusal::NotAsked(format!("trybuild gave no verdict on {}", case.name)),
            Some(said) => refusal(said),
        };
        (case.name.clone(), refusal)
    });
    refusals.collect()
}

/// From `test tests/grader/compile_fail/views/NAME.rs ... WORD` and what follows it, the text for each name.
fn parse(text: &str) -> BTreeMap<String, String> {
    let mut said = BTreeMap::new();
    let mut current: Option<String> = None;
    for line in text.lines() {
        if let Some((path, rest)) = line
            .strip_prefix("test ")
            .and_then(|line| line.strip_prefix(CASES))
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

fn refusal(said: &str) -> Refusal {
    match said.split_whitespace().next() {
        Some("ok") => Refusal::Refused,
        _ if said.contains("but it succeeded") => Refusal::Accepted,
        _ => Refusal::Otherwise,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_case_gets_what_trybuild_said_of_it() {
        let said = parse(
            "noise\ntest tests/grader/compile_fail/views/a.rs ... ok\n\
             test tests/grader/compile_fail/views/b.rs ... error\n\
             Expected test case to fail to compile, but it succeeded.\n\
             test tests/grader/compile_fail/views/c.rs ... mismatch\n",
        );
        let of = |name: &str| refusal(&said[name]);
        assert_eq!(of("a"), Refusal::Refused);
        assert_eq!(of("b"), Refusal::Accepted);
        assert_eq!(of("c"), Refusal::Otherwise);
    }
}
