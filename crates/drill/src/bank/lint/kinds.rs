//! What each type of question asks for, and whether its proof agrees.

use super::{Reader, is_shown};
use crate::bank::question::{ANSWER, Choice, FollowUp, Kind, Language, Listing};
use crate::bank::source::{Item, Section, Source, split_reason};
use crate::matching;

impl<'a> Reader<'a> {
    pub(super) fn items(&mut self, title: &str) -> Vec<String> {
        let Some(section) = self.sections.get(title).copied() else {
            return Vec::new();
        };
        if section.items.is_empty() {
            self.complain(section.line, format!("## {title} is a list"));
        }
        section.items.iter().map(|item| item.text.clone()).collect()
    }

    pub(super) fn follow_ups(&mut self) -> Vec<FollowUp> {
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

    pub(super) fn kind(
        &mut self,
        name: &str,
        source: &'a Source,
        listing: Option<&Listing>,
    ) -> Option<Kind> {
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

    pub(super) fn choice(&mut self, opening: &Section) -> Option<Kind> {
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

    pub(super) fn order(&mut self, opening: &Section) -> Option<Kind> {
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
    pub(super) fn answers(&mut self) -> Option<Vec<String>> {
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

    pub(super) fn estimate(&mut self) -> Option<Kind> {
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

    pub(super) fn wrong_lines(&mut self, listing: &Listing) -> Option<Vec<usize>> {
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

    pub(super) fn write(&mut self) -> Option<Kind> {
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

    pub(super) fn fence(&mut self, title: &str, language: Language) -> Option<(usize, String)> {
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
    pub(super) fn proof_matches_answer(&mut self, kind: &Kind) {
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
