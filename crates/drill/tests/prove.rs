//! The proofs: all hold here, and each fails where what it proves is made wrong.

#[allow(dead_code)] // Nothing is typed here.
mod desk;

use desk::Desk;
use drill::bank::Bank;
use drill::bank::question::{Kind, Question};
use drill::proof::{Proof, Prover, try_answer};
use serde_json::Value;

fn bank() -> Bank {
    let root = course::root::find().expect("a clone");
    Bank::read(&root).expect("a bank")
}

/// Builds where the lab is built for the book's own tests.
fn prover(bank: &Bank) -> Prover {
    let target = course::cargo::target(&bank.book.root).expect("cargo knows its target directory");
    Prover::building_in(&bank.book.root, &target)
}

fn proved(bank: &Bank) -> Vec<&Question> {
    let questions = bank.questions.iter();
    questions.filter(|question| question.has_proof()).collect()
}

#[test]
fn every_proof_holds_here() {
    let bank = bank();
    let mut prover = prover(&bank);
    let questions = proved(&bank);
    prover
        .prepare(questions.iter().copied())
        .expect("cargo builds the lab");
    let mut wrong = Vec::new();
    for question in questions {
        match prover.prove(question).expect("a result") {
            Proof::Proved { .. } => {}
            // A sandbox may have no compiler, an older kernel no such call.
            Proof::Skipped(why) if std::env::var_os("CI").is_none() => {
                println!("{}: {why}", question.id)
            }
            other => wrong.push(format!("{}: {other:?}", question.id)),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What a proof expects is made wrong, one thing at a time; then it must not hold any more.
#[test]
fn a_wrong_answer_is_not_proved() {
    let bank = bank();
    let mut prover = prover(&bank);
    let questions = proved(&bank);
    prover
        .prepare(questions.iter().copied())
        .expect("cargo builds the lab");
    let mut tried = 0;
    let mut held = Vec::new();
    for question in questions {
        for (what, wrong) in wrong_ones(question) {
            tried += 1;
            if matches!(
                prover.prove(&wrong).expect("a result"),
                Proof::Proved { .. }
            ) {
                held.push(format!("{}: {what}", question.id));
            }
        }
    }
    assert!(held.is_empty(), "proved, and wrong:\n{}", held.join("\n"));
    assert!(tried > 0);
}

/// Each line that it shows, its answer, and what it compiles.
fn wrong_ones(question: &Question) -> Vec<(String, Question)> {
    let mut all = Vec::new();
    for index in 0..question.shows.len() {
        let mut wrong = question.clone();
        wrong.shows[index] = spoilt(&question.shows[index]);
        all.push((format!("shows: {}", wrong.shows[index]), wrong));
    }
    let mut wrong = question.clone();
    match &mut wrong.kind {
        Kind::Output { answers } | Kind::Estimate { answers, .. } => {
            for answer in answers.iter_mut() {
                *answer = spoilt(answer);
            }
            all.push((format!("answer: {}", answers.join(" | ")), wrong));
        }
        Kind::Write { answer, .. } => {
            answer.clear();
            all.push(("no code".to_owned(), wrong));
        }
        _ => {}
    }
    if let Kind::Write { answer, .. } = &question.kind {
        // Slips that a check has to see. It is left out where the answer does not have it.
        for (right, wrong) in [
            ("PROT_WRITE", "PROT_READ"),
            ("PROT_NONE", "PROT_READ"),
            ("MAP_PRIVATE", "MAP_SHARED"),
            ("MAP_SHARED", "MAP_PRIVATE"),
            ("MAP_ANONYMOUS", "0"),
            ("-1, 0)", "-1, 1)"),
            ("MAP_FAILED", "NULL"),
            ("sizeof *tally", "sizeof tally"),
            ("MFD_CLOEXEC", "0"),
            ("MADV_POPULATE_WRITE", "MADV_POPULATE_READ"),
            ("PTHREAD_PROCESS_SHARED", "PTHREAD_PROCESS_PRIVATE"),
            ("1024 * 1024", "2 * 1024 * 1024"),
            ("1024 * 1024", "1000 * 1000"),
            ("(pages - 1)", "pages"),
            ("unsafe impl Send", "// "),
            ("unsafe impl Sync", "// "),
            ("!= 0", "== 0"),
            ("!= 1", "== 1"),
            ("return -1;", ";"),
            ("return error;", ";"),
            ("return NULL;", ";"),
        ] {
            if answer.contains(right) && holds(question, &answer.replace(right, wrong)) {
                all.push((format!("{wrong} for {right}"), question.clone()));
            }
        }
    }
    all
}

fn holds(question: &Question, answer: &str) -> bool {
    let Kind::Write {
        language, check, ..
    } = &question.kind
    else {
        return false;
    };
    matches!(
        try_answer(*language, check, answer).expect("a result"),
        Proof::Proved { .. }
    )
}

/// With another digit, or where there is none another letter, at its end.
fn spoilt(text: &str) -> String {
    let digit = text.rfind(|letter: char| letter.is_ascii_digit());
    let letter = || text.rfind(|letter: char| letter.is_ascii_alphabetic());
    let Some(index) = digit.or_else(letter) else {
        return format!("{text} not");
    };
    let other = match &text[index..=index] {
        "9" => "8",
        digit if digit.as_bytes()[0].is_ascii_digit() => "9",
        "x" => "y",
        _ => "x",
    };
    format!("{}{other}{}", &text[..index], &text[index + 1..])
}

#[test]
fn the_table_says_what_differs_and_what_was_skipped() {
    let desk = Desk::new();
    let ran = desk.run(&["prove", "--all"], &[]);
    assert_eq!(ran.status, Some(1), "{}", ran.stderr);
    insta::assert_snapshot!(ran.stdout.replace(&drill::proof::machine::words(), "…"));

    let ran = desk.run(&["prove", "--all", "--json"], &[]);
    let table: Value = serde_json::from_str(&ran.stdout).expect("one document");
    assert_eq!(table["differ"], 2);
    assert_eq!(desk.run(&["prove", "zeros"], &[]).status, Some(0));
    assert_eq!(desk.run(&["prove", "cannot"], &[]).status, Some(3));
    assert_eq!(
        desk.run(&["prove", "which"], &[]).status,
        Some(3),
        "nothing can be run"
    );
}
