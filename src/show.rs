//! Shows verdicts to people: stage by stage, each as soon as it is whole.

use std::collections::BTreeSet;

use anstream::println;

use crate::exercise::{Exercise, Stage};
use crate::grader::{Case, Verdict};
use crate::verdicts::{Count, Verdicts, is_of};
use crate::words::{
    FAINT, Prompt, STRONG, clear_passing_line, hanging, indented, passing_line, sign, styled,
};

/// What is shown while an exercise is graded: the stages whose verdicts have all come, in their order, and on a terminal
/// a line that counts.
pub struct Screen<'a> {
    exercise: &'a Exercise,
    /// Nothing but the count where verdicts go to a machine.
    prompt: Option<Prompt>,
    /// The cases without a verdict.
    missing: BTreeSet<String>,
    cases: Vec<Case>,
    /// The stages that have been shown.
    shown: usize,
    /// Whether a failure has been shown with all that helps.
    helped: bool,
}

impl<'a> Screen<'a> {
    /// Before the first verdict.
    pub fn begin(
        exercise: &'a Exercise,
        cases: BTreeSet<String>,
        prompt: Option<Prompt>,
    ) -> Screen<'a> {
        let screen = Screen {
            exercise,
            prompt,
            missing: cases,
            cases: Vec::new(),
            shown: 0,
            helped: false,
        };
        screen.count();
        screen
    }

    /// One more verdict has come.
    pub fn add(&mut self, case: Case) {
        self.missing.remove(&case.name);
        self.cases.push(case);
        self.show_whole_stages();
        self.count();
    }

    /// They have all come, or no more will.
    pub fn end(self, whole: bool) -> Verdicts {
        clear_passing_line();
        let verdicts = Verdicts::sort(self.exercise, self.cases);
        if let Some(prompt) = self.prompt.filter(|_| whole) {
            println!("\n{}", sum(verdicts.core));
            if verdicts.bonus.possible > 0 {
                println!("Bonus: {}", sum(verdicts.bonus));
            }
            if let Some(next) = next(self.exercise, &verdicts, prompt) {
                println!("{next}");
            }
        }
        verdicts
    }

    fn count(&self) {
        let done = self.cases.len();
        let all = done + self.missing.len();
        let mut told = format!("{done} of {all} verdicts");
        // The first time that takes half a minute.
        if done < all && self.missing.iter().all(|case| self.asks_the_compiler(case)) {
            told += "; the compiler is asked";
        }
        passing_line(&told);
    }

    fn asks_the_compiler(&self, case: &str) -> bool {
        let file = case.replacen("::", "/", 1) + ".rs";
        self.exercise
            .tests()
            .join("compile_fail")
            .join(file)
            .is_file()
    }

    fn show_whole_stages(&mut self) {
        let exercise = self.exercise;
        while let Some(stage) = exercise.about.stages.get(self.shown)
            && !self.missing.iter().any(|name| is_of(name, &stage.name))
        {
            self.shown += 1;
            if let Some(prompt) = self.prompt {
                clear_passing_line();
                if self.shown == 1 {
                    println!("\n{}\n", styled(STRONG, &exercise.about.title));
                }
                let cases = self.cases.iter();
                let mut cases: Vec<_> = cases
                    .filter(|case| is_of(&case.name, &stage.name))
                    .collect();
                cases.sort_by(|one, other| one.name.cmp(&other.name));
                show_stage(exercise, stage, &cases, &mut self.helped, prompt);
            }
        }
    }
}

fn show_stage(
    exercise: &Exercise,
    stage: &Stage,
    cases: &[&Case],
    helped: &mut bool,
    prompt: Prompt,
) {
    let count = Count::of(cases.iter().copied());
    let begun = count.not_started < count.possible;
    let told = match begun {
        true => format!("{} of {}", count.passed, count.possible),
        false => format!("not started; about {} minutes", stage.minutes),
    };
    let bonus = if stage.bonus { "bonus; " } else { "" };
    let told = styled(FAINT, &format!("({bonus}{told})"));
    let first = format!("{} {:<10} ", sign(count.verdict()), stage.name);
    let margin = " ".repeat(13);
    println!(
        "{}",
        hanging(&first, &margin, &format!("{} {told}", stage.title))
    );
    if !begun {
        return;
    }
    for case in cases.iter().filter(|case| case.verdict == Verdict::Failed) {
        show_cases(&[case]);
        if !*helped {
            *helped = true;
            show_help(exercise, stage, case, prompt);
        }
    }
    // The same sentence is said once.
    let mut others = cases.to_vec();
    others.retain(|case| matches!(case.verdict, Verdict::Skipped | Verdict::NotStarted));
    others.sort_by_key(|case| (&case.sentence, &case.name));
    for alike in others.chunk_by(|one, other| one.sentence == other.sentence) {
        show_cases(alike);
    }
}

