//! What a question may refer to: the book's pages and their headings, the lab's programs, the exercises, the errata.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use course::exercise::Exercise;
use pulldown_cmark::{Event, HeadingLevel, Options, Parser, Tag, TagEnd};

use crate::bank::source;

/// The book around the bank.
#[derive(Debug)]
pub struct Book {
    /// Where the clone is.
    pub root: PathBuf,
    /// By file name, `private.md`.
    pub pages: BTreeMap<String, Page>,
    /// The stems of `book/lab/examples`.
    pub programs: BTreeSet<String>,
    /// The exercises' pages by their names.
    pub exercises: BTreeMap<String, String>,
    /// The claims that `errata.md` lists, and whether each holds as it stands; none where there is no such page.
    pub claims: Option<BTreeMap<u32, bool>>,
    /// The exercise that a page belongs to by its place in the summary.
    nearest: BTreeMap<String, String>,
}

/// A page of the book.
#[derive(Debug)]
pub struct Page {
    /// Its first heading.
    pub title: String,
    /// In their order.
    pub headings: Vec<Heading>,
    /// Its text, with what it includes.
    pub text: String,
    /// The file names that it links to, in their order.
    pub links: Vec<String>,
}

/// A heading of a page.
#[derive(Debug)]
pub struct Heading {
    /// As mdBook makes it.
    pub anchor: String,
    /// `1` for `#`.
    pub level: HeadingLevel,
    /// Where it begins in the page's text.
    pub start: usize,
}

impl Book {
    /// Reads what is there.
    ///
    /// # Errors
    /// If the book, the lab or the exercises cannot be read.
    pub fn read(root: &Path) -> Result<Book> {
        let mut pages = BTreeMap::new();
        for path in files(&root.join("book/src"), "md")? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name != "SUMMARY.md" {
                let text = with_includes(&path)?;
                pages.insert(name.into_owned(), page(text));
            }
        }
        let programs = files(&root.join("book/lab/examples"), "rs")?;
        let programs = programs.iter().filter_map(|path| path.file_stem());
        let programs = programs.map(|stem| stem.to_string_lossy().into_owned());
        let exercises = Exercise::all(root)?.into_iter();
        let exercises = exercises.map(|one| (one.name, one.about.page)).collect();
        let summary = root.join("book/src/SUMMARY.md");
        let summary =
            fs::read_to_string(&summary).with_context(|| summary.display().to_string())?;
        Ok(Book {
            root: root.to_owned(),
            claims: pages.get("errata.md").map(|page| claims(&page.text)),
            nearest: nearest(&summary, &exercises),
            pages,
            programs: programs.collect(),
            exercises,
        })
    }

    /// The exercise that a page leads to: it is the exercise's own, or it links to it.
    pub fn own_exercise(&self, page: &str) -> Option<&str> {
        let links = self.pages.get(page).map(|page| page.links.iter());
        let mut pages =
            std::iter::once(page).chain(links.into_iter().flatten().map(String::as_str));
        pages.find_map(|link| {
            let mut exercises = self.exercises.iter();
            exercises.find_map(|(name, page)| (page == link).then_some(name.as_str()))
        })
    }

    /// The exercise that practises what a page says: its own, or else the nearest in the summary.
    pub fn exercise_of(&self, page: &str) -> Option<&str> {
        let nearest = || self.nearest.get(page).map(String::as_str);
        self.own_exercise(page).or_else(nearest)
    }

    /// A page's title, or the file's name without its ending.
    pub fn title<'a>(&'a self, page: &'a str) -> &'a str {
        let stem = page.strip_suffix(".md").unwrap_or(page);
        self.pages.get(page).map_or(stem, |page| &page.title)
    }
}

impl Page {
    /// Whether it has a heading of that anchor.
    pub fn has(&self, anchor: &str) -> bool {
        self.headings.iter().any(|heading| heading.anchor == anchor)
    }

    /// The text below a heading, to the next one that is no deeper.
    pub fn section(&self, anchor: &str) -> Option<&str> {
        let mut headings = self.headings.iter();
        let heading = headings.find(|heading| heading.anchor == anchor)?;
        let end = headings.find(|next| next.level <= heading.level);
        let end = end.map_or(self.text.len(), |next| next.start);
        Some(self.text[heading.start..end].trim())
    }
}

fn files(folder: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let paths = entries.flatten().map(|entry| entry.path());
    let mut paths: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|found| found == ending))
        .collect();
    paths.sort();
    Ok(paths)
}

/// A page's text; a line that includes a whole file is that file, as an exercise's task is.
fn with_includes(path: &Path) -> Result<String> {
    let read = |path: &Path| fs::read_to_string(path).with_context(|| path.display().to_string());
    let mut text = String::new();
    for line in read(path)?.lines() {
        let file = line.strip_prefix("{{#include ");
        match file.and_then(|line| line.strip_suffix(".md}}")) {
            Some(file) => text += &read(&path.with_file_name(format!("{file}.md")))?,
            None => text += line,
        }
        text.push('\n');
    }
    Ok(text)
}

