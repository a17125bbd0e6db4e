//! Replaces the quiz, predict, trace, grade and progress fences of a page, and its pairs of listings in Rust and C, by
//! custom elements. Each element contains its static text, which is shown without scripts.

mod grade;
mod html;
mod languages;
mod predict;
mod quiz;
mod trace;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use course::exercise::Exercise;
use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

/// An error in a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageError {
    pub file: PathBuf,
    /// From 1.
    pub line: usize,
    pub message: String,
}

impl fmt::Display for PageError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.message)
    }
}

/// Processes the elements of one book, page by page.
#[derive(Debug)]
pub struct Elements {
    exercises: Vec<Exercise>,
    traces: PathBuf,
    /// The place of each id, to find duplicates.
    ids: BTreeMap<String, String>,
    /// The errors of all pages so far.
    pub errors: Vec<PageError>,
}

/// A fence that becomes an element.
struct Fence<'a> {
    kind: Kind,
    /// The info string after the first word.
    argument: &'a str,
    /// The lines between the opening and the closing fence.
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
    fn from_word(word: &str) -> Option<Kind> {
        Some(match word {
            "quiz" => Kind::Quiz,
            "predict" => Kind::Predict,
            "trace" => Kind::Trace,
            "grade" => Kind::Grade,
            "progress" => Kind::Progress,
            _ => return None,
        })
    }

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

impl Elements {
    /// `traces` is the folder of the recorded traces.
    pub fn new(exercises: Vec<Exercise>, traces: &Path) -> Elements {
        Elements {
            exercises,
            traces: traces.to_owned(),
            ids: BTreeMap::new(),
            errors: Vec::new(),
        }
    }

    /// Returns the page with its elements. Adds what is wrong with them to `errors`, with the page's name `file`.
    pub fn page(&mut self, file: &Path, text: &str) -> String {
        let mut places: Vec<_> = languages::pairs(text);
        for place in fences(text) {
            let element = self.element(file, line_of(text, &place.range), &place, text);
            places.push((place.range, element));
        }
        places.sort_by_key(|(range, _)| range.start);

        let mut page = String::with_capacity(text.len());
        let mut done = 0;
        for (range, element) in places {
            match element {
                Ok(element) => {
                    page += &text[done..range.start];
                    page.push('\n');
                    page += &element;
                    // A blank line ends a block of HTML.
                    page += "\n\n";
                    done = range.end;
                }
                Err(error) => {
                    let line = line_of(text, &range);
                    let (line, message) = match error.downcast::<AtLine>() {
                        Ok(AtLine(inner, message)) => (line + inner, message),
                        Err(error) => (line, format!("{error:#}")),
                    };
                    self.errors.push(PageError {
                        file: file.to_owned(),
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
        ensure!(
            !place.inside,
            "an element must not be inside a list or a quotation"
        );
        let mut lines: Vec<&str> = source.trim_end().lines().collect();
        let last = lines.pop().unwrap_or_default().trim();
        let closed = !lines.is_empty() && last.len() >= 3 && last.chars().all(|mark| mark == '`');
        ensure!(closed, "the fence is not closed; end it with ```");
        let info = lines.remove(0).trim_start_matches('`').trim();
        let argument = info.split_once(' ').map_or("", |(_, argument)| argument);
        let fence = Fence {
            kind: place.kind,
            argument: argument.trim(),
            lines,
        };
        match fence.kind {
            Kind::Quiz => quiz::html(&self.id(&fence, file, line)?, &fence.lines),
            Kind::Predict => predict::html(&self.id(&fence, file, line)?, &fence.lines),
            Kind::Trace => trace::html(&self.traces, &fence),
            Kind::Grade => grade::html(&self.exercises, &fence),
            Kind::Progress => grade::progress(&self.exercises, &fence),
        }
    }

    /// Returns the fence's id. It must be unique in the book, because the browser stores answers by id.
    fn id(&mut self, fence: &Fence, file: &Path, line: usize) -> Result<String> {
        let Some(id) = fence.argument.strip_prefix("id=") else {
            bail!(
                "the fence has no id; write ```{} id=NAME",
                fence.kind.word()
            );
        };
        check_name(id)?;
        let here = format!("{}:{line}", file.display());
        if let Some(first) = self.ids.insert(id.to_owned(), here) {
            bail!("the id {id} is already used at {first}");
        }
        Ok(id.to_owned())
    }
}

/// Returns the number of the line at which the range starts, from 1.
fn line_of(text: &str, range: &Range<usize>) -> usize {
    text[..range.start].matches('\n').count() + 1
}

/// A name becomes part of a file name and of a key in the browser's storage.
fn check_name(name: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    ensure!(
        !name.is_empty() && name.chars().all(allowed),
        "{name:?} is not a valid name; use lower-case letters, digits and hyphens"
    );
    Ok(())
}

/// An error in a line of a fence. The opening fence is line 0.
#[derive(Debug)]
struct AtLine(usize, String);

impl fmt::Display for AtLine {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.1)
    }
}

impl std::error::Error for AtLine {}

/// Returns an error for line `index` of the fence's text.
fn at_line(index: usize, message: impl Into<String>) -> anyhow::Error {
    AtLine(index + 1, message.into()).into()
}

struct Place {
    kind: Kind,
    range: Range<usize>,
    /// Whether the fence is part of a list or a quotation.
    inside: bool,
}

/// Finds the fences of a page that are elements.
fn fences(text: &str) -> Vec<Place> {
    let mut places = Vec::new();
    let mut depth = 0;
    for (event, range) in Parser::new_ext(text, OPTIONS).into_offset_iter() {
        match event {
            Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(info))) => {
                let word = info.split([' ', ',']).next().unwrap_or_default();
                places.extend(Kind::from_word(word).map(|kind| Place {
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

/// The Markdown extensions that mdBook enables.
const OPTIONS: Options = Options::ENABLE_TABLES
    .union(Options::ENABLE_FOOTNOTES)
    .union(Options::ENABLE_STRIKETHROUGH)
    .union(Options::ENABLE_TASKLISTS)
    .union(Options::ENABLE_HEADING_ATTRIBUTES)
    .union(Options::ENABLE_GFM)
    .union(Options::ENABLE_DEFINITION_LIST)
    .union(Options::ENABLE_SMART_PUNCTUATION);
