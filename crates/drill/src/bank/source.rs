//! A file of the bank, taken apart: front matter, prompt, list, sections, each with its line.
//!
//! The front matter is a metadata block of pulldown-cmark. A YAML parser would not fit: a key may stand several times,
//! and every value is text as it stands (`[heap]`, `5%`, `-1`).

use std::ops::Range;

use pulldown_cmark::{CodeBlockKind, Event, HeadingLevel, Options, Parser, Tag, TagEnd};

/// A question's file, before anybody asks what it means.
#[derive(Debug, Default)]
pub struct Source {
    /// The lines between the two `---`; none if there is no front matter.
    pub front: Option<Vec<Field>>,
    /// What comes before the first heading.
    pub opening: Section,
    /// Below the headings `## …`.
    pub sections: Vec<Section>,
}

/// A line of the front matter.
#[derive(Debug)]
pub struct Field {
    /// From 1.
    pub line: usize,
    /// Before the colon; none where the line has no colon.
    pub key: Option<String>,
    /// After it.
    pub value: String,
}

/// A part of the body.
#[derive(Debug, Default)]
pub struct Section {
    /// Where it begins, from 1.
    pub line: usize,
    /// Without the `## `; empty for what comes before the first.
    pub title: String,
    /// All of it, as Markdown.
    pub text: String,
    /// Its text without the last list, which holds the options or the steps.
    pub before_list: String,
    /// The items of its last list.
    pub items: Vec<Item>,
    /// Its blocks of code.
    pub fences: Vec<Fence>,
    /// Where its links lead.
    pub links: Vec<Link>,
}

/// An item of a list.
#[derive(Debug, Clone)]
pub struct Item {
    /// From 1.
    pub line: usize,
    /// Whether `[x]` or `[ ]` stands before it.
    pub ticked: Option<bool>,
    /// Without the mark.
    pub text: String,
}

/// A block of code.
#[derive(Debug, Clone)]
pub struct Fence {
    /// From 1.
    pub line: usize,
    /// What stands after the backticks.
    pub info: String,
    /// The code.
    pub code: String,
}

/// A link.
#[derive(Debug, Clone)]
pub struct Link {
    /// From 1.
    pub line: usize,
    /// Where it leads.
    pub to: String,
}

/// How the bank's Markdown is read, here and wherever it is shown.
pub fn options() -> Options {
    Options::ENABLE_YAML_STYLE_METADATA_BLOCKS | Options::ENABLE_TABLES | Options::ENABLE_TASKLISTS
}

/// Takes a file apart.
pub fn take_apart(text: &str) -> Source {
    let line = |offset: usize| 1 + text[..offset].matches('\n').count();
    let mut source = Source::default();
    let mut begins = 0;
    let mut pieces: Vec<Pieces> = vec![Pieces::default()];
    let mut titles = vec![(1, String::new())];
    let mut depth = 0_usize;
    let mut heading = None;
    for (event, range) in Parser::new_ext(text, options()).into_offset_iter() {
        let piece = pieces.last_mut().expect("there is one from the start");
        match event {
            Event::Start(Tag::MetadataBlock(_)) => {
                source.front = Some(fields(text, range.clone()));
                begins = range.end;
            }
            Event::Start(Tag::Heading {
                level: HeadingLevel::H2,
                ..
            }) => {
                piece.range.end = range.start;
                heading = Some(String::new());
                titles.push((line(range.start), String::new()));
                let range = range.end..text.len();
                pieces.push(Pieces {
                    range,
                    ..Pieces::default()
                });
            }
            Event::End(TagEnd::Heading(HeadingLevel::H2)) => {
                if let (Some(title), Some(words)) = (titles.last_mut(), heading.take()) {
                    title.1 = words;
                }
            }
            Event::Start(Tag::List(_)) => {
                depth += 1;
                if depth == 1 {
                    piece.list = Some(range.clone());
                    piece.items.clear();
                }
            }
            Event::End(TagEnd::List(_)) => depth -= 1,
            Event::Start(Tag::Item) if depth == 1 => {
                piece
                    .items
                    .push(item(text, range.clone(), line(range.start)));
            }
            Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(info))) => {
                piece.fences.push(Fence {
                    line: line(range.start),
                    info: info.to_string(),
                    code: String::new(),
                });
                piece.in_fence = true;
            }
            Event::End(TagEnd::CodeBlock) => piece.in_fence = false,
            Event::Start(Tag::Link { dest_url, .. }) => piece.links.push(Link {
                line: line(range.start),
                to: dest_url.to_string(),
            }),
            Event::Text(words) if piece.in_fence => {
                if let Some(fence) = piece.fences.last_mut() {
                    fence.code.push_str(&words);
                }
            }
            Event::Text(words) | Event::Code(words) => {
                if let Some(heading) = &mut heading {
                    heading.push_str(&words);
                }
            }
            _ => {}
        }
    }
    pieces[0].range.start = begins;
    if pieces.len() == 1 {
        pieces[0].range.end = text.len();
    }
    titles[0].0 = line(begins);
    let sections = titles.into_iter().zip(pieces);
    let mut sections = sections.map(|((line, title), piece)| piece.section(text, line, title));
    source.opening = sections.next().expect("there is one from the start");
    source.sections = sections.collect();
    source
}

