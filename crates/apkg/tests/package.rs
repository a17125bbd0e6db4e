//! The contents of a package. `crates/drill/tests/anki_import_package.py` imports one with Anki's own code.

use std::io::{Cursor, Read};

use apkg::{Deck, Note, package};
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;
use zip::ZipArchive;

fn deck() -> Deck {
    let note = |id: &str| Note {
        guid: format!("deck/{id}"),
        id: id.to_owned(),
        front: format!("<p>{id}?</p>"),
        back: "<pre>a\nb</pre>".to_owned(),
        tags: "topic::fork level::1".to_owned(),
    };
    Deck {
        name: "Anonymous mappings".to_owned(),
        modified: 1_800_000_000,
        notes: ["one", "two"].map(note).into(),
    }
}

/// Returns the file of that name in the archive.
fn file(package: &[u8], name: &str) -> Vec<u8> {
    let mut archive = ZipArchive::new(Cursor::new(package)).expect("an archive");
    let mut bytes = Vec::new();
    let mut file = archive.by_name(name).expect("the file");
    file.read_to_end(&mut bytes).expect("its contents");
    bytes
}

/// Runs a query on the database in a package, and returns its only value.
fn value<T: rusqlite::types::FromSql>(package: &[u8], query: &str) -> T {
    let database = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(database.path(), file(package, "collection.anki2")).expect("a file");
    let database = Connection::open_with_flags(database.path(), OpenFlags::SQLITE_OPEN_READ_ONLY);
    let database = database.expect("a database");
    database
        .query_row(query, [], |row| row.get(0))
        .expect(query)
}

#[test]
fn the_same_deck_becomes_the_same_bytes() {
    let first = package(&deck()).expect("a package");
    // The times in the archive have a resolution of two seconds.
    std::thread::sleep(std::time::Duration::from_millis(2100));
    assert!(first == package(&deck()).expect("a package"));
    let mut other = deck();
    other.notes[0].back += ".";
    assert!(first != package(&other).expect("a package"));
}

#[test]
fn ids_do_not_depend_on_the_other_notes() {
    let id = |deck: &Deck| -> i64 {
        let query = "SELECT id FROM notes WHERE guid = 'deck/two'";
        value(&package(deck).expect("a package"), query)
    };
    let mut other = deck();
    other.notes.remove(0);
    assert_eq!(id(&deck()), id(&other));
}

#[test]
fn equal_guids_get_different_ids() {
    let mut twice = deck();
    twice.notes[1].guid = twice.notes[0].guid.clone();
    let package = package(&twice).expect("a package");
    assert_eq!(value::<i64>(&package, "SELECT count(*) FROM notes"), 2);
}

#[test]
fn a_note_has_its_fields_and_one_new_card() {
    let package = package(&deck()).expect("a package");
    assert_eq!(file(&package, "media"), b"{}");
    assert_eq!(value::<i64>(&package, "SELECT ver FROM col"), 11);
    let fields: String = value(&package, "SELECT flds FROM notes WHERE guid = 'deck/one'");
    assert_eq!(fields, "<p>one?</p>\x1f<pre>a\nb</pre>\x1fone\x1f\x1f");
    let models: String = value(&package, "SELECT models FROM col");
    let models: Value = serde_json::from_str(&models).expect("JSON");
    let names = |field: &Value| field["name"].as_str().map(str::to_owned);
    let model = models.as_object().and_then(|models| models.values().next());
    let names = model.expect("a note type")["flds"]
        .as_array()
        .map(|fields| {
            let names = fields.iter().filter_map(names);
            names.collect::<Vec<_>>()
        });
    // With other fields, Anki would add a second note type, and import each note once more.
    let frozen = ["Front", "Back", "Id", "Reserved 1", "Reserved 2"];
    assert_eq!(names.expect("a list"), frozen);
    let query = "SELECT group_concat(due) FROM (SELECT due FROM cards WHERE type = 0 ORDER BY due)";
    assert_eq!(value::<String>(&package, query), "1,2");
}
