//! The bank: every question in `book/questions`, and every problem in its files.

pub mod book;
pub mod include;
pub mod lint;
pub mod question;
pub mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use book::Book;
use lint::Problem;
use question::{Question, TOPICS};

#[derive(Debug)]
pub struct Bank {
    /// Sorted by topic in the book's order, then by level and id.
    pub questions: Vec<Question>,
    /// The book that the questions refer to.
    pub book: Book,
    /// A question with a problem is left out of `questions`.
    pub problems: Vec<Problem>,
}

/// The path from the clone's root.
pub const FOLDER: &str = "book/questions";

impl Bank {
    /// Reads the bank of a clone.
    ///
    /// # Errors
    /// Returns an error if the book or the folder cannot be read. Problems in a question are not errors.
    pub fn read(root: &Path) -> Result<Bank> {
        Bank::read_folder(root, &root.join(FOLDER))
    }

    /// Reads another folder of questions about the book of a clone.
    ///
    /// # Errors
    /// See [`Bank::read`].
    pub fn read_folder(root: &Path, questions: &Path) -> Result<Bank> {
        let mut bank = Bank {
            questions: Vec::new(),
            book: Book::read(root)?,
            problems: Vec::new(),
        };
        let mut paths = BTreeMap::new();
        for (name, is_folder) in entries(questions)? {
            let path = format!("{FOLDER}/{name}");
            match (&*name, is_folder) {
                ("code", true) | ("README.md" | "coverage.toml", false) => {}
                (topic, true) if TOPICS.contains(&topic) => {
                    bank.read_topic(&questions.join(topic), topic, &mut paths)?;
                }
                (_, true) => {
                    let topics = TOPICS.join(", ");
                    bank.report(&path, format!("not a topic; the topics are {topics}"));
                }
                (_, false) => bank.report(&path, "a question must be in the folder of its topic"),
            }
        }
        bank.check_claims();
        // A question with a problem is not in the bank, so its program would look unused.
        if bank.problems.is_empty() {
            bank.check_programs(questions)?;
        }
        bank.problems.sort();
        let key = |one: &Question| (one.topic_index(), one.level, one.id.clone());
        bank.questions.sort_by_cached_key(key);
        Ok(bank)
    }

    /// `paths` has the files that were read before, by their ids.
    fn read_topic(
        &mut self,
        folder: &Path,
        topic: &str,
        paths: &mut BTreeMap<String, String>,
    ) -> Result<()> {
        for (name, _) in entries(folder)? {
            let path = format!("{FOLDER}/{topic}/{name}");
            let Some(id) = name.strip_suffix(".md") else {
                self.report(&path, "the file name of a question must end with .md");
                continue;
            };
            let text = fs::read_to_string(folder.join(&name))
                .with_context(|| format!("{path} cannot be read"))?;
            let file = lint::File {
                path: &path,
                topic,
                id,
                text: &text,
            };
            let question = lint::question(&file, &self.book);
            if let Some(other) = paths.get(id) {
                self.report(&path, format!("{other} has the same id"));
            }
            match question {
                Ok(question) if !paths.contains_key(id) => self.questions.push(question),
                Ok(_) => {}
                Err(problems) => self.problems.extend(problems),
            }
            paths.insert(id.to_owned(), path);
        }
        Ok(())
    }

    /// Reports programs in `code` that no question shows.
    fn check_programs(&mut self, questions: &Path) -> Result<()> {
        let folder = questions.join("code");
        if !folder.is_dir() {
            return Ok(());
        }
        let listings = self.questions.iter().filter_map(|one| one.listing.as_ref());
        let shown: BTreeSet<_> = listings.map(|listing| listing.file.clone()).collect();
        for (name, _) in entries(&folder)? {
            let file = format!("{FOLDER}/code/{name}");
            if !shown.contains(&file) {
                self.report(&file, "no question shows this program");
            }
        }
        Ok(())
    }

    /// Reports once that claims cannot be checked because the book has no errata.
    fn check_claims(&mut self) {
        let with_claim = self.questions.iter().filter(|one| one.claim.is_some());
        let count = with_claim.count();
        if count > 0 && self.book.claims.is_none() {
            let problem =
                format!("the page is missing, so the claims of {count} questions were not checked");
            self.report("book/src/errata.md", problem);
        }
    }

    fn report(&mut self, file: &str, text: impl Into<String>) {
        self.problems.push(Problem {
            file: file.to_owned(),
            line: 1,
            text: text.into(),
        });
    }

    /// Returns the question with that id.
    ///
    /// # Errors
    /// Returns an error if there is none.
    pub fn find(&self, id: &str) -> Result<&Question> {
        if let Some(question) = self.get(id) {
            return Ok(question);
        }
        let ids = self.questions.iter().map(|question| &*question.id);
        let similar: Vec<_> = ids.filter(|other| other.contains(id)).collect();
        match similar.as_slice() {
            [] => bail!("there is no question {id}; the book's drill pages list all ids"),
            similar => bail!(
                "there is no question {id}; did you mean {}?",
                similar.join(", ")
            ),
        }
    }

    pub fn get(&self, id: &str) -> Option<&Question> {
        self.questions.iter().find(|question| question.id == id)
    }

    /// Returns the wrong statements of the errata that no question corrects.
    pub fn uncorrected_claims(&self) -> BTreeSet<u32> {
        let claims = self.book.claims.iter().flatten();
        let wrong = claims.filter(|(_, is_true)| !**is_true);
        let corrected: BTreeSet<_> = self.questions.iter().filter_map(|one| one.claim).collect();
        let wrong = wrong.map(|(number, _)| *number);
        wrong.filter(|claim| !corrected.contains(claim)).collect()
    }
}

/// Returns the sorted names in a folder, and which of them are folders. Hidden files are left out.
fn entries(folder: &Path) -> Result<Vec<(String, bool)>> {
    let read = || -> std::io::Result<Vec<(String, bool)>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.starts_with('.') {
                names.push((name, entry.path().is_dir()));
            }
        }
        names.sort();
        Ok(names)
    };
    read().with_context(|| format!("{} cannot be read", folder.display()))
}
