//! What a question may refer to: the pages and headings of the book, the lab's programs, the exercises, the errata.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use course::exercise::Exercise;
use pulldown_cmark::{Event, HeadingLevel, Options, Parser, Tag, TagEnd};

use super::{include, source};

#[derive(Debug)]
pub struct Book {
    /// The root of the clone.
    pub root: PathBuf,
    /// The pages by their file names, such as `private.md`.
    pub pages: BTreeMap<String, Page>,
    /// The names of the programs in `book/lab/examples`.
    pub programs: BTreeSet<String>,
    /// The page of each exercise.
    pub exercises: BTreeMap<String, String>,
    /// Whether each statement in `errata.md` is true; `None` if there is no such page.
    pub claims: Option<BTreeMap<u32, bool>>,
    /// The exercise that is nearest to each page in the summary.
    nearest_exercise: BTreeMap<String, String>,
}

#[derive(Debug)]
pub struct Page {
    /// The first heading.
    pub title: String,
    pub headings: Vec<Heading>,
    /// The text with the Markdown files that it includes.
    pub text: String,
    /// The file names of its links.
    pub links: Vec<String>,
}

#[derive(Debug)]
pub struct Heading {
    /// The id that mdBook gives it.
    pub anchor: String,
    pub level: HeadingLevel,
    /// Its offset in the page's text.
    pub start: usize,
}

impl Book {
    /// Reads the book of the clone in `root`.
    ///
    /// # Errors
    /// Returns an error if the book, the lab or the exercises cannot be read.
    pub fn read(root: &Path) -> Result<Book> {
        let mut pages = BTreeMap::new();
        for path in files(&root.join("book/src"), "md")? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name != "SUMMARY.md" {
                pages.insert(name.into_owned(), Page::parse(read_page(&path)?));
            }
        }
        let programs = files(&root.join("book/lab/examples"), "rs")?;
        let programs = programs.iter().filter_map(|path| path.file_stem());
        let programs = programs.map(|stem| stem.to_string_lossy().into_owned());
        let exercises = Exercise::all(root)?.into_iter();
        let exercises = exercises.map(|one| (one.name, one.about.page)).collect();
        let summary = read(&root.join("book/src/SUMMARY.md"))?;
        Ok(Book {
            root: root.to_owned(),
            claims: pages.get("errata.md").map(|page| claims(&page.text)),
            nearest_exercise: nearest_exercise(&summary, &exercises),
            pages,
            programs: programs.collect(),
            exercises,
        })
    }

    /// Returns the exercise that a page belongs to or links to.
    pub fn own_exercise(&self, page: &str) -> Option<&str> {
        let links = self.pages.get(page).map(|page| page.links.iter());
        let links = links.into_iter().flatten().map(String::as_str);
        let mut pages = std::iter::once(page).chain(links);
        pages.find_map(|page| exercise_on(page, &self.exercises))
    }

    /// Returns the exercise that practises what a page explains: the one that it belongs or links to, or else the
    /// nearest in the summary.
    pub fn exercise_of(&self, page: &str) -> Option<&str> {
        let nearest = || self.nearest_exercise.get(page).map(String::as_str);
        self.own_exercise(page).or_else(nearest)
    }

    /// Returns the title of a page, or its file name without `.md` if the page does not exist.
    pub fn title<'a>(&'a self, page: &'a str) -> &'a str {
        let stem = page.strip_suffix(".md").unwrap_or(page);
        self.pages.get(page).map_or(stem, |page| &page.title)
    }
}

fn exercise_on<'a>(page: &str, exercises: &'a BTreeMap<String, String>) -> Option<&'a str> {
    let mut exercises = exercises.iter();
    exercises.find_map(|(name, its_page)| (its_page == page).then_some(name.as_str()))
}

impl Page {
    fn parse(text: String) -> Page {
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
                Event::Text(text) | Event::Code(text) => {
                    if let Some((heading, _)) = &mut open {
                        heading.push_str(&text);
                    }
                }
                Event::End(TagEnd::Heading(_)) => {
                    if let Some((text, mut heading)) = open.take() {
                        if heading.anchor.is_empty() {
                            heading.anchor = anchor(&text, &headings);
                        }
                        headings.push(heading);
                        title.get_or_insert(text);
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

    /// Returns whether the page has a heading with that anchor.
    pub fn has(&self, anchor: &str) -> bool {
        self.headings.iter().any(|heading| heading.anchor == anchor)
    }

    /// Returns a heading and the text below it, up to the next heading of the same or a higher level.
    pub fn section(&self, anchor: &str) -> Option<&str> {
        let mut headings = self.headings.iter();
        let heading = headings.find(|heading| heading.anchor == anchor)?;
        let end = headings.find(|next| next.level <= heading.level);
        let end = end.map_or(self.text.len(), |next| next.start);
        Some(self.text[heading.start..end].trim())
    }
}

/// Returns the sorted paths of the files with that extension.
fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder);
    let entries = entries.with_context(|| format!("{} cannot be read", folder.display()))?;
    let paths = entries.flatten().map(|entry| entry.path());
    let mut paths: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    paths.sort();
    Ok(paths)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))
}

