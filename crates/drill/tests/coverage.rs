//! `book/questions/coverage.toml` lists questions from public interview lists, and the cards that answer them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use drill::bank::{Bank, FOLDER};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Coverage {
    /// Where a question was found, by the short name that the questions use.
    sources: BTreeMap<String, String>,
    question: Vec<Asked>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    asks: String,
    sources: Vec<String>,
    #[serde(default)]
    cards: Vec<String>,
    out_of_scope: Option<String>,
}

fn coverage() -> Coverage {
    let path = course::root::find().expect("a clone");
    let path = path.join(FOLDER).join("coverage.toml");
    let text = fs::read_to_string(&path).expect("coverage.toml");
    toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The letters and digits of a question, so that another spelling of it counts as the same.
fn spelling(asks: &str) -> String {
    let letters = asks.chars().filter(|letter| letter.is_alphanumeric());
    letters.flat_map(char::to_lowercase).collect()
}

/// Returns what is wrong with the file.
fn problems(coverage: &Coverage, cards: &BTreeSet<&str>) -> Vec<String> {
    let mut problems = Vec::new();
    let mut spellings = BTreeSet::new();
    let mut used = BTreeSet::new();
    for asked in &coverage.question {
        let mut report = |problem: String| problems.push(format!("{}: {problem}", asked.asks));
        if !spellings.insert(spelling(&asked.asks)) {
            report("is listed twice".to_owned());
        }
        match (&*asked.cards, asked.out_of_scope.as_deref().map(str::trim)) {
            ([], None | Some("")) => report("needs cards, or a reason as out_of_scope".to_owned()),
            ([_, ..], Some(_)) => report("has both cards and out_of_scope".to_owned()),
            _ => {}
        }
        let mut named = BTreeSet::new();
        for card in &asked.cards {
            if !cards.contains(&**card) {
                report(format!("there is no card {card}"));
            }
            if !named.insert(card) {
                report(format!("names {card} twice"));
            }
        }
        if asked.sources.is_empty() {
            report("names no source".to_owned());
        }
        for source in &asked.sources {
            used.insert(source);
            if !coverage.sources.contains_key(source) {
                report(format!("there is no source {source}"));
            }
        }
    }
    for (name, address) in &coverage.sources {
        if !used.contains(name) {
            problems.push(format!("no question names the source {name}"));
        }
        if !address.starts_with("http") {
            problems.push(format!("the source {name} has no address"));
        }
    }
    problems
}

#[test]
fn every_public_question_has_a_card_or_a_reason() {
    let root = course::root::find().expect("a clone");
    let bank = Bank::read(&root).expect("a bank");
    let cards = bank.questions.iter().map(|card| &*card.id).collect();
    let coverage = coverage();
    let problems = problems(&coverage, &cards);
    assert!(problems.is_empty(), "{}", problems.join("\n"));

    let questions = coverage.question.len();
    assert!(questions >= 150, "{questions} questions");
    let out_of_scope = coverage.question.iter();
    let out_of_scope = out_of_scope.filter(|asked| asked.out_of_scope.is_some());
    let out_of_scope = out_of_scope.count();
    assert!(
        out_of_scope * 20 <= questions,
        "{out_of_scope} of {questions} questions are out of scope"
    );
}

#[test]
fn every_kind_of_problem_is_found() {
    let coverage: Coverage = toml::from_str(
        r#"
        [sources]
        list = "https://example.org"
        unused = "example.org"

        [[question]]
        asks = "Heap or stack?"
        sources = ["list"]
        cards = ["known", "known", "unknown"]

        [[question]]
        asks = "heap, or stack"
        sources = ["other"]

        [[question]]
        asks = "Both?"
        sources = []
        cards = ["known"]
        out_of_scope = "a reason"

        [[question]]
        asks = "Neither?"
        sources = ["list"]
        out_of_scope = " "
        "#,
    )
    .expect("a table");
    assert_eq!(
        problems(&coverage, &BTreeSet::from(["known"])),
        [
            "Heap or stack?: names known twice",
            "Heap or stack?: there is no card unknown",
            "heap, or stack: is listed twice",
            "heap, or stack: needs cards, or a reason as out_of_scope",
            "heap, or stack: there is no source other",
            "Both?: has both cards and out_of_scope",
            "Both?: names no source",
            "Neither?: needs cards, or a reason as out_of_scope",
            "no question names the source unused",
            "the source unused has no address",
        ]
    );
}
