#!/usr/bin/env python3
"""Imports the package with Anki's own code. An edited package must keep the progress of its cards and add no duplicates.

    pip install anki
    python3 crates/drill/tests/anki_import_package.py

`cargo run -- drill export --apkg FILE` must have built the drill before.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from anki.buildinfo import version
from anki.collection import Collection, ImportAnkiPackageOptions, ImportAnkiPackageRequest

from anki_import import card_of, counts, import_deck

ROOT = Path(__file__).resolve().parents[3]
TARGET = ROOT / ".workbook/target"
QUESTION = "book/questions/fork/mechanism.md"
GUID = "anonymous-mappings/mechanism"
MARK = "Edited by the test."


def copy_clone(folder):
    """Makes a clone with its own questions. Times of modification are kept."""
    clone = folder / "clone"
    clone.mkdir()
    shutil.copytree(ROOT / "book", clone / "book", ignore=shutil.ignore_patterns("target"))
    for entry in ROOT.iterdir():
        if entry.name not in ["book", ".git", ".workbook", "target"]:
            (clone / entry.name).symlink_to(entry)
    return clone


def export(clone, format, file, **environment):
    environment = {**os.environ, "WORKBOOK_ROOT": str(clone), "CARGO_TARGET_DIR": str(TARGET), **environment}
    drill = TARGET / "debug/drill"
    subprocess.run([drill, "export", f"--{format}", file], env=environment, cwd=ROOT, check=True)
    return file


def open_collection(folder, name):
    collection = Collection(str(folder / f"{name}.anki2"))
    collection.set_config("fsrs", True)
    return collection


def import_package(collection, file, merge_notetypes=False):
    """Imports with the default settings of the dialogue, except for the merging of note types."""
    options = ImportAnkiPackageOptions(merge_notetypes=merge_notetypes)
    return collection.import_anki_package(ImportAnkiPackageRequest(package_path=str(file), options=options)).log


def progress(collection, guid):
    """Returns what an answer changes."""
    card = card_of(collection, guid)
    assert card.reps == 1, "the card was answered once"
    reviews = collection.db.all("select id, ease, ivl from revlog")
    assert len(reviews) == 1, reviews
    return card.id, card.reps, card.queue, card.type, card.due, card.ivl, card.memory_state, reviews


def answer(collection, guid):
    card = card_of(collection, guid)
    collection.sched.set_due_date([card.id], "0")
    collection.db.execute("delete from revlog")
    collection.decks.select(card.did)
    while True:
        card = collection.sched.getCard()
        assert card, f"{guid} is not asked"
        if card.note().guid == guid:
            break
        collection.sched.bury_cards([card.id])
    card.start_timer()
    collection.sched.answerCard(card, 3)


def test_progress(folder, clone, questions):
    collection = open_collection(folder, "package")
    log = import_package(collection, export(clone, "apkg", folder / "first.apkg"))
    assert len(log.new) == questions, log
    assert counts(collection) == (questions, questions), counts(collection)
    decks = {collection.decks.name(did) for did in collection.db.list("select distinct did from cards")}
    assert decks == {"Anonymous mappings"}, decks
    new = collection.db.scalar("select count(distinct due) from cards where queue = 0")
    assert new == questions, "every card is new, and has its place"

    note = card_of(collection, GUID).note()
    assert note.note_type()["name"] == "Anonymous mappings"
    assert "topic::fork" in note.tags, note.tags
    test_pages(collection)
    answer(collection, GUID)
    before = progress(collection, GUID)

    # Edit a question, and add one.
    question = clone / QUESTION
    text = question.read_text()
    question.write_text(text.replace("## Answer\n", f"## Answer\n\n{MARK}\n"))
    assert MARK in question.read_text()
    question.with_name("added-by-the-test.md").write_text(text)
    log = import_package(collection, export(clone, "apkg", folder / "second.apkg"))
    assert (len(log.new), len(log.updated)) == (1, questions), log
    assert counts(collection) == (questions + 1, questions + 1), counts(collection)
    assert MARK in card_of(collection, GUID).answer(), "the edit was imported"
    assert progress(collection, GUID) == before, (progress(collection, GUID), before)

    # The same package again, and the older one, change nothing.
    for file in ["second.apkg", "first.apkg"]:
        log = import_package(collection, folder / file)
        assert not log.new and not log.updated, (file, log)
        assert MARK in card_of(collection, GUID).answer()
        assert progress(collection, GUID) == before
    types = [kind.name for kind in collection.models.all_names_and_ids() if "Anonymous" in kind.name]
    assert types == ["Anonymous mappings"], types
    collection.close()


def test_pages(collection):
    """What a phone needs: wide code scrolls, the style is there, and no file is missing."""
    for card in collection.db.list("select id from cards"):
        card = collection.get_card(card)
        for shown in [card.question(), card.answer()]:
            assert "overflow-x: auto" in shown and "{{" not in re.sub(r"<pre>.*?</pre>", "", shown, flags=re.S), shown
            assert not re.search(r"<(img|script|link|iframe)\b|\bsrc=", re.sub("<code.*?</code>", "", shown, flags=re.S))
        guid = card.note().guid
        assert card.note()["Id"] in guid and card.note()["Id"] in card.answer(), guid


def test_text_before(folder, clone, questions):
    """A learner has imported the text file before."""
    collection = open_collection(folder, "text")
    log = import_deck(collection, export(clone, "anki", folder / "deck.tsv"))
    assert len(log.new) == questions, log
    answer(collection, GUID)
    before = progress(collection, GUID)
    file = export(clone, "apkg", folder / "package.apkg")

    log = import_package(collection, file)
    assert len(log.conflicting) == questions and not log.new, log
    assert counts(collection) == (questions, questions), counts(collection)
    assert progress(collection, GUID) == before

    log = import_package(collection, file, merge_notetypes=True)
    assert not log.new and not log.conflicting, log
    assert counts(collection) == (questions, questions), counts(collection)
    note = card_of(collection, GUID).note()
    assert note.note_type()["name"] == "Anonymous mappings", note.note_type()["name"]
    assert note["Front"] and note["Back"]
    assert progress(collection, GUID) == before, (progress(collection, GUID), before)
    collection.close()


def test_bytes(folder, clone):
    """Clones of the same questions give the same bytes, wherever they are."""
    fixed = {"SOURCE_DATE_EPOCH": "1800000000"}
    files = [(clone, "one", fixed), (ROOT, "two", fixed), (clone, "three", {}), (clone, "four", {})]
    one, two, three, four = [export(root, "apkg", folder / name, **time).read_bytes() for root, name, time in files]
    assert one == two, "another clone gives other bytes"
    assert three == four, "another second gives other bytes"
    assert one != three


def main():
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        clone = copy_clone(folder)
        questions = len(list((clone / "book/questions").glob("*/*.md")))
        test_bytes(folder, clone)
        test_text_before(folder, clone, questions)
        test_progress(folder, clone, questions)
    print(f"Anki {version}: a package of {questions} questions imported, edited and imported again; progress kept, no duplicates.")


if __name__ == "__main__":
    sys.exit(main())