/// Reads a page. Included Markdown is part of it, such as the task of an exercise; included programs are not.
fn read_page(path: &Path) -> Result<String> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut text = String::new();
    for line in read(path)?.lines() {
        let included = line
            .ends_with(".md}}")
            .then(|| include::included(line, folder));
        match included.flatten() {
            Some(included) => text += &included,
            None => text += line,
        }
        text.push('\n');
    }
    Ok(text)
}

/// Returns the id that mdBook gives to a heading. Repeated headings are numbered.
fn anchor(heading: &str, before: &[Heading]) -> String {
    let letters = heading.chars().flat_map(char::to_lowercase);
    let letters = letters.filter_map(|letter| match letter {
        letter if letter.is_whitespace() => Some('-'),
        letter if letter.is_alphanumeric() || matches!(letter, '-' | '_') => Some(letter),
        _ => None,
    });
    let plain: String = letters.collect();
    let taken = |anchor: &str| before.iter().any(|heading| heading.anchor == anchor);
    if !taken(&plain) {
        return plain;
    }
    let mut numbered = (1..).map(|number| format!("{plain}-{number}"));
    numbered.find(|anchor| !taken(anchor)).unwrap_or(plain)
}

/// Parses the rows of the errata, `| 15 | statement | false | …`.
fn claims(text: &str) -> BTreeMap<u32, bool> {
    let claim = |line: &str| {
        let mut cells = line.trim().strip_prefix('|')?.split('|').map(str::trim);
        let number = cells.next()?.parse().ok()?;
        Some((number, cells.nth(1)? == "true"))
    };
    text.lines().filter_map(claim).collect()
}

/// Returns the exercise that is nearest to each page in the summary: within the page's part, the last exercise before
/// the page, or else the first one after it.
fn nearest_exercise(
    summary: &str,
    exercises: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut nearest = BTreeMap::new();
    for part in summary.split("\n# ") {
        let pages = part.lines().filter_map(|line| {
            let (_, link) = line.split_once("](")?;
            Some(link.trim_end().trim_end_matches(')'))
        });
        let pages: Vec<_> = pages.collect();
        let exercise = |page: &&str| exercise_on(page, exercises);
        for (index, page) in pages.iter().enumerate() {
            let before = pages[..=index].iter().rev().find_map(exercise);
            let after = || pages[index..].iter().find_map(exercise);
            if let Some(name) = before.or_else(after) {
                nearest.insert((*page).to_owned(), name.to_owned());
            }
        }
    }
    nearest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_headings_get_numbered_anchors() {
        let page = Page::parse("# The `brk` call\n## Run\na\n### In it\n## Run\nb\n".to_owned());
        let anchors: Vec<_> = page.headings.iter().map(|one| &*one.anchor).collect();
        assert_eq!(anchors, ["the-brk-call", "run", "in-it", "run-1"]);
        assert_eq!(page.section("run"), Some("## Run\na\n### In it"));
        assert_eq!(page.section("run-1"), Some("## Run\nb"));
        assert_eq!(page.title, "The brk call");
    }

    #[test]
    fn claims_are_rows_of_the_errata() {
        let text = "| | It says | | So |\n|---|---|---|---|\n| 3 | a | true | b |\n| 15 | c | false | d |\n3 | no\n";
        assert_eq!(claims(text), BTreeMap::from([(3, true), (15, false)]));
    }

    #[test]
    fn the_nearest_exercise_is_before_the_page_or_after_it() {
        let exercises = [("one", "one.md"), ("two", "two.md")];
        let exercises = exercises.map(|(name, page)| (name.to_owned(), page.to_owned()));
        let summary = "# Summary\n\n# A\n- [a](a.md)\n  - [1](one.md)\n- [b](b.md)\n- [c]()\n  - [2](two.md)\n\n# B\n- [d](d.md)\n";
        let found = nearest_exercise(summary, &BTreeMap::from(exercises));
        let of = |page: &str| found.get(page).map(String::as_str);
        assert_eq!(of("a.md"), Some("one"), "the first one after it");
        assert_eq!(of("b.md"), Some("one"), "the last one before it");
        assert_eq!(of("two.md"), Some("two"));
        assert_eq!(of("d.md"), None, "another part");
    }
}
