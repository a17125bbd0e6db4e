//! The commands that ask no questions, and the JSON output of those that do.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use drill::bank::Bank;
use drill::bank::question::Question;
use drill::export::{anki, package, pages};
use drill::input::{INTERRUPTED, was_interrupted};
use drill::progress::plan::{self, Plan, Scope};
use drill::progress::stats::Stats;
use drill::proof::{Proof, Prover, machine};
use drill::session::Drill;
use drill::terminal::{Terminal, counted};
use serde_json::json;

fn print_json(document: &impl serde::Serialize) -> Result<()> {
    writeln!(io::stdout(), "{}", serde_json::to_string_pretty(document)?)?;
    Ok(())
}

fn ids<'a>(questions: &[&'a Question]) -> Vec<&'a str> {
    questions.iter().map(|question| &*question.id).collect()
}

pub fn list_plan(drill: &Drill, scope: &Scope) -> Result<()> {
    let clock = drill.clock;
    let plan = Plan::new(drill.bank, &drill.state()?, clock, scope);
    print_json(&json!({
        "now": clock.local(clock.now()),
        "due": ids(&plan.due),
        "new": ids(&plan.new),
        "soon": ids(&plan.soon),
        "locked": plan.locked,
        "forward": plan.forward,
        "minutes": plan.minutes,
        "next_due": plan.next_due.map(|time| clock.local(time)),
        "interview": plan.interview,
    }))
}

pub fn list_cram(drill: &Drill, scope: &Scope, count: usize) -> Result<()> {
    let questions = plan::cram(drill.bank, &drill.state()?, drill.clock, scope, count);
    print_json(&json!({ "questions": ids(&questions) }))
}

pub fn list_mock(drill: &Drill, scope: &Scope, count: usize, minutes: usize) -> Result<()> {
    let questions = plan::mock(drill.bank, &drill.state()?, scope, count);
    print_json(&json!({ "questions": ids(&questions), "minutes": minutes }))
}

pub fn stats(drill: &Drill, json: bool, terminal: &mut Terminal) -> Result<()> {
    let stats = Stats::new(drill.bank, &drill.state()?, drill.clock);
    match json {
        true => print_json(&stats),
        false => Ok(stats.print(terminal)?),
    }
}

/// A deck to write.
pub enum Export<'a> {
    Package(&'a Path),
    Text(&'a Path),
}

pub fn export(bank: &Bank, deck: Export, json: bool, terminal: &mut Terminal) -> Result<()> {
    let (Export::Package(file) | Export::Text(file)) = deck;
    match deck {
        Export::Package(file) => package::write(bank, &bank.book.root, file)?,
        Export::Text(file) => {
            let written = fs::write(file, anki::export(bank));
            written.with_context(|| format!("{} cannot be written", file.display()))?;
        }
    }
    let count = bank.questions.len();
    if json {
        return print_json(&json!({ "questions": count, "file": file }));
    }
    let questions = counted(count, "question");
    Ok(terminal.line(&format!("{questions} in {}.", file.display()))?)
}

/// The exit status is 1 if there are problems.
pub fn lint(bank: &Bank, json: bool, terminal: &mut Terminal) -> Result<ExitCode> {
    let (count, problems) = (bank.questions.len(), &bank.problems);
    if json {
        print_json(&json!({ "questions": count, "problems": problems }))?;
    } else {
        for problem in problems {
            terminal.line(&problem.to_string())?;
        }
        terminal.line(&format!(
            "{} without problems, {}.",
            counted(count, "question"),
            counted(problems.len(), "problem")
        ))?;
    }
    Ok(ExitCode::from(u8::from(!problems.is_empty())))
}

pub fn pages(bank: &Bank, root: &Path, json: bool, terminal: &mut Terminal) -> Result<()> {
    ensure!(
        bank.problems.is_empty(),
        "the questions have problems; `drill lint` reports them"
    );
    let (count, folder) = (pages::write(bank, root)?, pages::FOLDER);
    match json {
        true => print_json(&json!({ "pages": count, "folder": folder })),
        false => Ok(terminal.line(&format!("{count} pages in {folder}."))?),
    }
}

/// Proves one question, or all in the scope. The exit status is 1 if an answer differs, and 3 if a proof was skipped.
pub fn prove(
    bank: &Bank,
    id: Option<&str>,
    scope: &Scope,
    json: bool,
    terminal: &mut Terminal,
) -> Result<ExitCode> {
    let questions: Vec<_> = match id {
        Some(id) => vec![bank.find(id)?],
        None => {
            let questions = bank.questions.iter();
            questions
                .filter(|question| question.has_proof() && scope.contains(question))
                .collect()
        }
    };
    let mut prover = Prover::new(&bank.book.root);
    prover.prepare(questions.iter().copied())?;
    let mut rows = Vec::new();
    let (mut proved, mut differ, mut skipped) = (0, 0, 0);
    for question in questions {
        let proof = prover.prove(question)?;
        if was_interrupted() {
            return Ok(ExitCode::from(INTERRUPTED));
        }
        match proof {
            Proof::Proved { .. } => proved += 1,
            Proof::Differs { .. } => differ += 1,
            Proof::Skipped(_) => skipped += 1,
        }
        match json {
            true => rows.push(json_row(question, &proof)),
            false => print_row(question, &proof, id.is_some(), terminal)?,
        }
    }
    let machine = machine::describe();
    if json {
        print_json(&json!({
            "machine": machine,
            "proved": proved,
            "differ": differ,
            "skipped": skipped,
            "proofs": rows,
        }))?;
    } else {
        terminal.line(&format!(
            "{proved} proved, {differ} differ here, {skipped} skipped ({machine})."
        ))?;
    }
    Ok(ExitCode::from(match (differ, skipped) {
        (1.., _) => 1,
        (_, 1..) => 3,
        _ => 0,
    }))
}

/// Returns the reason for the result, the lines that prove the answer, and the whole output.
fn parts(proof: &Proof) -> (&str, &[String], &[String]) {
    match proof {
        Proof::Proved { shown, lines } => ("", shown, lines),
        Proof::Differs { why, lines } => (why, &[], lines),
        Proof::Skipped(why) => (why, &[], &[]),
    }
}

fn json_row(question: &Question, proof: &Proof) -> serde_json::Value {
    let (why, shown, lines) = parts(proof);
    json!({
        "question": question.id,
        "topic": question.topic,
        "program": question.prove,
        "result": proof.word(),
        "why": why,
        "shown": shown,
        "lines": lines,
    })
}

fn print_row(
    question: &Question,
    proof: &Proof,
    with_output: bool,
    terminal: &mut Terminal,
) -> Result<()> {
    let (why, shown, lines) = parts(proof);
    let (word, id) = (proof.word(), &question.id);
    let program = question.prove.as_deref().unwrap_or("its own check");
    let row = format!("{word:<13} {id:<34} {program:<22} {why}");
    terminal.line(row.trim_end())?;
    if with_output || matches!(proof, Proof::Differs { .. }) {
        for line in lines {
            let mark = if shown.contains(line) { '*' } else { '|' };
            terminal.line(&format!("              {mark} {line}"))?;
        }
    }
    Ok(())
}
