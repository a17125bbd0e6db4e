//! Turns a page's quiz, predict, trace, grade and progress fences into custom elements with a static fall-back inside.

mod grade;
mod html;
mod predict;
mod quiz;
mod trace;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

use crate::exercise::Exercise;

/// What is wrong with an element, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The page.
    pub file: PathBuf,
    /// From 1.
    pub line: usize,
    /// In words.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.message)
    }
}

/// What the elements of a book may name, and have named so far.
#[derive(Debug)]
pub struct Elements {
    exercises: Vec<Exercise>,
    traces: PathBuf,
    /// Where each id stands.
    ids: BTreeMap<String, String>,
    /// Every fault so far.
    pub faults: Vec<Fault>,
}

/// The info string and the text of a fence.
struct Fence<'a> {
    kind: Kind,
    /// What follows the first word.
    argument: &'a str,
    /// The lines between the marks.
    lines: Vec<&'a str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Quiz,
    Predict,
    Trace,
    Grade,
    Progress,
}

impl Kind {
    fn of(word: &str) -> Option<Kind> {
        Some(match word {
            "quiz" => Kind::Quiz,
            "predict" => Kind::Predict,
            "trace" => Kind::Trace,
            "grade" => Kind::Grade,
            "progress" => Kind::Progress,
            _ => return None,
        })
    }
}

impl Elements {
    /// For a book of these exercises, whose traces lie in that folder.
    pub fn new(exercises: Vec<Exercise>, traces: &Path) -> Elements {
        Elements {
            exercises,
            traces: traces.to_owned(),
            ids: BTreeMap::new(),
            faults: Vec::new(),
        }
    }

    /// The page with its elements in place. What is wrong with them is added to the faults, under `file`.
    pub fn page(&mut self, file: &Path, text: &str) -> String {
        let mut page = String::with_capacity(text.len());
        let mut done = 0;
        for place in fences(text) {
            let line = text[..place.range.start].matches('\n').count() + 1;
            match self.element(file, line, &place, text) {
                Ok(element) => {
                    page += &text[done..place.range.start];
                    page.push('\n');
                    page += &element;
                    // The blank line ends the HTML.
                    page += "\n\n";
                    done = place.range.end;
                }
                Err(wrong) => {
                    let (line, message) = match wrong.downcast::<AtLine>() {
                        Ok(AtLine(inner, message)) => (line + inner, message),
                        Err(wrong) => (line, format!("{wrong:#}")),
                    };
                    let file = file.to_owned();
                    self.faults.push(Fault {
                        file,
                        line,
                        message,
                    });
                }
            }
        }
        page += &text[done..];
        page
    }

    fn element(&mut self, file: &Path, line: usize, place: &Place, text: &str) -> Result<String> {
        let source = &text[place.range.clone()];
        let kind = place.kind;
        ensure!(
            !place.inside,
            "an element stands by itself, not in a list or a quotation"
        );
        let mut lines: Vec<&str> = source.trim_end().lines().collect();
        let last = lines.pop().unwrap_or_default().trim();
        let closed = !lines.is_empty() && last.len() >= 3 && last.chars().all(|mark| mark == '`');
        ensure!(closed, "the fence is not closed with ```");
        let info = lines.remove(0).trim_start_matches('`').trim();
        let argument = info.split_once(' ').map_or("", |(_, argument)| argument);
        let fence = Fence {
            kind,
            argument: argument.trim(),
            lines,
        };
        match kind {
            Kind::Quiz | Kind::Predict => {
                let id = self.id(&fence, file, line)?;
                match kind {
                    Kind::Quiz => quiz::html(&id, &fence.lines),
                    _ => predict::html(&id, &fence.lines),
                }
            }
            Kind::Trace => trace::html(&self.traces, &fence),
            Kind::Grade => grade::html(&self.exercises, &fence),
            Kind::Progress => grade::progress(&self.exercises, &fence),
        }
    }

    /// The fence's id, which no other element of the book has.
    fn id(&mut self, fence: &Fence, file: &Path, line: usize) -> Result<String> {
        let Some(id) = fence.argument.strip_prefix("id=") else {
            bail!("the first line is ```{} id=NAME", fence.kind.word());
        };
        check_name(id)?;
        let here = format!("{}:{line}", file.display());
        if let Some(first) = self.ids.insert(id.to_owned(), here) {
            bail!("the id {id} stands at {first} already");
        }
        Ok(id.to_owned())
    }
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Quiz => "quiz",
            Kind::Predict => "predict",
            Kind::Trace => "trace",
            Kind::Grade => "grade",
            Kind::Progress => "progress",
        }
    }
}

/// Names are parts of file names and of keys in the browser's storage.
fn check_name(name: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    ensure!(
        !name.is_empty() && name.chars().all(allowed),
        "{name:?} is no name: lower case, digits and hyphens are"
    );
    Ok(())
}

/// An error in a line of the fence, counted from its first mark.
#[derive(Debug)]
struct AtLine(usize, String);

impl fmt::Display for AtLine {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.1)
    }
}

impl std::error::Error for AtLine {}

/// An error in line `index` of the fence's text.
fn at_line(index: usize, message: impl Into<String>) -> anyhow::Error {
    AtLine(index + 1, message.into()).into()
}

struct Place {
    kind: Kind,
    range: Range<usize>,
    /// Whether it is part of a list or a quotation.
    inside: bool,
}

/// Where a page has fences that are elements.
fn fences(text: &str) -> Vec<Place> {
    let mut places = Vec::new();
    let mut depth = 0;
    for (event, range) in Parser::new_ext(text, OPTIONS).into_offset_iter() {
        match event {
            Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(info))) => {
                let word = info.split([' ', ',']).next().unwrap_or_default();
                places.extend(Kind::of(word).map(|kind| Place {
                    kind,
                    range,
                    inside: depth > 0,
                }));
            }
            Event::Start(tag) if holds_blocks(&tag.to_end()) => depth += 1,
            Event::End(tag) if holds_blocks(&tag) => depth -= 1,
            _ => {}
        }
    }
    places
}

fn holds_blocks(tag: &TagEnd) -> bool {
    matches!(
        tag,
        TagEnd::BlockQuote(_)
            | TagEnd::Item
            | TagEnd::FootnoteDefinition
            | TagEnd::DefinitionListDefinition
    )
}

/// mdBook's.
const OPTIONS: Options = Options::ENABLE_TABLES
    .union(Options::ENABLE_FOOTNOTES)
    .union(Options::ENABLE_STRIKETHROUGH)
    .union(Options::ENABLE_TASKLISTS)
    .union(Options::ENABLE_HEADING_ATTRIBUTES)
    .union(Options::ENABLE_GFM)
    .union(Options::ENABLE_DEFINITION_LIST)
    .union(Options::ENABLE_SMART_PUNCTUATION);