/// Cases of which the same is said.
fn show_cases(cases: &[&Case]) {
    let names: Vec<_> = cases.iter().map(|case| short_name(case)).collect();
    let sentence = cases[0].sentence.as_deref().unwrap_or_default();
    let first = format!("    {} ", sign(cases[0].verdict));
    println!("{}", hanging(&first, "      ", &names.join(", ")));
    println!("{}", indented(6, sentence));
}

/// The first failure is shown with all that helps.
fn show_help(exercise: &Exercise, stage: &Stage, case: &Case, prompt: Prompt) {
    for line in &case.details {
        println!("{}", indented(6, line));
    }
    if let Some(diff) = &case.diff {
        for line in diff.lines() {
            println!("      {line}");
        }
    }
    if let Some(transcript) = &case.transcript {
        show_calls("Your code called:", transcript);
        if let Some(calls) = solutions_calls(exercise, &case.name) {
            show_calls("The solution calls:", &calls);
        }
    }
    if !case.output.is_empty() {
        println!("      Your code printed:");
        for line in &case.output {
            println!("        | {line}");
        }
    }
    if let Some(debug) = &case.debug {
        println!("      In a debugger: {debug}");
    }
    if prompt == Prompt::Shell {
        println!("      A hint: {}", prompt.hint(&exercise.name, &stage.name));
    }
}

fn show_calls(whose: &str, transcript: &str) {
    println!("      {whose}");
    for line in transcript.lines() {
        println!("        {line}");
    }
}

/// What the solution calls in that case, as the exam has recorded it.
fn solutions_calls(exercise: &Exercise, case: &str) -> Option<String> {
    let file = format!("tests/snapshots/exam__{}-calls.snap", exercise.name);
    let recorded = std::fs::read_to_string(exercise.root.join(file)).ok()?;
    let (_, after) = recorded.split_once(&format!("\n{case}\n"))?;
    let (calls, _) = after.split_once("\n\n").unwrap_or((after, ""));
    Some(calls.to_owned())
}

fn short_name(case: &Case) -> &str {
    case.name
        .split_once("::")
        .map_or(case.name.as_str(), |(_, name)| name)
}

fn sum(count: Count) -> String {
    let mut told = format!("{} of {} passed", count.passed, count.possible);
    for (number, what) in [
        (count.failed, "failed"),
        (count.skipped, "skipped"),
        (count.not_started, "not started"),
    ] {
        if number > 0 {
            told += &format!(", {number} {what}");
        }
    }
    told + "."
}

/// Where there is no failure to mend: the next thing to do.
fn next(exercise: &Exercise, verdicts: &Verdicts, prompt: Prompt) -> Option<String> {
    let name = &exercise.name;
    if verdicts.core.failed + verdicts.bonus.failed > 0 {
        return None;
    }
    let waiting = |bonus: bool| {
        let mut stages = verdicts.stages.iter();
        stages.find(|stage| stage.bonus == bonus && Count::of(&stage.cases).not_started > 0)
    };
    let task = |what: &str, stage: &str| {
        let told = format!(
            "{what}: {stage}. The task is in exercises/{name}/README.md, your code goes in exercises/{name}/src/lib.rs."
        );
        indented(0, &told)
    };
    if let Some(stage) = waiting(false) {
        return Some(task("Next", &stage.name));
    }
    if verdicts.core.skipped + verdicts.bonus.skipped > 0 {
        return None;
    }
    let how = match prompt {
        Prompt::Shell => format!("cargo run -- solution {name}"),
        Prompt::Watch => format!("solutions/src/{}.rs", exercise.library()),
    };
    let mut told = indented(
        0,
        &format!(
            "Solved. Compare with {how}, and see tests/{name}/answers for {} ways to be wrong.",
            wrong_answers(exercise)
        ),
    );
    if let Some(stage) = waiting(true) {
        told += &format!("\n{}", task("For more", &stage.name));
    }
    Some(told)
}

fn wrong_answers(exercise: &Exercise) -> usize {
    let folder = exercise.tests().join("answers/wrong");
    std::fs::read_dir(folder).map_or(0, Iterator::count)
}
