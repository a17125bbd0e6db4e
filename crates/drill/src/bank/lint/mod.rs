//! Makes a question of a file, and says everything that is wrong with it, each with its line.

mod keys;
mod kinds;
mod listing;
mod types;

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::bank::book::Book;
use crate::bank::question::Question;
use crate::bank::source::{Field, Section, Source, take_apart};
use crate::matching::one_space;
use types::{ANY_SECTIONS, EVERYWHERE, TYPES, Type};

/// Something that is wrong with the bank.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Complaint {
    /// From the clone's root.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// What is wrong, and what would be right.
    pub text: String,
}

impl fmt::Display for Complaint {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        write!(out, "{}:{}: {}", self.file, self.line, self.text)
    }
}

/// The question in a file, if nothing is wrong with it.
pub fn question(
    file: &str,
    topic: &str,
    id: &str,
    text: &str,
    book: &Book,
    complaints: &mut Vec<Complaint>,
) -> Option<Question> {
    let before = complaints.len();
    let source = take_apart(text);
    let mut reader = Reader {
        file,
        book,
        complaints,
        fields: BTreeMap::new(),
        shows: Vec::new(),
        sections: BTreeMap::new(),
    };
    let question = reader.read(topic, id, &source);
    question.filter(|_| complaints.len() == before)
}

struct Reader<'a> {
    file: &'a str,
    book: &'a Book,
    complaints: &'a mut Vec<Complaint>,
    fields: BTreeMap<&'a str, (usize, &'a str)>,
    shows: Vec<(usize, &'a str)>,
    sections: BTreeMap<&'a str, &'a Section>,
}

impl<'a> Reader<'a> {
    fn complain(&mut self, line: usize, text: impl Into<String>) {
        self.complaints.push(Complaint {
            file: self.file.to_owned(),
            line,
            text: text.into(),
        });
    }

    fn read(&mut self, topic: &str, id: &str, source: &'a Source) -> Option<Question> {
        let plain =
            |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
        if id.is_empty() || !id.chars().all(plain) {
            self.complain(1, "an id is lower-case letters, digits and hyphens");
        }
        let Some(front) = &source.front else {
            self.complain(
                1,
                "there is no front matter: the file begins with a line `---`",
            );
            return None;
        };
        let kind = self.kind_of(front)?;
        self.front(front, kind);
        self.body(source, kind);

        let level = self.number("level", 1..=4, true);
        let asked = self.number("asked", 1..=3, false);
        let (page, fragment) = self.page();
        let needs = self.needs();
        let prove = self.program_that_proves();
        let claim = self.claim();
        let say = self.say();
        let listing = self.listing(kind.name);
        let must_mention = self.items("Must mention");
        let follow_ups = self.follow_ups();
        let prompt = match kind.name {
            "choice" | "order" => &source.opening.before_list,
            _ => &source.opening.text,
        };
        if prompt.is_empty() {
            self.complain(source.opening.line, "nothing is asked");
        }
        let kind = self.kind(kind.name, source, listing.as_ref())?;
        self.proof_matches_answer(&kind);
        self.listing_keeps_the_answer(&kind, listing.as_ref());
        let page = page?;
        let exercise = needs.as_deref().or(self.book.exercise_of(&page));
        let own = needs.as_deref().or(self.book.own_exercise(&page));
        Some(Question {
            id: id.to_owned(),
            topic: topic.to_owned(),
            level: level? as u8,
            asked: asked.unwrap_or(1) as u8,
            exercise: exercise.map(str::to_owned),
            is_exercises_own: own.is_some(),
            needs,
            page,
            fragment,
            prove,
            shows: self
                .shows
                .iter()
                .map(|(_, line)| (*line).to_owned())
                .collect(),
            claim,
            say,
            prompt: prompt.clone(),
            listing,
            why: self.sections.get("Why").map(|section| section.text.clone()),
            must_mention,
            follow_ups,
            kind,
        })
    }

