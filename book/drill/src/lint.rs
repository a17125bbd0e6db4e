//! Makes a question of a file, and says everything that is wrong with it, each with its line.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;

use serde::Serialize;

use crate::book::Book;
use crate::lesson::between_anchors;
use crate::matching::{self, one_space};
use crate::question::{ANSWER, Choice, FollowUp, Kind, Language, Listing, Question};
use crate::source::{Field, Item, Section, Source, split_reason, take_apart};

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

const EVERYWHERE: [&str; 9] = [
    "type", "level", "needs", "page", "prove", "shows", "myth", "claim", "asked",
];

/// What each type has: its own keys, those of them that it needs, and the sections that it needs beside its prompt.
/// `## Why` may stand everywhere, and so may `## Must mention` and `## Follow-ups`.
struct Type {
    name: &'static str,
    keys: &'static [&'static str],
    needs_keys: &'static [&'static str],
    needs_sections: &'static [&'static str],
}

const TYPES: [Type; 8] = [
    Type {
        name: "recall",
        keys: &["say", "program"],
        needs_keys: &["say"],
        needs_sections: &["Answer"],
    },
    Type {
        name: "choice",
        keys: &["program"],
        needs_keys: &[],
        needs_sections: &[],
    },
    Type {
        name: "output",
        keys: &["answer", "accept", "program", "without"],
        needs_keys: &["answer"],
        needs_sections: &["Why"],
    },
    Type {
        name: "bug",
        keys: &["lines", "program"],
        needs_keys: &["lines", "program"],
        needs_sections: &["Answer"],
    },
    Type {
        name: "order",
        keys: &["program"],
        needs_keys: &[],
        needs_sections: &["Why"],
    },
    Type {
        name: "estimate",
        keys: &[
            "answer",
            "accept",
            "unit",
            "tolerance",
            "program",
            "without",
        ],
        needs_keys: &["answer"],
        needs_sections: &["Why"],
    },
    Type {
        name: "write",
        keys: &["language"],
        needs_keys: &["language"],
        needs_sections: &["Answer", "Check"],
    },
    Type {
        name: "mock",
        keys: &["say", "minutes"],
        needs_keys: &["say", "minutes"],
        needs_sections: &["Rubric", "Follow-ups"],
    },
];

