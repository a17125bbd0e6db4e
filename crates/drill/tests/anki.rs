//! The format of the Anki deck. `anki_import.py` tests the import with Anki's own code.

#[allow(dead_code, reason = "nothing is typed here")]
mod learner;

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, UNIX_EPOCH};

use drill::bank::Bank;
use drill::export::anki;
use learner::{Learner, clone};
use serde_json::Value;

#[test]
fn a_line_has_an_id_a_front_a_back_and_tags() {
    let bank = Bank::read(&clone()).expect("a bank");
    let text = anki::export(&bank);
    let mut lines = text.lines();
    let head: Vec<_> = lines
        .by_ref()
        .take_while(|line| line.starts_with('#'))
        .collect();
    assert_eq!(
        head,
        [
            "#separator:tab",
            "#html:true",
            "#guid column:1",
            "#notetype:Basic",
            "#deck:Anonymous mappings",
            "#tags column:4"
        ]
    );
    let mut ids = BTreeSet::new();
    let mut count = 0;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<_> = line.split('\t').collect();
        assert_eq!(fields.len(), 4, "{line}");
        for field in &fields {
            let inside = field
                .strip_prefix('"')
                .and_then(|field| field.strip_suffix('"'));
            let inside = inside.unwrap_or_else(|| panic!("no quotes: {field}"));
            assert_eq!(
                inside.replace("\"\"", "").matches('"').count(),
                0,
                "{field}"
            );
        }
        ids.insert(fields[0]);
        count += 1;
    }
    assert_eq!(
        (count, ids.len()),
        (bank.questions.len(), count),
        "each question has its own id"
    );
    insta::assert_snapshot!(text);
}

/// So a learner who has imported one of them gets no duplicates from the other.
#[test]
fn the_package_has_the_notes_of_the_text() {
    let root = course::root::find().expect("a clone");
    let bank = Bank::read(&root).expect("a bank");
    let time = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let deck = serde_json::to_value(anki::deck(&bank, time)).expect("JSON");
    assert_eq!(deck["modified"], 1_800_000_000);
    let notes = deck["notes"].as_array().expect("a list");
    let columns = |note: &Value| {
        let columns = ["guid", "front", "back", "tags"].map(|name| {
            let text = note[name].as_str().expect("a text");
            format!("\"{}\"", text.replace('"', "\"\""))
        });
        columns.join("\t")
    };
    let in_package: BTreeSet<_> = notes.iter().map(columns).collect();
    let text = anki::export(&bank);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let in_text: BTreeSet<_> = lines.map(str::to_owned).collect();
    assert_eq!(in_package, in_text);
    // A phone introduces the topics in turn, too.
    let topics = notes.iter().map(|note| {
        let tags = note["tags"].as_str().expect("a text");
        tags.split(' ').next().expect("a topic")
    });
    let first: BTreeSet<_> = topics.take(8).collect();
    assert!(first.len() > 4, "{first:?}");
}

#[test]
fn an_edited_question_keeps_its_id() {
    let mut bank = Bank::read(&clone()).expect("a bank");
    let ids = |bank: &Bank| {
        let text = anki::export(bank);
        let ids = text.lines().filter_map(|line| line.split_once('\t'));
        ids.map(|(id, _)| id.to_owned()).collect::<Vec<_>>()
    };
    let before = ids(&bank);
    for question in &mut bank.questions {
        question.prompt += " Edited.";
    }
    assert_eq!(ids(&bank), before);
}

#[test]
fn the_command_writes_the_deck() {
    let learner = Learner::new();
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = learner.command(&["export", "--anki", "deck.tsv"]);
    let ran = learner::finish(command.current_dir(folder.path()), &[]);
    assert_eq!(
        (ran.status, &*ran.stdout),
        (Some(0), "14 questions in deck.tsv.\n")
    );
    let bank = Bank::read(&clone()).expect("a bank");
    assert_eq!(
        fs::read_to_string(folder.path().join("deck.tsv")).expect("a file"),
        anki::export(&bank)
    );
}
