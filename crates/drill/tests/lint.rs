//! The lint reports every problem of the questions in `bad`, and none of the book's questions.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use drill::bank::Bank;
use drill::bank::question::{Kind, Language, Question, TOPICS};

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

#[test]
fn the_small_clone_has_no_problems() {
    let bank = Bank::read(&tests().join("clone")).expect("a bank");
    assert_eq!(bank.problems, []);
    assert_eq!(bank.questions.len(), 14);
    assert_eq!(bank.uncorrected_claims(), BTreeSet::from([16]));
}

#[test]
fn every_problem_is_reported() {
    let bank = Bank::read_folder(&tests().join("clone"), &tests().join("bad")).expect("a bank");
    let problems = bank.problems.iter().map(|problem| format!("{problem}\n"));
    insta::assert_snapshot!(problems.collect::<String>());
    assert!(
        bank.questions.iter().all(|question| question.id == "twice"),
        "a question with a problem is left out"
    );
}

/// Only if there is no other problem, because a question with a problem is left out.
#[test]
fn a_program_that_no_question_shows_is_reported() {
    let folder = tempfile::tempdir().expect("a folder");
    let code = folder.path().join("code");
    std::fs::create_dir(&code).expect("a folder");
    std::fs::write(code.join("lost.c"), "").expect("a file");
    let bank = Bank::read_folder(&tests().join("clone"), folder.path()).expect("a bank");
    let problems: Vec<_> = bank.problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        problems,
        ["book/questions/code/lost.c:1: no question shows this program"]
    );
}

#[test]
fn the_books_questions_have_no_problems() {
    let root = course::root::find().expect("a clone");
    let bank = Bank::read(&root).expect("a bank");
    let problems: Vec<_> = bank.problems.iter().map(ToString::to_string).collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(!bank.questions.is_empty());
}

#[test]
fn the_questions_cover_the_book() {
    let root = course::root::find().expect("a clone");
    let bank = Bank::read(&root).expect("a bank");
    let questions = &bank.questions;
    assert!(questions.len() >= 80, "{} questions", questions.len());
    let proofs = questions
        .iter()
        .filter(|question| question.has_proof())
        .count();
    assert!(proofs >= 60, "{proofs} proofs");
    for topic in TOPICS {
        assert!(
            questions.iter().any(|question| question.topic == topic),
            "no question on {topic}"
        );
    }
    for level in 1..=4 {
        assert!(
            questions.iter().any(|question| question.level == level),
            "no question of level {level}"
        );
    }
    let types: BTreeSet<_> = questions
        .iter()
        .map(|question| question.type_name())
        .collect();
    assert_eq!(types.len(), 8, "{types:?}");
    let mocks = questions
        .iter()
        .filter(|one| matches!(one.kind, Kind::Mock { .. }))
        .count();
    assert!(mocks >= 5, "{mocks} mock questions; an interview has five");
    assert!(bank.book.claims.is_some(), "there is no errata");
    assert_eq!(
        bank.uncorrected_claims(),
        BTreeSet::new(),
        "claims that no question corrects"
    );
}

fn is_choice(question: &&Question) -> bool {
    matches!(question.kind, Kind::Choice { .. })
}

/// Returns whether the learner writes C, or finds a mistake in C.
fn is_c(question: &&Question) -> bool {
    match &question.kind {
        Kind::Write { language, .. } => *language == Language::C,
        Kind::Bug { .. } => {
            let listing = question.listing.as_ref();
            listing.is_some_and(|listing| listing.file.ends_with(".c"))
        }
        _ => false,
    }
}

/// Recognising an answer is easier than giving one, and an interview asks for code.
#[test]
fn the_mix_is_that_of_an_interview() {
    let root = course::root::find().expect("a clone");
    let bank = Bank::read(&root).expect("a bank");
    let all = bank.questions.len();
    let choices = bank.questions.iter().filter(is_choice).count();
    assert!(
        choices * 100 <= all * 35,
        "{choices} of {all} questions are multiple choice; at most 35 % may be"
    );
    let in_c = bank.questions.iter().filter(is_c).count();
    assert!(in_c >= 40, "{in_c} questions are about C code; at least 40");
}

/// `cargo run -- drill --level 1` is a deck for the first week: it has cards of every topic, and needs no exercise.
#[test]
fn every_topic_begins_with_the_first_week() {
    let root = course::root::find().expect("a clone");
    let bank = Bank::read(&root).expect("a bank");
    let first_week = bank.questions.iter().filter(|one| one.level == 1);
    let first_week: Vec<_> = first_week.filter(|one| !one.is_mock()).collect();
    for topic in TOPICS {
        assert!(
            first_week.iter().any(|one| one.topic == topic),
            "{topic} has no question of level 1"
        );
    }
    let choices = first_week.iter().copied().filter(is_choice).count();
    assert!(
        choices * 100 <= first_week.len() * 35,
        "{choices} of {} questions of level 1 are multiple choice",
        first_week.len()
    );
    let locked = first_week.iter().filter(|one| one.needs.is_some());
    let locked: Vec<_> = locked.map(|one| &one.id).collect();
    assert!(
        locked.is_empty(),
        "questions of level 1 that need an exercise: {locked:?}"
    );
}
