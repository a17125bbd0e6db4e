//! Splits the file of a question into front matter, prompt, lists and sections, and keeps their line numbers.

use std::ops::Range;

use pulldown_cmark::{CodeBlockKind, Event, HeadingLevel, Options, Parser, Tag, TagEnd};

/// The file of a question, before its meaning is checked.
#[derive(Debug, Default)]
pub struct Source {
    /// The position of the TOML between the two lines `+++`; `None` if there is no front matter.
    pub front: Option<Range<usize>>,
    /// What comes before the first heading.
    pub opening: Section,
    /// What follows each heading `## …`.
    pub sections: Vec<Section>,
}

/// A part of the body. All line numbers are counted in the file, from 1.
#[derive(Debug, Default)]
pub struct Section {
    pub line: usize,
    /// The heading without `## `; empty for the opening.
    pub title: String,
    /// The whole text, as Markdown.
    pub text: String,
    /// The text before the last list.
    pub before_list: String,
    /// The items of the last list.
    pub items: Vec<Item>,
    pub fences: Vec<Fence>,
    pub links: Vec<Link>,
}

#[derive(Debug, Clone)]
pub struct Item {
    pub line: usize,
    /// Whether the item begins with `[x]` or with `[ ]`; `None` if it begins with neither.
    pub ticked: Option<bool>,
    /// The text without the list's marker.
    pub text: String,
}

/// A fenced code block.
#[derive(Debug, Clone)]
pub struct Fence {
    pub line: usize,
    /// What follows the backticks.
    pub info: String,
    pub code: String,
}

#[derive(Debug, Clone)]
pub struct Link {
    pub line: usize,
    pub target: String,
}

/// The Markdown extensions of the questions.
pub fn options() -> Options {
    Options::ENABLE_PLUSES_DELIMITED_METADATA_BLOCKS
        | Options::ENABLE_TABLES
        | Options::ENABLE_TASKLISTS
}

/// Returns the number, from 1, of the line that contains the byte at `offset`.
pub fn line_at(text: &str, offset: usize) -> usize {
    1 + text[..offset].matches('\n').count()
}

pub fn parse(text: &str) -> Source {
    let mut splitter = Splitter::new(text);
    for (event, range) in Parser::new_ext(text, options()).into_offset_iter() {
        splitter.event(event, range);
    }
    splitter.finish()
}

struct Splitter<'a> {
    text: &'a str,
    front: Option<Range<usize>>,
    /// At least one: the opening.
    drafts: Vec<Draft>,
    inside: Inside,
    list_depth: usize,
}

/// Where the parser is.
#[derive(PartialEq)]
enum Inside {
    Front,
    Heading,
    Fence,
    Other,
}

/// A section that is not complete yet.
#[derive(Default)]
struct Draft {
    range: Range<usize>,
    list: Option<Range<usize>>,
    section: Section,
}