    fn kind_of(&mut self, front: &[Field]) -> Option<&'static Type> {
        let names: Vec<_> = TYPES.iter().map(|kind| kind.name).collect();
        let field = front
            .iter()
            .find(|field| field.key.as_deref() == Some("type"));
        let Some(field) = field else {
            self.complain(1, format!("no type: it is one of {}", names.join(", ")));
            return None;
        };
        let found = TYPES.iter().find(|kind| kind.name == field.value);
        if found.is_none() {
            let text = format!("no type {}: it is one of {}", field.value, names.join(", "));
            self.complain(field.line, text);
        }
        found
    }

    fn front(&mut self, front: &'a [Field], kind: &Type) {
        for field in front {
            let Some(key) = &field.key else {
                self.complain(field.line, format!("no `key: value`: {}", field.value));
                continue;
            };
            let known = EVERYWHERE.contains(&&**key) || kind.keys.contains(&&**key);
            let elsewhere = TYPES.iter().any(|other| other.keys.contains(&&**key));
            if !known && elsewhere {
                self.complain(field.line, format!("{key} is not for type {}", kind.name));
            } else if !known {
                let known: Vec<_> = EVERYWHERE.iter().chain(kind.keys).copied().collect();
                let text = format!(
                    "unknown key {key}: type {} has {}",
                    kind.name,
                    known.join(", ")
                );
                self.complain(field.line, text);
            } else if field.value.is_empty() {
                self.complain(field.line, format!("{key} has no value"));
            } else if key == "shows" {
                self.shows.push((field.line, &field.value));
            } else if let Some((first, _)) = self.fields.get(&**key) {
                let text = format!("{key} stands in line {first} already");
                self.complain(field.line, text);
            } else {
                self.fields.insert(key, (field.line, &field.value));
            }
        }
        for key in ["level", "page"].iter().chain(kind.needs_keys) {
            if !front.iter().any(|field| field.key.as_deref() == Some(key)) {
                self.complain(1, format!("type {} needs the key {key}", kind.name));
            }
        }
    }

    fn body(&mut self, source: &'a Source, kind: &Type) {
        for section in &source.sections {
            let title = &*section.title;
            let elsewhere = TYPES
                .iter()
                .any(|other| other.needs_sections.contains(&title));
            if ANY_SECTIONS.contains(&title) || kind.needs_sections.contains(&title) {
                if section.text.is_empty() {
                    self.complain(section.line, format!("## {title} is empty"));
                } else if self.sections.insert(title, section).is_some() {
                    self.complain(section.line, format!("## {title} stands twice"));
                }
            } else if elsewhere {
                let text = format!("## {title} is not for type {}", kind.name);
                self.complain(section.line, text);
            } else {
                let text = format!("unknown section ## {title}");
                self.complain(section.line, text);
            }
        }
        for title in kind.needs_sections {
            if !source
                .sections
                .iter()
                .any(|section| section.title == *title)
            {
                let text = format!("type {} needs a section ## {title}", kind.name);
                self.complain(1, text);
            }
        }
        for section in std::iter::once(&source.opening).chain(&source.sections) {
            for link in &section.links {
                if !link.to.starts_with("https://") {
                    self.leads_somewhere(link.line, &link.to);
                }
            }
        }
    }

    /// Complains of a page, or a heading of it, that is not there.
    fn leads_somewhere(&mut self, line: usize, to: &str) {
        let (file, fragment) = to.split_once('#').unwrap_or((to, ""));
        match self.book.pages.get(file) {
            None => self.complain(line, format!("there is no page book/src/{file}")),
            Some(page) if !fragment.is_empty() && !page.has(fragment) => {
                let anchors: Vec<_> = page.headings.iter().map(|one| &*one.anchor).collect();
                let text = format!(
                    "{file} has no heading #{fragment}: it has {}",
                    anchors.join(", ")
                );
                self.complain(line, text);
            }
            Some(_) => {}
        }
    }

    fn number(
        &mut self,
        key: &str,
        range: std::ops::RangeInclusive<u32>,
        needed: bool,
    ) -> Option<u32> {
        let (line, value) = *self.fields.get(key)?;
        let number = value.parse().ok().filter(|number| range.contains(number));
        if number.is_none() {
            let (first, last) = range.into_inner();
            self.complain(
                line,
                format!("{key} is a number from {first} to {last}, and not {value}"),
            );
        }
        number.or((!needed).then_some(1))
    }
}

/// Whether one of the answers stands in one of the lines, word for word.
pub fn is_shown<S: AsRef<str>>(answers: &[String], shows: &[S]) -> bool {
    let inside = |line: &str, answer: &str| {
        let (line, answer) = (one_space(line), one_space(answer));
        let edge = |letter: Option<char>| !letter.is_some_and(|letter| letter.is_alphanumeric());
        line.match_indices(&*answer).any(|(start, _)| {
            edge(line[..start].chars().next_back())
                && edge(line[start + answer.len()..].chars().next())
        })
    };
    let shown = |answer: &String| shows.iter().any(|line| inside(line.as_ref(), answer));
    answers.iter().any(shown)
}
