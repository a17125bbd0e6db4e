//! The book's drill pages: they match the questions, the summary lists them, and their links work.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use drill::bank::Bank;
use drill::export::pages::{self, FOLDER};
use pulldown_cmark::{Event, Parser, Tag};

fn root() -> PathBuf {
    course::root::find().expect("a clone")
}

fn bank() -> Bank {
    Bank::read(&root()).expect("a bank")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn pages_of_the_small_clone() {
    let clone = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clone");
    let pages = pages::make(&Bank::read(&clone).expect("a bank"));
    let names: Vec<_> = pages.keys().map(String::as_str).collect();
    assert_eq!(names, ["anonymous.md", "fork.md", "index.md", "private.md"]);
    insta::assert_snapshot!(pages["anonymous.md"]);
    insta::assert_snapshot!(pages["private.md"]);
    insta::assert_snapshot!(pages["fork.md"]);
}

#[test]
fn the_committed_pages_match_the_questions() {
    let mut committed = BTreeMap::new();
    for entry in fs::read_dir(root().join(FOLDER)).expect("pages").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        committed.insert(name, read(&entry.path()));
    }
    let made = pages::make(&bank());
    let names = |pages: &BTreeMap<String, String>| pages.keys().cloned().collect::<BTreeSet<_>>();
    let remedy = "update them with `cargo run -- drill pages`";
    assert_eq!(names(&committed), names(&made), "{remedy}");
    for (name, text) in made {
        assert!(
            committed[&name] == text,
            "{FOLDER}/{name} does not match the questions: {remedy}"
        );
    }
}

#[test]
fn every_page_is_in_the_summary() {
    let summary = read(&root().join("book/src/SUMMARY.md"));
    let listed = Parser::new(&summary).filter_map(|event| match event {
        Event::Start(Tag::Link { dest_url, .. }) => {
            dest_url.strip_prefix("drill/").map(str::to_owned)
        }
        _ => None,
    });
    let listed: BTreeSet<_> = listed.collect();
    let made: BTreeSet<_> = pages::make(&bank()).into_keys().collect();
    assert_eq!(
        listed, made,
        "book/src/SUMMARY.md must list every drill page"
    );
}

#[test]
fn every_link_works() {
    let bank = bank();
    let pages = pages::make(&bank);
    let mut links = 0;
    for (name, text) in &pages {
        for event in Parser::new(text) {
            let Event::Start(Tag::Link { dest_url, .. }) = event else {
                continue;
            };
            let (file, fragment) = dest_url.split_once('#').unwrap_or((&dest_url, ""));
            links += 1;
            match file.strip_prefix("../") {
                Some(file) => {
                    let page = bank.book.pages.get(file);
                    let page = page.unwrap_or_else(|| panic!("{name} links to {dest_url}"));
                    assert!(
                        fragment.is_empty() || page.has(fragment),
                        "{name} links to {dest_url}"
                    );
                }
                None => assert!(
                    dest_url.starts_with("https://") || pages.contains_key(file),
                    "{name} links to {dest_url}"
                ),
            }
        }
    }
    assert!(links > 0);
}

/// The pages are not indexed, because a search would show the folded answers.
#[test]
fn answers_are_folded_and_not_indexed() {
    let bank = bank();
    for (name, text) in pages::make(&bank) {
        let questions = text.matches("\n## ").count();
        assert_eq!(
            text.matches("<details><summary>Answer</summary>").count(),
            questions,
            "{name}"
        );
        assert_eq!(text.matches("</details>").count(), questions, "{name}");
    }
    let book: toml::Table = read(&root().join("book/book.toml"))
        .parse()
        .expect("a table");
    let search = &book["output"]["html"]["search"];
    assert_eq!(
        search["chapter"]["drill"]["enable"].as_bool(),
        Some(false),
        "book/book.toml"
    );
}