/// What has been seen of a section.
#[derive(Default)]
struct Pieces {
    range: Range<usize>,
    list: Option<Range<usize>>,
    items: Vec<Item>,
    fences: Vec<Fence>,
    links: Vec<Link>,
    in_fence: bool,
}

impl Pieces {
    fn section(self, text: &str, line: usize, title: String) -> Section {
        let before_list = match &self.list {
            Some(list) => &text[self.range.start..list.start],
            None => &text[self.range.clone()],
        };
        Section {
            line,
            title,
            text: text[self.range].trim().to_owned(),
            before_list: before_list.trim().to_owned(),
            items: self.items,
            fences: self.fences,
            links: self.links,
        }
    }
}

fn fields(text: &str, range: Range<usize>) -> Vec<Field> {
    let first = 1 + text[..range.start].matches('\n').count();
    let lines = text[range].lines().enumerate();
    let lines = lines.filter(|(_, line)| !line.trim().is_empty() && line.trim_end() != "---");
    let field = |(number, line): (usize, &str)| match line.split_once(':') {
        Some((key, value)) => Field {
            line: first + number,
            key: Some(key.trim().to_owned()),
            value: value.trim().to_owned(),
        },
        None => Field {
            line: first + number,
            key: None,
            value: line.trim().to_owned(),
        },
    };
    lines.map(field).collect()
}

fn item(text: &str, range: Range<usize>, line: usize) -> Item {
    let all = text[range].split_whitespace().collect::<Vec<_>>().join(" ");
    // The list's own mark: `-`, `*`, `1.`
    let (_, rest) = all.split_once(' ').unwrap_or((&all, ""));
    let (ticked, rest) = match rest.get(..3) {
        Some("[ ]") => (Some(false), &rest[3..]),
        Some("[x]" | "[X]") => (Some(true), &rest[3..]),
        _ => (None, rest),
    };
    Item {
        line,
        ticked,
        text: rest.trim().to_owned(),
    }
}

/// Splits `what > why` at the first ` > ` that stands outside code.
pub fn split_reason(text: &str) -> Option<(&str, &str)> {
    let mut code = false;
    for (index, letter) in text.char_indices() {
        match letter {
            '`' => code = !code,
            '>' if !code => {
                let (before, after) = (&text[..index], &text[index + 1..]);
                if before.ends_with(' ') && after.starts_with(' ') {
                    return Some((before.trim(), after.trim()));
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_from_the_files_first() {
        let source = take_apart(
            "---\ntype: choice\n\nlevel 2\n---\nAsk.\n\n- [ ] a > no\n- [x] b `>` c\n  d > yes\n\n## Why\n\nSo.\n",
        );
        let front = source.front.expect("front matter");
        assert_eq!((front[0].line, &*front[0].value), (2, "choice"));
        assert_eq!((front[1].line, &front[1].key), (4, &None));
        assert_eq!(source.opening.before_list, "Ask.");
        let items = &source.opening.items;
        assert_eq!((items[1].line, items[1].ticked), (9, Some(true)));
        assert_eq!(split_reason(&items[1].text), Some(("b `>` c d", "yes")));
        assert_eq!(
            (source.sections[0].line, &*source.sections[0].text),
            (12, "So.")
        );
    }

    #[test]
    fn a_reason_is_not_looked_for_in_code() {
        assert_eq!(split_reason("`a > b`"), None);
        assert_eq!(split_reason("`a > b` > c > d"), Some(("`a > b`", "c > d")));
    }
}