const ANY_SECTIONS: [&str; 3] = ["Why", "Must mention", "Follow-ups"];

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

    fn page(&mut self) -> (Option<String>, Option<String>) {
        let Some((line, value)) = self.fields.get("page").copied() else {
            return (None, None);
        };
        self.leads_somewhere(line, value);
        match value.split_once('#') {
            Some((page, fragment)) => (Some(page.to_owned()), Some(fragment.to_owned())),
            None => (Some(value.to_owned()), None),
        }
    }

    fn needs(&mut self) -> Option<String> {
        let (line, value) = *self.fields.get("needs")?;
        if !self.book.exercises.contains_key(value) {
            let names: Vec<_> = self.book.exercises.keys().map(String::as_str).collect();
            let text = format!(
                "there is no exercise {value}: there is {}",
                names.join(", ")
            );
            self.complain(line, text);
        }
        Some(value.to_owned())
    }

    fn program_that_proves(&mut self) -> Option<String> {
        let Some((line, value)) = self.fields.get("prove").copied() else {
            if let Some((line, _)) = self.shows.first().copied() {
                self.complain(line, "shows needs the key prove: which program shows it?");
            }
            return None;
        };
        if !self.book.programs.contains(value) {
            self.complain(
                line,
                format!("there is no program book/lab/examples/{value}.rs"),
            );
        }
        if self.shows.is_empty() {
            self.complain(
                line,
                "prove needs a line that the program must print: shows",
            );
        }
        Some(value.to_owned())
    }

    fn claim(&mut self) -> Option<u32> {
        match (
            self.fields.get("myth").copied(),
            self.fields.get("claim").copied(),
        ) {
            (None, None) => None,
            (None, Some((line, _))) => {
                self.complain(line, "a question with a claim is `myth: yes`");
                None
            }
            (Some((line, value)), claim) => {
                if value != "yes" {
                    self.complain(
                        line,
                        format!("myth is yes, or it is not there; it is not {value}"),
                    );
                }
                let Some((line, value)) = claim else {
                    self.complain(line, "a myth has a claim: its number in the errata");
                    return None;
                };
                let Ok(number) = value.parse() else {
                    self.complain(line, format!("a claim is a number, and not {value}"));
                    return None;
                };
                if let Some(claims) = &self.book.claims {
                    match claims.get(&number) {
                        None => {
                            self.complain(line, format!("book/src/errata.md has no claim {number}"))
                        }
                        Some(true) => {
                            self.complain(
                                line,
                                format!("claim {number} is true: there is no myth in it"),
                            );
                        }
                        Some(false) => {}
                    }
                }
                Some(number)
            }
        }
    }

    /// Thirty seconds are about eighty words.
    fn say(&mut self) -> Option<String> {
        const MOST: usize = 90;
        let (line, value) = *self.fields.get("say")?;
        let words = value.split_whitespace().count();
        if words > MOST {
            let text = format!("say has {words} words: thirty seconds are {MOST} at most");
            self.complain(line, text);
        }
        Some(value.to_owned())
    }

    fn listing(&mut self, kind: &str) -> Option<Listing> {
        let (line, name) = *self.fields.get("program")?;
        let of_the_bank =
            ["", ".rs", ".c"].map(|ending| format!("book/questions/code/{name}{ending}"));
        let of_the_lab = format!("book/lab/examples/{name}.rs");
        let mut files = of_the_bank
            .iter()
            .filter(|_| kind == "bug")
            .chain([&of_the_lab]);
        let found = files.find_map(|file| {
            let text = fs::read_to_string(self.book.root.join(file)).ok()?;
            Some((file, text))
        });
        let Some((file, text)) = found else {
            let text = match kind {
                "bug" => format!(
                    "there is no program {name} in book/questions/code or book/lab/examples"
                ),
                _ => format!("there is no program {of_the_lab}"),
            };
            self.complain(line, text);
            return None;
        };
        let anchored = between_anchors(&text, "main");
        if anchored.is_none() && *file == of_the_lab {
            self.complain(line, format!("{file} has no anchor main"));
        }
        let text = anchored.unwrap_or_else(|| text.trim_end().to_owned());
        Some(Listing {
            text: self.without(&text),
            file: file.clone(),
        })
    }

    /// The listing without the lines that would give the answer away.
    fn without(&mut self, listing: &str) -> String {
        let Some((line, texts)) = self.fields.get("without").copied() else {
            return listing.to_owned();
        };
        let mut lines: Vec<_> = listing.lines().collect();
        for text in texts.split(" | ").map(str::trim) {
            let before = lines.len();
            lines = lines_without(&lines, text);
            if lines.len() == before {
                self.complain(line, format!("no line of the program has {text}"));
            }
        }
        lines.join("\n")
    }

    /// A name that is to be found out does not stand in the program that is shown.
    fn listing_keeps_the_answer(&mut self, kind: &Kind, listing: Option<&Listing>) {
        let (Kind::Output { answers }, Some(listing)) = (kind, listing) else {
            return;
        };
        let line = self.fields["answer"].0;
        let given = answers.iter().find(|answer| {
            let is_name =
                answer.len() > 3 && !answer.starts_with(|letter: char| letter.is_numeric());
            is_name && listing.text.contains(answer.as_str())
        });
        if let Some(given) = given {
            self.complain(
                line,
                format!(
                    "the program that is shown has {given} in it: leave out its line by without"
                ),
            );
        }
    }

    fn items(&mut self, title: &str) -> Vec<String> {
        let Some(section) = self.sections.get(title).copied() else {
            return Vec::new();
        };
        if section.items.is_empty() {
            self.complain(section.line, format!("## {title} is a list"));
        }
        section.items.iter().map(|item| item.text.clone()).collect()
    }

    fn follow_ups(&mut self) -> Vec<FollowUp> {
        let Some(section) = self.sections.get("Follow-ups").copied() else {
            return Vec::new();
        };
        if section.items.is_empty() {
            self.complain(section.line, "## Follow-ups is a list");
        }
        let mut found = Vec::new();
        for item in &section.items {
            match split_reason(&item.text) {
                Some((question, answer)) if !question.is_empty() && !answer.is_empty() => {
                    found.push(FollowUp {
                        question: question.to_owned(),
                        answer: answer.to_owned(),
                    });
                }
                _ => self.complain(item.line, "a follow-up is `- question > answer`"),
            }
        }
        found
    }

    fn kind(&mut self, name: &str, source: &'a Source, listing: Option<&Listing>) -> Option<Kind> {
        let section = |title: &str| self.sections.get(title).copied();
        match name {
            "recall" => {
                let answer = section("Answer")?.text.clone();
                Some(Kind::Recall { answer })
            }
            "choice" => self.choice(&source.opening),
            "order" => self.order(&source.opening),
            "output" => {
                let answers = self.answers()?;
                Some(Kind::Output { answers })
            }
            "estimate" => self.estimate(),
            "bug" => {
                let answer = section("Answer").map(|section| section.text.clone());
                let lines = self.wrong_lines(listing?);
                Some(Kind::Bug {
                    lines: lines?,
                    answer: answer?,
                })
            }
            "write" => self.write(),
            "mock" => {
                let minutes = self.number("minutes", 1..=15, true);
                let rubric = self.items("Rubric");
                Some(Kind::Mock {
                    minutes: minutes?,
                    rubric,
                })
            }
            _ => None,
        }
    }

    fn choice(&mut self, opening: &Section) -> Option<Kind> {
        let mut options: Vec<Choice> = Vec::new();
        for item in &opening.items {
            let reason =
                split_reason(&item.text).filter(|(text, why)| !text.is_empty() && !why.is_empty());
            let (Some((text, why)), Some(right)) = (reason, item.ticked) else {
                let text = "an option is `- [ ] option > why it is wrong` or `- [x] option > why it is right`";
                self.complain(item.line, text);
                continue;
            };
            if options.iter().any(|other| other.text == text) {
                self.complain(item.line, "this option stands twice");
            }
            options.push(Choice {
                text: text.to_owned(),
                right,
                why: why.to_owned(),
            });
        }
        let line = opening.items.first().map_or(opening.line, |item| item.line);
        if opening.items.len() < 2 {
            self.complain(line, "a choice has a list of two options or more");
        } else if !opening.items.iter().any(|item| item.ticked == Some(true)) {
            self.complain(line, "no option is right: `- [x]`");
        } else if !opening.items.iter().any(|item| item.ticked == Some(false)) {
            self.complain(line, "no option is wrong: `- [ ]`");
        }
        Some(Kind::Choice { options })
    }

    fn order(&mut self, opening: &Section) -> Option<Kind> {
        if opening.items.len() < 3 {
            self.complain(opening.line, "an order has a list of three steps or more");
        }
        let texts: Vec<_> = opening.items.iter().map(|item| &*item.text).collect();
        for (index, Item { line, text, .. }) in opening.items.iter().enumerate() {
            if texts[..index].contains(&&**text) {
                self.complain(*line, "this step stands twice");
            }
        }
        let steps = texts.into_iter().map(str::to_owned).collect();
        Some(Kind::Order { steps })
    }

    /// The answer to type, and what is as good.
    fn answers(&mut self) -> Option<Vec<String>> {
        let (_, answer) = *self.fields.get("answer")?;
        let accept = self.fields.get("accept").copied();
        let others = accept
            .map(|(_, accept)| accept.split(" | "))
            .into_iter()
            .flatten();
        let others = others.map(str::trim).filter(|other| !other.is_empty());
        Some(
            std::iter::once(answer)
                .chain(others)
                .map(str::to_owned)
                .collect(),
        )
    }

    fn estimate(&mut self) -> Option<Kind> {
        let answers = self.answers()?;
        let (line, _) = self.fields["answer"];
        for answer in &answers {
            if matching::quantity(answer).is_none() {
                self.complain(
                    line,
                    format!("an estimate's answer is a number, and not {answer}"),
                );
            }
        }
        let tolerance = match self.fields.get("tolerance").copied() {
            None => 0.0,
            Some((line, value)) => {
                let percent = value.strip_suffix('%').map(str::trim_end);
                let percent: Option<f64> = percent.and_then(|number| number.parse().ok());
                match percent.filter(|percent| (0.0..=50.0).contains(percent)) {
                    Some(percent) => percent / 100.0,
                    None => {
                        let text =
                            format!("tolerance is a percentage from 0% to 50%, and not {value}");
                        self.complain(line, text);
                        0.0
                    }
                }
            }
        };
        let unit = self.fields.get("unit").map(|(_, unit)| (*unit).to_owned());
        // The two are shown together.
        if let (Some(answer), Some(unit)) = (answers.first(), &unit)
            && answer.ends_with(unit.as_str())
        {
            self.complain(
                line,
                format!("the answer is a number, and its unit is {unit} already"),
            );
        }
        Some(Kind::Estimate {
            answers,
            unit,
            tolerance,
        })
    }

    fn wrong_lines(&mut self, listing: &Listing) -> Option<Vec<usize>> {
        let (line, value) = *self.fields.get("lines")?;
        let last = listing.text.lines().count();
        let numbers = value.split([',', ' ']).filter(|number| !number.is_empty());
        let mut found = Vec::new();
        for number in numbers {
            match number.parse() {
                Ok(number) if (1..=last).contains(&number) => found.push(number),
                _ => {
                    let text = format!(
                        "lines names lines of {} (1 to {last}), and not {number}",
                        listing.file
                    );
                    self.complain(line, text);
                }
            }
        }
        Some(found)
    }

    fn write(&mut self) -> Option<Kind> {
        let (line, value) = *self.fields.get("language")?;
        let language = match value {
            "c" => Language::C,
            "rust" => Language::Rust,
            _ => {
                self.complain(line, format!("language is c or rust, and not {value}"));
                return None;
            }
        };
        let answer = self.fence("Answer", language);
        let check = self.fence("Check", language);
        if let Some((line, check)) = &check {
            let places = check.lines().filter(|line| line.trim() == ANSWER).count();
            if places != 1 {
                let text = format!("the check has {places} lines `{ANSWER}`: it needs one");
                self.complain(*line, text);
            }
        }
        Some(Kind::Write {
            language,
            answer: answer?.1,
            check: check?.1,
        })
    }

    fn fence(&mut self, title: &str, language: Language) -> Option<(usize, String)> {
        let section = *self.sections.get(title)?;
        let info = language.name();
        match section.fences.as_slice() {
            [fence] if fence.info == info => Some((fence.line, fence.code.clone())),
            _ => {
                let text =
                    format!("## {title} has one block of code, and it begins with ```{info}");
                self.complain(section.line, text);
                None
            }
        }
    }

    /// An answer to be typed that the proof does not show is not proved.
    fn proof_matches_answer(&mut self, kind: &Kind) {
        let (Kind::Output { answers } | Kind::Estimate { answers, .. }) = kind else {
            return;
        };
        let (Some((line, _)), false) = (self.fields.get("answer").copied(), self.shows.is_empty())
        else {
            return;
        };
        let shows: Vec<_> = self.shows.iter().map(|(_, line)| *line).collect();
        if !is_shown(answers, &shows) {
            self.complain(
                line,
                "the answer stands in no line of shows: nothing proves it",
            );
        }
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

/// The lines that do not have that text. A comment that has it goes as a whole, down to its last line.
fn lines_without<'a>(lines: &[&'a str], text: &str) -> Vec<&'a str> {
    let mut in_comment = false;
    let kept = lines.iter().filter(|line| {
        let comment = line.trim_start().starts_with("//");
        let has = line.contains(text);
        in_comment = comment && (has || in_comment);
        !has && !in_comment
    });
    kept.copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_goes_as_a_whole() {
        let lines = [
            "a();",
            "// SAFETY: one line,",
            "// and another.",
            "b();",
            "// else",
        ];
        assert_eq!(
            lines_without(&lines, "// SAFETY"),
            ["a();", "b();", "// else"]
        );
    }
}
