//! Writes notes as an Anki package (`.apkg`): a zip archive with a SQLite database of Anki's schema 11. The same notes
//! become the same bytes.

use std::collections::BTreeSet;
use std::io::{Cursor, Write};

use anyhow::Result;
use rusqlite::{Connection, params};
use serde::Deserialize;
use serde_json::{Value, json};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// A deck, as the drill prints it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deck {
    pub name: String,
    /// In seconds since 1970. Anki updates a note that it has imported before only if this is later than before.
    pub modified: i64,
    /// In the order in which Anki shows the new cards.
    pub notes: Vec<Note>,
}

/// A note, which has one card.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Note {
    /// Identifies the note in every version of the deck, so that an import updates it and keeps its progress.
    pub guid: String,
    pub id: String,
    /// As HTML.
    pub front: String,
    /// As HTML.
    pub back: String,
    /// Separated by spaces.
    pub tags: String,
}

// These two never change. With another id, an import would add a second note type or deck.
const NOTE_TYPE: i64 = 1_764_000_000_001;
const DECK: i64 = 1_764_000_000_002;

/// When the templates or the style last changed, in seconds since 1970. Anki updates the note type only if this is later
/// than before.
const NOTE_TYPE_MODIFIED: i64 = 1_795_737_600;

/// The fields of the note type. The first two are those of Anki's `Basic`, so that Anki can merge the two types. The list
/// never changes: with another one, Anki would add a second note type. So two fields are in reserve.
const FIELDS: [&str; 5] = ["Front", "Back", "Id", "Reserved 1", "Reserved 2"];

const FRONT: &str = "{{Front}}";
const BACK: &str = "{{FrontSide}}\n<hr id=answer>\n{{Back}}\n<p class=id>{{Id}}</p>";
const STYLE: &str = include_str!("card.css");

/// Between the fields of a note.
const SEPARATOR: &str = "\x1f";

/// The ids of notes and cards are times in milliseconds. These are all in the past, and different for each guid.
const FIRST_ID: i64 = 1_577_836_800_000;
const IDS: u64 = 100_000_000_000;

/// Returns the contents of the package.
///
/// # Errors
/// Returns an error if SQLite cannot write its temporary file.
pub fn package(deck: &Deck) -> Result<Vec<u8>> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    // Its time is the beginning of 1980 everywhere.
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .unix_permissions(0o644);
    archive.start_file("collection.anki2", options)?;
    archive.write_all(&collection(deck)?)?;
    archive.start_file("media", options)?;
    archive.write_all(b"{}")?;
    Ok(archive.finish()?.into_inner())
}

/// Returns the contents of the database.
fn collection(deck: &Deck) -> Result<Vec<u8>> {
    let file = tempfile::NamedTempFile::new()?;
    let mut database = Connection::open(file.path())?;
    let transaction = database.transaction()?;
    transaction.execute_batch(include_str!("schema.sql"))?;
    let modified = deck.modified;
    transaction.execute(
        "INSERT INTO col VALUES (1, ?1, ?2, ?2, 11, 0, 0, 0, ?3, ?4, ?5, ?6, '{}')",
        params![
            FIRST_ID / 1000,
            modified * 1000,
            configuration().to_string(),
            json!({ NOTE_TYPE.to_string(): note_type() }).to_string(),
            decks(&deck.name, modified).to_string(),
            json!({ "1": options() }).to_string(),
        ],
    )?;
    let mut taken = BTreeSet::new();
    for (position, note) in (1..).zip(&deck.notes) {
        let id = unique_id(&note.guid, &mut taken);
        let fields = [&*note.front, &note.back, &note.id, "", ""].join(SEPARATOR);
        // Anki computes the sort field and the checksum itself.
        transaction.execute(
            "INSERT INTO notes VALUES (?, ?, ?, ?, -1, ?, ?, ?, 0, 0, '')",
            params![
                id,
                note.guid,
                NOTE_TYPE,
                modified,
                format!(" {} ", note.tags),
                fields,
                note.front
            ],
        )?;
        transaction.execute(
            "INSERT INTO cards VALUES (?1, ?1, ?2, 0, ?3, -1, 0, 0, ?4, 0, 0, 0, 0, 0, 0, 0, 0, '')",
            params![id, DECK, modified, position],
        )?;
    }
    transaction.commit()?;
    database.close().map_err(|(_, error)| error)?;
    Ok(std::fs::read(file.path())?)
}

/// Returns an id that depends on the guid, and on the others only if two guids collide.
fn unique_id(guid: &str, taken: &mut BTreeSet<i64>) -> i64 {
    // FNV-1a
    let hash = guid.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut id = FIRST_ID + (hash % IDS).cast_signed();
    while !taken.insert(id) {
        id += 1;
    }
    id
}

fn note_type() -> Value {
    let fields = (0..).zip(FIELDS).map(|(number, name): (usize, _)| {
        json!({
            "name": name, "ord": number, "sticky": false, "rtl": false, "font": "Arial", "size": 20, "media": [],
        })
    });
    json!({
        "id": NOTE_TYPE,
        "name": "Anonymous mappings",
        "type": 0,
        "mod": NOTE_TYPE_MODIFIED,
        "usn": -1,
        "sortf": 0,
        "did": DECK,
        "tmpls": [{
            "name": "Card 1", "ord": 0, "qfmt": FRONT, "afmt": BACK, "bqfmt": "", "bafmt": "", "did": null,
            "bfont": "", "bsize": 0,
        }],
        "flds": fields.collect::<Vec<_>>(),
        "css": STYLE,
        "latexPre": "",
        "latexPost": "",
        "latexsvg": false,
        "req": [[0, "any", [0]]],
        "tags": [],
        "vers": [],
    })
}

fn decks(name: &str, modified: i64) -> Value {
    let deck = |id: i64, name: &str| {
        json!({
            "id": id, "name": name, "mod": modified, "usn": -1, "collapsed": false, "browserCollapsed": false,
            "desc": "", "dyn": 0, "conf": 1, "extendNew": 0, "extendRev": 0, "newToday": [0, 0], "revToday": [0, 0],
            "lrnToday": [0, 0], "timeToday": [0, 0],
        })
    };
    json!({ "1": deck(1, "Default"), DECK.to_string(): deck(DECK, name) })
}

/// The options of a deck. An import leaves them out, unless the learner asks for them.
fn options() -> Value {
    json!({
        "id": 1, "name": "Default", "mod": 0, "usn": 0, "maxTaken": 60, "autoplay": true, "timer": 0, "replayq": true,
        "dyn": false,
        "new": {
            "bury": true, "delays": [1.0, 10.0], "initialFactor": 2500, "ints": [1, 4, 0], "order": 1, "perDay": 20,
        },
        "rev": {
            "bury": true, "ease4": 1.3, "ivlFct": 1.0, "maxIvl": 36500, "perDay": 200, "hardFactor": 1.2,
        },
        "lapse": {
            "delays": [10.0], "leechAction": 1, "leechFails": 8, "minInt": 1, "mult": 0.0,
        },
    })
}

fn configuration() -> Value {
    json!({
        "activeDecks": [1], "curDeck": 1, "curModel": NOTE_TYPE, "nextPos": 1, "sortType": "noteFld",
        "sortBackwards": false, "newSpread": 0, "collapseTime": 1200, "timeLim": 0, "estTimes": true,
        "dueCounts": true, "addToCur": true, "schedVer": 2,
    })
}
