//! Reports problems with their lines.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;

use serde::Serialize;
use toml::Spanned;

use super::front::Front;
use crate::bank::book::Book;
use crate::bank::source::{self, Section};

/// Something that is wrong with the bank.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// The path from the clone's root.
    pub file: String,
    /// From 1.
    pub line: usize,
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        write!(out, "{}:{}: {}", self.file, self.line, self.text)
    }
}

/// The file of a question.
pub struct File<'a> {
    /// The path from the clone's root.
    pub path: &'a str,
    pub topic: &'a str,
    pub id: &'a str,
    pub text: &'a str,
}

pub(super) struct Linter<'a> {
    pub(super) file: &'a File<'a>,
    pub(super) book: &'a Book,
    /// Where the front matter begins in the file.
    pub(super) front_start: usize,
    pub(super) front: Front,
    /// The sections by their titles.
    pub(super) sections: BTreeMap<&'a str, &'a Section>,
    pub(super) problems: Vec<Problem>,
}

impl<'a> Linter<'a> {
    pub(super) fn report(&mut self, line: usize, text: impl Into<String>) {
        self.problems.push(Problem {
            file: self.file.path.to_owned(),
            line,
            text: text.into(),
        });
    }

    pub(super) fn line_of<T>(&self, value: &Spanned<T>) -> usize {
        self.line_at(value.span().start)
    }

    /// Returns the line and the value of a key, or `None` if the file does not have the key.
    pub(super) fn value<T: Clone>(&self, key: &Option<Spanned<T>>) -> Option<(usize, T)> {
        let value = key.as_ref()?;
        Some((self.line_of(value), value.get_ref().clone()))
    }

    /// Returns the line of a position in the front matter.
    pub(super) fn line_at(&self, offset: usize) -> usize {
        source::line_at(self.file.text, self.front_start + offset)
    }

    /// Reports a page that does not exist, and a heading that the page does not have.
    pub(super) fn check_target(&mut self, line: usize, target: &str) {
        let (file, fragment) = target.split_once('#').unwrap_or((target, ""));
        match self.book.pages.get(file) {
            None => self.report(line, format!("there is no page book/src/{file}")),
            Some(page) if !fragment.is_empty() && !page.has(fragment) => {
                let anchors = page.headings.iter().map(|heading| &*heading.anchor);
                let anchors = anchors.collect::<Vec<_>>().join(", ");
                self.report(
                    line,
                    format!("{file} has no heading #{fragment}; it has {anchors}"),
                );
            }
            Some(_) => {}
        }
    }

    /// Returns the value of a key, and reports it if it is outside the range.
    pub(super) fn number(
        &mut self,
        key: &str,
        range: RangeInclusive<u8>,
        value: impl Fn(&Front) -> &Option<Spanned<u8>>,
    ) -> Option<u8> {
        let (line, number) = self.value(value(&self.front))?;
        if !range.contains(&number) {
            let (first, last) = range.into_inner();
            let problem = format!("{key} is {number}; it must be between {first} and {last}");
            self.report(line, problem);
        }
        Some(number)
    }
}
