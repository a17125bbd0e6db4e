//! What the lint says: of a folder of bad questions everything at once, of the bank nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use drill::bank::Bank;
use drill::bank::question::{Kind, TOPICS};

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// The bank of the small clone that the tests work with is in order.
#[test]
fn the_small_clone_is_in_order() {
    let bank = Bank::read(&tests().join("clone")).expect("a bank");
    assert_eq!(bank.complaints, []);
    assert_eq!(bank.questions.len(), 14);
    assert_eq!(bank.claims_without_a_myth(), BTreeSet::from([16]));
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let bank = Bank::read_folder(&tests().join("clone"), &tests().join("bad")).expect("a bank");
    let complaints = bank
        .complaints
        .iter()
        .map(|complaint| format!("{complaint}\n"));
    insta::assert_snapshot!(complaints.collect::<String>());
    assert!(
        bank.questions.iter().all(|question| question.id == "twice"),
        "a question with a complaint is left out"
    );
}

/// That is said only where nothing else is wrong: a question with a complaint is not there to show it.
#[test]
fn a_program_that_no_question_shows_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let code = folder.path().join("code");
    std::fs::create_dir(&code).expect("a folder");
    std::fs::write(code.join("lost.c"), "").expect("a file");
    let bank = Bank::read_folder(&tests().join("clone"), folder.path()).expect("a bank");
    let complaints: Vec<_> = bank.complaints.iter().map(ToString::to_string).collect();
    assert_eq!(
        complaints,
        ["book/questions/code/lost.c:1: no question shows this program"]
    );
}

/// The book's own questions.
#[test]
fn the_bank_is_in_order() {
    let root = course::root::find().expect("a clone");
    let bank = Bank::read(&root).expect("a bank");
    let complaints: Vec<_> = bank.complaints.iter().map(ToString::to_string).collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    assert!(!bank.questions.is_empty());
}

/// What the bank has to be when it is whole.
#[test]
fn the_bank_covers_the_book() {
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
            "none on {topic}"
        );
    }
    for level in 1..=4 {
        assert!(
            questions.iter().any(|question| question.level == level),
            "none of level {level}"
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
    assert!(mocks >= 5, "{mocks} for a mock interview of five");
    assert!(bank.book.claims.is_some(), "there is no errata");
    assert_eq!(
        bank.claims_without_a_myth(),
        BTreeSet::new(),
        "claims without a myth"
    );
}