impl<'a> Splitter<'a> {
    fn new(text: &'a str) -> Splitter<'a> {
        let opening = Draft {
            range: 0..text.len(),
            ..Draft::default()
        };
        Splitter {
            text,
            front: None,
            drafts: vec![opening],
            inside: Inside::Other,
            list_depth: 0,
        }
    }

    fn event(&mut self, event: Event, range: Range<usize>) {
        let line = line_at(self.text, range.start);
        let draft = self.drafts.last_mut().expect("the opening");
        let section = &mut draft.section;
        match event {
            Event::Start(Tag::MetadataBlock(_)) => {
                // Filled in by the block's text; an empty block has none.
                self.front = Some(range.start..range.start);
                draft.range.start = range.end;
                self.inside = Inside::Front;
            }
            Event::Start(Tag::Heading {
                level: HeadingLevel::H2,
                ..
            }) => {
                draft.range.end = range.start;
                let mut next = Draft {
                    range: range.end..self.text.len(),
                    ..Draft::default()
                };
                next.section.line = line;
                self.drafts.push(next);
                self.inside = Inside::Heading;
            }
            Event::Start(Tag::List(_)) => {
                self.list_depth += 1;
                if self.list_depth == 1 {
                    draft.list = Some(range);
                    section.items.clear();
                }
            }
            Event::End(TagEnd::List(_)) => self.list_depth -= 1,
            Event::Start(Tag::Item) if self.list_depth == 1 => {
                section.items.push(item(&self.text[range], line));
            }
            Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(info))) => {
                section.fences.push(Fence {
                    line,
                    info: info.to_string(),
                    code: String::new(),
                });
                self.inside = Inside::Fence;
            }
            Event::End(TagEnd::CodeBlock | TagEnd::MetadataBlock(_) | TagEnd::Heading(_)) => {
                self.inside = Inside::Other;
            }
            Event::Start(Tag::Link { dest_url, .. }) => section.links.push(Link {
                line,
                target: dest_url.to_string(),
            }),
            Event::Text(text) | Event::Code(text) => match self.inside {
                Inside::Front => {
                    let begin = self.front.as_ref().filter(|front| front.start < front.end);
                    let begin = begin.map_or(range.start, |front| front.start);
                    self.front = Some(begin..range.end);
                }
                Inside::Heading => section.title.push_str(&text),
                Inside::Fence => {
                    if let Some(fence) = section.fences.last_mut() {
                        fence.code.push_str(&text);
                    }
                }
                Inside::Other => {}
            },
            _ => {}
        }
    }

    fn finish(self) -> Source {
        let text = self.text;
        let sections = self.drafts.into_iter().map(|draft| draft.finish(text));
        let mut sections: Vec<_> = sections.collect();
        let mut opening = sections.remove(0);
        opening.line = match &self.front {
            // The line after the closing `+++`.
            Some(front) => line_at(text, front.end) + 1,
            None => 1,
        };
        Source {
            front: self.front,
            opening,
            sections,
        }
    }
}

impl Draft {
    fn finish(self, text: &str) -> Section {
        let before_list = match &self.list {
            Some(list) => &text[self.range.start..list.start],
            None => &text[self.range.clone()],
        };
        Section {
            text: text[self.range.clone()].trim().to_owned(),
            before_list: before_list.trim().to_owned(),
            ..self.section
        }
    }
}

fn item(text: &str, line: usize) -> Item {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    // The list's marker: `-`, `*` or `1.`
    let (_, text) = text.split_once(' ').unwrap_or((&text, ""));
    let (ticked, text) = match text.get(..3) {
        Some("[ ]") => (Some(false), &text[3..]),
        Some("[x]" | "[X]") => (Some(true), &text[3..]),
        _ => (None, text),
    };
    Item {
        line,
        ticked,
        text: text.trim().to_owned(),
    }
}

/// Splits `text > reason` at the first ` > ` outside code.
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
    fn line_numbers_are_those_of_the_file() {
        let text = "+++\ntype = \"choice\"\n\nlevel = 2\n+++\nAsk.\n\n- [ ] a > no\n- [x] b `>` c\n  d > yes\n\n## Why\n\nSo.\n";
        let source = parse(text);
        let front = source.front.expect("front matter");
        assert_eq!(&text[front], "type = \"choice\"\n\nlevel = 2\n");
        assert_eq!(source.opening.before_list, "Ask.");
        assert_eq!(source.opening.line, 6);
        let items = &source.opening.items;
        assert_eq!((items[1].line, items[1].ticked), (9, Some(true)));
        assert_eq!(split_reason(&items[1].text), Some(("b `>` c d", "yes")));
        assert_eq!(
            (source.sections[0].line, &*source.sections[0].text),
            (12, "So.")
        );
    }

    #[test]
    fn a_greater_than_sign_in_code_does_not_begin_a_reason() {
        assert_eq!(split_reason("`a > b`"), None);
        assert_eq!(split_reason("`a > b` > c > d"), Some(("`a > b`", "c > d")));
    }
}
