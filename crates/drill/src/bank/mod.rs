//! The bank: every question in `book/questions`, and every complaint about it.

pub mod book;
pub mod lint;
pub mod question;
pub mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::bank::book::Book;
use crate::bank::lint::Complaint;
use crate::bank::question::{Question, TOPICS};

/// The questions, and the book that they are about.
#[derive(Debug)]
pub struct Bank {
    /// By topic in the book's order, level, then id.
    pub questions: Vec<Question>,
    /// What they refer to.
    pub book: Book,
    /// All that is wrong. A question with a complaint is left out.
    pub complaints: Vec<Complaint>,
}

/// Where the questions lie.
pub const FOLDER: &str = "book/questions";

impl Bank {
    /// Reads the bank of a clone.
    ///
    /// # Errors
    /// If the book or the folder cannot be read; what is wrong with a question is a complaint.
    pub fn read(root: &Path) -> Result<Bank> {
        Bank::read_folder(root, &root.join(FOLDER))
    }

    /// Reads another folder of questions about a clone's book.
    ///
    /// # Errors
    /// As `read`.
    pub fn read_folder(root: &Path, questions: &Path) -> Result<Bank> {
        let book = Book::read(root)?;
        let mut bank = Bank {
            questions: Vec::new(),
            book,
            complaints: Vec::new(),
        };
        let mut files: BTreeMap<String, String> = BTreeMap::new();
        for (name, is_folder) in entries(questions)? {
            let folder = format!("{FOLDER}/{name}");
            match (&*name, is_folder) {
                ("code", true) | ("README.md", false) => {}
                (name, true) if TOPICS.contains(&name) => {
                    bank.topic(questions, name, &mut files)?
                }
                (_, true) => bank.complain(
                    &folder,
                    format!("no topic: the topics are {}", TOPICS.join(", ")),
                ),
                (_, false) => bank.complain(
                    &folder,
                    "a question lies in the folder of its topic".to_owned(),
                ),
            }
        }
        bank.claims();
        // A question with a complaint is not there to say what it shows.
        if bank.complaints.is_empty() {
            bank.unused_programs(questions)?;
        }
        bank.complaints.sort();
        let key = |one: &Question| (one.place(), one.level, one.id.clone());
        bank.questions.sort_by_key(key);
        Ok(bank)
    }

    fn topic(
        &mut self,
        questions: &Path,
        topic: &str,
        files: &mut BTreeMap<String, String>,
    ) -> Result<()> {
        for (name, _) in entries(&questions.join(topic))? {
            let file = format!("{FOLDER}/{topic}/{name}");
            let Some(id) = name.strip_suffix(".md") else {
                self.complain(&file, "a question is a file that ends with .md".to_owned());
                continue;
            };
            let text = fs::read_to_string(questions.join(topic).join(&name))
                .with_context(|| file.clone())?;
            let question =
                lint::question(&file, topic, id, &text, &self.book, &mut self.complaints);
            match files.insert(id.to_owned(), file.clone()) {
                Some(other) => self.complain(&file, format!("{other} has this id already")),
                None => self.questions.extend(question),
            }
        }
        Ok(())
    }

    fn unused_programs(&mut self, questions: &Path) -> Result<()> {
        let code = questions.join("code");
        if !code.is_dir() {
            return Ok(());
        }
        for (name, _) in entries(&code)? {
            let file = format!("{FOLDER}/code/{name}");
            let shown = |question: &Question| {
                question
                    .listing
                    .as_ref()
                    .is_some_and(|listing| listing.file == file)
            };
            if !self.questions.iter().any(shown) {
                self.complain(&file, "no question shows this program".to_owned());
            }
        }
        Ok(())
    }

    /// Without the errata no claim can be looked up: that is said once.
    fn claims(&mut self) {
        let claims = self
            .questions
            .iter()
            .filter(|one| one.claim.is_some())
            .count();
        if claims > 0 && self.book.claims.is_none() {
            let text = format!(
                "there is no such page, so the claims of {claims} questions are not looked up"
            );
            self.complain("book/src/errata.md", text);
        }
    }

    fn complain(&mut self, file: &str, text: String) {
        self.complaints.push(Complaint {
            file: file.to_owned(),
            line: 1,
            text,
        });
    }

    /// The question of that id.
    ///
    /// # Errors
    /// If there is none.
    pub fn find(&self, id: &str) -> Result<&Question> {
        match self.get(id) {
            Some(question) => Ok(question),
            None => {
                let close = self.questions.iter().map(|question| &*question.id);
                let close: Vec<_> = close.filter(|other| other.contains(id)).collect();
                match close.as_slice() {
                    [] => bail!(
                        "there is no question {id}: `drill lint` counts them, the book's drill pages name them"
                    ),
                    close => bail!("there is no question {id}: there is {}", close.join(", ")),
                }
            }
        }
    }

    /// The question of that id, if there is one.
    pub fn get(&self, id: &str) -> Option<&Question> {
        self.questions.iter().find(|question| question.id == id)
    }

    /// The claims that do not hold as they stand, and that no myth corrects; none where there is no errata.
    pub fn claims_without_a_myth(&self) -> BTreeSet<u32> {
        let claims = self.book.claims.iter().flatten();
        let claims = claims
            .filter(|(_, holds)| !**holds)
            .map(|(number, _)| *number);
        let corrected: BTreeSet<_> = self.questions.iter().filter_map(|one| one.claim).collect();
        claims.filter(|claim| !corrected.contains(claim)).collect()
    }
}

/// The names in a folder, in order, and which of them are folders. What begins with a dot is passed over.
fn entries(folder: &Path) -> Result<Vec<(String, bool)>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            names.push((name, entry.path().is_dir()));
        }
    }
    names.sort();
    Ok(names)
}
