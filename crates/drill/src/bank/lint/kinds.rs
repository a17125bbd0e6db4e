//! Reads what only some types of questions have.

use super::linter::Linter;
use crate::bank::question::{ANSWER, Choice, FollowUp, Kind, Language, Listing, PLACE};
use crate::bank::source::{Section, split_reason};
use crate::matching;

impl Linter<'_> {
    pub(super) fn items(&mut self, title: &str) -> Vec<String> {
        let Some(section) = self.sections.get(title).copied() else {
            return Vec::new();
        };
        if section.items.is_empty() {
            self.report(section.line, format!("## {title} must be a list"));
        }
        section.items.iter().map(|item| item.text.clone()).collect()
    }

    pub(super) fn follow_ups(&mut self) -> Vec<FollowUp> {
        let Some(section) = self.sections.get("Follow-ups").copied() else {
            return Vec::new();
        };
        if section.items.is_empty() {
            self.report(section.line, "## Follow-ups must be a list");
        }
        let mut follow_ups = Vec::new();
        for item in &section.items {
            match split_reason(&item.text) {
                Some((question, answer)) if !question.is_empty() && !answer.is_empty() => {
                    follow_ups.push(FollowUp {
                        question: question.to_owned(),
                        answer: answer.to_owned(),
                    });
                }
                _ => self.report(item.line, "a follow-up is written `- question > answer`"),
            }
        }
        follow_ups
    }

    pub(super) fn kind(
        &mut self,
        name: &str,
        opening: &Section,
        listing: Option<&Listing>,
    ) -> Option<Kind> {
        match name {
            "recall" => Some(Kind::Recall {
                answer: self.text_of("Answer")?,
            }),
            "choice" => Some(self.choice(opening)),
            "order" => Some(self.order(opening)),
            "output" => Some(Kind::Output {
                answers: self.answers()?,
            }),
            "estimate" => self.estimate(),
            "bug" => Some(Kind::Bug {
                lines: self.wrong_lines(listing?)?,
                answer: self.text_of("Answer")?,
            }),
            "write" => self.write(),
            "mock" => Some(Kind::Mock {
                minutes: self.number("minutes", 1..=15, |front| &front.minutes)?,
                rubric: self.items("Rubric"),
            }),
            _ => None,
        }
    }

    fn text_of(&self, title: &str) -> Option<String> {
        self.sections.get(title).map(|section| section.text.clone())
    }

    fn choice(&mut self, opening: &Section) -> Kind {
        let mut options: Vec<Choice> = Vec::new();
        for item in &opening.items {
            let reason =
                split_reason(&item.text).filter(|(text, why)| !text.is_empty() && !why.is_empty());
            let (Some((text, why)), Some(right)) = (reason, item.ticked) else {
                let problem = "an option is written `- [ ] option > why it is wrong` or \
                               `- [x] option > why it is right`";
                self.report(item.line, problem);
                continue;
            };
            if options.iter().any(|other| other.text == text) {
                self.report(item.line, "this option occurs twice");
            }
            options.push(Choice {
                text: text.to_owned(),
                right,
                why: why.to_owned(),
            });
        }
        let line = opening.items.first().map_or(opening.line, |item| item.line);
        if opening.items.len() < 2 {
            self.report(line, "a choice needs a list of at least two options");
        } else if !opening.items.iter().any(|item| item.ticked == Some(true)) {
            self.report(line, "no option is right: `- [x]`");
        } else if !opening.items.iter().any(|item| item.ticked == Some(false)) {
            self.report(line, "no option is wrong: `- [ ]`");
        }
        Kind::Choice { options }
    }

    fn order(&mut self, opening: &Section) -> Kind {
        if opening.items.len() < 3 {
            let problem = "an order needs a list of at least three steps";
            self.report(opening.line, problem);
        }
        let mut steps = Vec::new();
        for item in &opening.items {
            if steps.contains(&item.text) {
                self.report(item.line, "this step occurs twice");
            }
            steps.push(item.text.clone());
        }
        Kind::Order { steps }
    }

    fn answers(&self) -> Option<Vec<String>> {
        let answer = self.front.answer.as_ref()?.get_ref();
        let answers = std::iter::once(answer).chain(&self.front.accept);
        Some(answers.cloned().collect())
    }

    fn estimate(&mut self) -> Option<Kind> {
        let answers = self.answers()?;
        let line = self.line_of(self.front.answer.as_ref()?);
        for answer in &answers {
            if matching::quantity(answer).is_none() {
                let problem = format!("the answer of an estimate must be a number, not {answer}");
                self.report(line, problem);
            }
        }
        let tolerance = self.value(&self.front.tolerance);
        if let Some((line, tolerance)) = tolerance
            && !(0.0..=0.5).contains(&tolerance)
        {
            let problem = format!("tolerance is {tolerance}; it must be between 0.0 and 0.5");
            self.report(line, problem);
        }
        let unit = self.front.unit.clone();
        // The answer is shown with the unit after it.
        if let (Some(answer), Some(unit)) = (answers.first(), &unit)
            && answer.ends_with(unit.as_str())
        {
            let problem = format!("the answer must not repeat the unit {unit}");
            self.report(line, problem);
        }
        Some(Kind::Estimate {
            answers,
            unit,
            tolerance: tolerance.map_or(0.0, |(_, tolerance)| tolerance),
        })
    }

    fn wrong_lines(&mut self, listing: &Listing) -> Option<Vec<usize>> {
        let (line, numbers) = self.value(&self.front.lines)?;
        let last = listing.text.lines().count();
        for number in &numbers {
            if !(1..=last).contains(number) {
                let file = &listing.file;
                let problem = format!("{file} has the lines 1 to {last}, but lines has {number}");
                self.report(line, problem);
            }
        }
        Some(numbers)
    }

    fn write(&mut self) -> Option<Kind> {
        let language = self.front.language?;
        let answer = self.only_fence("Answer", language);
        let check = self.only_fence("Check", language);
        if let Some((line, check)) = &check {
            let places = check.lines().filter(|line| line.trim() == ANSWER).count();
            if places != 1 {
                let problem = format!("the check needs one line `{ANSWER}`, but has {places}");
                self.report(*line, problem);
            }
        }
        Some(Kind::Write {
            language,
            answer: answer?.1,
            check: check?.1,
        })
    }

    /// Returns the code block of a section, and its line.
    fn only_fence(&mut self, title: &str, language: Language) -> Option<(usize, String)> {
        let section = *self.sections.get(title)?;
        let info = language.name();
        match section.fences.as_slice() {
            [fence] if fence.info == info => Some((fence.line, fence.code.clone())),
            _ => {
                let problem =
                    format!("## {title} must have one code block, which begins with ```{info}");
                self.report(section.line, problem);
                None
            }
        }
    }

    /// A line that the program prints must contain a typed answer, and `shows` must say where. Otherwise nothing proves
    /// the answer, or another number in the line does.
    pub(super) fn check_that_proof_shows_answer(&mut self, kind: &Kind) {
        let is_typed = matches!(kind, Kind::Output { .. } | Kind::Estimate { .. });
        let shows = self.shows();
        if !is_typed || shows.is_empty() || shows.iter().any(|line| line.contains(PLACE)) {
            return;
        }
        if let Some((line, _)) = self.value(&self.front.shows) {
            let problem = format!("write {PLACE} in shows where the program prints the answer");
            self.report(line, problem);
        }
    }
}
