//! The book's pages against the programs behind them: code, output, links.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

fn root() -> PathBuf {
    workbook::root::find().expect("a clone")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The pages' texts by name, as they are written: nothing is included yet.
fn pages() -> BTreeMap<String, String> {
    let mut pages = BTreeMap::new();
    for entry in fs::read_dir(root().join("book/src"))
        .expect("pages")
        .flatten()
    {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".md") && name != "SUMMARY.md" {
            pages.insert(name, read(&entry.path()));
        }
    }
    assert!(!pages.is_empty());
    pages
}

fn events(text: &str) -> Parser<'_> {
    Parser::new_ext(text, Options::ENABLE_TABLES)
}

/// Each fence: its info and its text.
fn fences(text: &str) -> Vec<(String, String)> {
    let mut fences = Vec::new();
    let mut open: Option<(String, String)> = None;
    for event in events(text) {
        match event {
            Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(info))) => {
                open = Some((info.to_string(), String::new()));
            }
            Event::Text(text) => {
                if let Some((_, code)) = &mut open {
                    code.push_str(&text);
                }
            }
            Event::End(TagEnd::CodeBlock) => fences.extend(open.take()),
            _ => {}
        }
    }
    fences
}

/// Code that only stands on a page is never compiled, and rots.
#[test]
fn rust_on_a_page_is_included_from_a_program() {
    let mut included = 0;
    for (page, text) in pages() {
        for (info, code) in fences(&text) {
            if !info.starts_with("rust") {
                continue;
            }
            let include = code
                .trim()
                .strip_prefix("{{#include ../")
                .and_then(|code| code.strip_suffix("}}"))
                .unwrap_or_else(|| panic!("{page}: this is not one include:\n{code}"));
            let (file, anchor) = include.split_once(':').expect("a file and an anchor");
            let program = read(&root().join("book").join(file));
            let begin = format!("// ANCHOR: {anchor}\n");
            let end = format!("// ANCHOR_END: {anchor}\n");
            assert!(
                program.contains(&begin) && program.contains(&end),
                "{page}: {file} has no {anchor}"
            );
            included += 1;
        }
    }
    assert!(included > 0);
}

/// Every program in the lab is shown, with what it prints; it fails by itself where its claim does not hold.
#[test]
fn a_program_prints_what_its_page_says() {
    let mut waiting: BTreeSet<String> = fs::read_dir(root().join("book/lab/examples"))
        .expect("programs")
        .flatten()
        .filter_map(|entry| Some(entry.path().file_stem()?.to_string_lossy().into_owned()))
        .collect();
    for (page, text) in pages() {
        for (info, shown) in fences(&text) {
            if info != "console" {
                continue;
            }
            let (command, output) = shown.split_once('\n').unwrap_or((&shown, ""));
            let Some(name) = command.strip_prefix("$ cargo run -q -p lab --example ") else {
                panic!("{page}: a console fence runs a program of the lab, and not {command}");
            };
            assert_eq!(run(name), output, "{page}: {name}");
            waiting.remove(name);
        }
    }
    assert!(waiting.is_empty(), "no page shows {waiting:?}");
}

fn run(name: &str) -> String {
    let output = Command::new(env!("CARGO"))
        .args(["run", "-q", "-p", "lab", "--example", name])
        .current_dir(root())
        .output()
        .expect("cargo starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_link_leads_somewhere() {
    let pages = pages();
    let mut links = 0;
    for (page, text) in &pages {
        for event in events(text) {
            let Event::Start(Tag::Link { dest_url, .. }) = event else {
                continue;
            };
            if dest_url.starts_with("https://") {
                continue;
            }
            let (target, fragment) = dest_url.split_once('#').unwrap_or((&dest_url, ""));
            let target = if target.is_empty() { page } else { target };
            let Some(text) = pages.get(target) else {
                panic!("{page} links to {dest_url}, and there is no such page");
            };
            assert!(
                fragment.is_empty() || headings(text).contains(fragment),
                "{page} links to {dest_url}, and {target} has no such heading"
            );
            links += 1;
        }
    }
    assert!(links > 0);
}

/// The anchors of a page's headings, as mdBook makes them of plain words.
fn headings(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut heading: Option<String> = None;
    for event in events(text) {
        match event {
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::Text(words) | Event::Code(words) => {
                if let Some(heading) = &mut heading {
                    heading.push_str(&words);
                }
            }
            Event::End(TagEnd::Heading(_)) => {
                let words = heading.take().unwrap_or_default().to_lowercase();
                let kept = words.chars().filter_map(|letter| match letter {
                    ' ' => Some('-'),
                    '-' | '_' => Some(letter),
                    letter if letter.is_alphanumeric() => Some(letter),
                    _ => None,
                });
                found.insert(kept.collect());
            }
            _ => {}
        }
    }
    found
}

#[test]
fn every_page_is_in_the_summary() {
    let summary = read(&root().join("book/src/SUMMARY.md"));
    let listed: BTreeSet<String> = events(&summary)
        .filter_map(|event| match event {
            Event::Start(Tag::Link { dest_url, .. }) if !dest_url.is_empty() => {
                Some(dest_url.to_string())
            }
            _ => None,
        })
        .collect();
    let written: BTreeSet<String> = pages().into_keys().collect();
    assert_eq!(listed, written);
}
