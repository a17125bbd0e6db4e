//! Turns the file of a question into a [`Question`], and reports every problem with its line.

mod front;
mod keys;
mod kinds;
mod linter;
mod listing;
mod rules;

use std::collections::BTreeMap;

use super::book::Book;
use super::question::Question;
use super::source::{self, Source};
use front::Front;
use linter::Linter;
pub use linter::{File, Problem};
use rules::{Rules, TYPES};

/// Returns the question in `file`, or what is wrong with it.
///
/// # Errors
/// Returns all problems if there is any.
pub fn question(file: &File, book: &Book) -> Result<Question, Vec<Problem>> {
    let source = source::parse(file.text);
    let mut linter = Linter {
        file,
        book,
        front_start: source.front.as_ref().map_or(0, |front| front.start),
        front: Front::default(),
        sections: BTreeMap::new(),
        problems: Vec::new(),
    };
    let question = linter.read(&source);
    match question {
        Some(question) if linter.problems.is_empty() => Ok(question),
        _ => Err(linter.problems),
    }
}

impl<'a> Linter<'a> {
    /// Returns `None` only after it has reported a problem.
    fn read(&mut self, source: &'a Source) -> Option<Question> {
        self.check_id();
        let Some(front) = source.front.clone() else {
            self.report(1, "there is no front matter between two lines `+++`");
            return None;
        };
        let rules = self.read_front(&self.file.text[front])?;
        self.check_sections(source, rules);
        self.check_links(source);

        let level = self.number("level", 1..=4, |front| &front.level);
        let asked = self.number("asked", 1..=3, |front| &front.asked);
        let (page, fragment) = self.page();
        let needs = self.needs();
        let prove = self.program_that_proves();
        let claim = self.claim();
        let say = self.say();
        let listing = self.listing(rules.name);
        let must_mention = self.items("Must mention");
        let follow_ups = self.follow_ups();
        let prompt = match rules.name {
            "choice" | "order" => &source.opening.before_list,
            _ => &source.opening.text,
        };
        if prompt.is_empty() {
            self.report(source.opening.line, "the prompt is empty");
        }
        let kind = self.kind(rules.name, &source.opening, listing.as_ref())?;
        self.check_that_proof_shows_answer(&kind);
        self.check_that_listing_hides_answer(&kind, listing.as_ref());
        let page = page?;
        let exercise = needs.as_deref().or(self.book.exercise_of(&page));
        let own_exercise = needs.as_deref().or(self.book.own_exercise(&page));
        Some(Question {
            id: self.file.id.to_owned(),
            topic: self.file.topic.to_owned(),
            level: level?,
            asked: asked.unwrap_or(1),
            exercise: exercise.map(str::to_owned),
            follows_exercise: own_exercise.is_some(),
            needs,
            page,
            fragment,
            prove,
            shows: self.shows().to_vec(),
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

    fn check_id(&mut self) {
        let allowed =
            |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
        if self.file.id.is_empty() || !self.file.id.chars().all(allowed) {
            self.report(
                1,
                "an id consists of lower-case letters, digits and hyphens",
            );
        }
    }

    fn check_sections(&mut self, source: &'a Source, rules: &Rules) {
        for section in &source.sections {
            let title = &*section.title;
            let problem = if rules.allow_section(title) {
                let twice = self.sections.insert(title, section).is_some();
                if section.text.is_empty() {
                    format!("## {title} is empty")
                } else if twice {
                    format!("## {title} occurs twice")
                } else {
                    continue;
                }
            } else if TYPES.iter().any(|other| other.allow_section(title)) {
                format!(
                    "a question of type {} has no section ## {title}",
                    rules.name
                )
            } else {
                format!("unknown section ## {title}")
            };
            self.report(section.line, problem);
        }
        for title in rules.required_sections {
            if !self.sections.contains_key(title) {
                let text = format!(
                    "a question of type {} needs a section ## {title}",
                    rules.name
                );
                self.report(1, text);
            }
        }
    }

    fn check_links(&mut self, source: &Source) {
        let sections = std::iter::once(&source.opening).chain(&source.sections);
        for link in sections.flat_map(|section| &section.links) {
            if !link.target.starts_with("https://") {
                self.check_target(link.line, &link.target);
            }
        }
    }
}
