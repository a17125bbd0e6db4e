#!/usr/bin/env python3
"""Imports the deck with Anki's own code. An edited deck must keep its progress and have no duplicates.

    pip install anki
    python3 crates/drill/tests/anki_import.py DECK.tsv

`cargo run -- drill export --anki DECK.tsv` writes DECK.tsv.
"""

import sys
import tempfile
from pathlib import Path

from anki.buildinfo import version
from anki.collection import Collection, ImportCsvRequest

MARK = "Edited by the test."


def import_deck(collection, path):
    """Imports with the default settings of the dialogue, and returns the log of the import."""
    metadata = collection.get_csv_metadata(path=str(path), delimiter=None)
    request = ImportCsvRequest(path=str(path), metadata=metadata)
    return collection.import_csv(request).log


def counts(collection):
    return collection.note_count(), collection.card_count()


def card_of(collection, guid):
    note = collection.db.scalar("select id from notes where guid = ?", guid)
    assert note, f"no note has the guid {guid}"
    return collection.get_note(note).cards()[0]


def progress(card):
    """Returns what an answer changes."""
    return card.id, card.reps, card.queue, card.type, card.due, card.ivl, card.memory_state


def main():
    deck = Path(sys.argv[1])
    lines = deck.read_text().splitlines()
    questions = [line for line in lines if not line.startswith("#")]
    guids = [line.split("\t")[0].strip('"') for line in questions]
    assert questions and len(set(guids)) == len(guids)

    with tempfile.TemporaryDirectory() as folder:
        collection = Collection(str(Path(folder) / "collection.anki2"))
        collection.set_config("fsrs", True)

        log = import_deck(collection, deck)
        assert len(log.new) == len(questions), log
        assert counts(collection) == (len(questions), len(questions)), counts(collection)
        decks = {collection.decks.name(card_of(collection, guid).did) for guid in guids}
        assert decks == {"Anonymous mappings"}, decks

        note = card_of(collection, guids[0]).note()
        kind = note.note_type()["name"]
        assert kind == "Basic", kind
        assert any(tag.startswith("topic::") for tag in note.tags), note.tags
        shown = card_of(collection, guids[0]).answer()
        assert "<p>" in shown and '""' not in shown, shown

        collection.decks.select(collection.decks.id_for_name("Anonymous mappings"))
        card = collection.sched.getCard()
        card.start_timer()
        collection.sched.answerCard(card, 3)
        guid = card.note().guid
        answered = progress(card_of(collection, guid))
        assert answered[1] == 1, "the card was answered once"
        reviews = collection.db.scalar("select count() from revlog")
        assert reviews == 1

        # Edit every question, add one, and reverse their order.
        head = [line for line in lines if line.startswith("#")]
        edited = []
        for line in reversed(questions):
            fields = line.split("\t")
            fields[2] = fields[2][:-1] + f" <p>{MARK}</p>" + '"'
            edited.append("\t".join(fields))
        added = edited[0].split("\t")
        added[0] = '"anonymous-mappings/added-by-the-test"'
        added[1] = '"<p>New?</p>"'
        edited.append("\t".join(added))
        other = Path(folder) / "edited.tsv"
        other.write_text("\n".join(head + edited) + "\n")

        log = import_deck(collection, other)
        assert (len(log.new), len(log.updated)) == (1, len(questions)), log
        assert counts(collection) == (len(questions) + 1, len(questions) + 1), counts(collection)
        card = card_of(collection, guid)
        assert progress(card) == answered, (progress(card), answered)
        assert MARK in card.note().fields[1], "the edit was imported"
        assert collection.db.scalar("select count() from revlog") == reviews

        # Importing the same file again changes nothing.
        import_deck(collection, other)
        assert counts(collection) == (len(questions) + 1, len(questions) + 1), counts(collection)
        assert progress(card_of(collection, guid)) == answered
        collection.close()
    print(f"Anki {version}: {len(questions)} questions imported, edited and imported again; progress kept, no duplicates.")


if __name__ == "__main__":
    main()
