//! The format of the Anki deck. `anki_import.py` tests the import with Anki's own code.

#[allow(dead_code, reason = "nothing is typed here")]
mod learner;

use std::collections::BTreeSet;
use std::fs;

use drill::bank::Bank;
use drill::export::anki;
use learner::{Learner, clone};

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
