//! The lint reports every problem of the questions in `bad`, and none of the book's questions.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use drill::bank::Bank;
use drill::bank::question::{Kind, TOPICS};

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