fn page(text: String) -> Page {
    let mut headings: Vec<Heading> = Vec::new();
    let mut links = Vec::new();
    let mut open: Option<(String, Heading)> = None;
    let mut title = None;
    let options = source::options() | Options::ENABLE_HEADING_ATTRIBUTES;
    for (event, range) in Parser::new_ext(&text, options).into_offset_iter() {
        match event {
            Event::Start(Tag::Heading { level, id, .. }) => {
                let heading = Heading {
                    anchor: id.map(|id| id.to_string()).unwrap_or_default(),
                    level,
                    start: range.start,
                };
                open = Some((String::new(), heading));
            }
            Event::Text(words) | Event::Code(words) => {
                if let Some((heading, _)) = &mut open {
                    heading.push_str(&words);
                }
            }
            Event::End(TagEnd::Heading(_)) => {
                if let Some((words, mut heading)) = open.take() {
                    if heading.anchor.is_empty() {
                        heading.anchor = anchor(&words, &headings);
                    }
                    headings.push(heading);
                    title.get_or_insert(words);
                }
            }
            Event::Start(Tag::Link { dest_url, .. }) => {
                let file = dest_url.split('#').next().unwrap_or_default();
                links.push(file.to_owned());
            }
            _ => {}
        }
    }
    Page {
        title: title.unwrap_or_default(),
        headings,
        text,
        links,
    }
}

/// A heading's anchor as mdBook makes it: a second one of the same words gets a number.
fn anchor(words: &str, before: &[Heading]) -> String {
    let kept = words.to_lowercase();
    let kept = kept.chars().filter_map(|letter| match letter {
        letter if letter.is_whitespace() => Some('-'),
        '-' | '_' => Some(letter),
        letter if letter.is_alphanumeric() => Some(letter),
        _ => None,
    });
    let plain: String = kept.collect();
    let taken = |anchor: &str| before.iter().any(|heading| heading.anchor == anchor);
    if !taken(&plain) {
        return plain;
    }
    let mut numbered = (1..).map(|number| format!("{plain}-{number}"));
    numbered.find(|anchor| !taken(anchor)).unwrap_or(plain)
}

/// The errata's statements, from the rows `| 15 | what it says | false | …`: whether each holds as it stands.
fn claims(text: &str) -> BTreeMap<u32, bool> {
    let claim = |line: &str| {
        let mut cells = line.trim().strip_prefix('|')?.split('|').map(str::trim);
        let number = cells.next()?.parse().ok()?;
        Some((number, cells.nth(1)? == "true"))
    };
    text.lines().filter_map(claim).collect()
}

/// The exercise that a page belongs to by its place in the summary: within its part the last before it, or else the
/// first after it.
fn nearest(summary: &str, exercises: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for part in summary.split("\n# ") {
        let links = part.lines().filter_map(|line| {
            let (_, link) = line.split_once("](")?;
            Some(link.trim_end().trim_end_matches(')'))
        });
        let links: Vec<_> = links.collect();
        let exercise = |page: &&str| {
            let mut exercises = exercises.iter();
            exercises.find_map(|(name, own)| (own == page).then_some(name))
        };
        for (index, page) in links.iter().enumerate() {
            let before = links[..=index].iter().rev().find_map(exercise);
            let after = || links[index..].iter().find_map(exercise);
            if let Some(name) = before.or_else(after) {
                found.insert((*page).to_owned(), name.clone());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchors_are_numbered_where_the_words_repeat() {
        let page = page("# The `brk` call\n## Run\na\n### In it\n## Run\nb\n".to_owned());
        let anchors: Vec<_> = page.headings.iter().map(|one| &*one.anchor).collect();
        assert_eq!(anchors, ["the-brk-call", "run", "in-it", "run-1"]);
        assert_eq!(page.section("run"), Some("## Run\na\n### In it"));
        assert_eq!(page.section("run-1"), Some("## Run\nb"));
        assert_eq!(page.title, "The brk call");
    }

    #[test]
    fn a_claim_is_a_row_of_the_errata() {
        let text = "| | It says | | So |\n|---|---|---|---|\n| 3 | a | true | b |\n| 15 | c | false | d |\n3 | no\n";
        assert_eq!(claims(text), BTreeMap::from([(3, true), (15, false)]));
    }

    #[test]
    fn a_page_belongs_to_the_exercise_before_it_or_after_it() {
        let exercises = [("one", "one.md"), ("two", "two.md")];
        let exercises = exercises.map(|(name, page)| (name.to_owned(), page.to_owned()));
        let summary = "# Summary\n\n# A\n- [a](a.md)\n  - [1](one.md)\n- [b](b.md)\n- [c]()\n  - [2](two.md)\n\n# B\n- [d](d.md)\n";
        let found = nearest(summary, &BTreeMap::from(exercises));
        let of = |page: &str| found.get(page).map(String::as_str);
        assert_eq!(of("a.md"), Some("one"), "the first after it");
        assert_eq!(of("b.md"), Some("one"), "the last before it");
        assert_eq!(of("two.md"), Some("two"));
        assert_eq!(of("d.md"), None, "another part");
    }
}
