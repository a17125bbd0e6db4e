//! A mock interview: spoken answers against the clock, a rubric, follow-ups, and a scorecard. The schedule is
//! unchanged.

use std::collections::BTreeMap;
use std::io;

use anyhow::{Result, ensure};
use course::log::{Mock, Record};

use super::drill::Drill;
use crate::bank::question::{FollowUp, Kind, Question};
use crate::progress::plan::{self, Scope};
use crate::terminal::{Terminal, counted};

/// A question that was answered.
struct Scored<'a> {
    question: &'a Question,
    points: Vec<Point>,
}

/// A point of the rubric, or a follow-up.
struct Point {
    text: String,
    made: bool,
}

impl Drill<'_> {
    /// Holds a mock interview.
    ///
    /// # Errors
    /// Returns an error if there is no suitable question, if the log cannot be read or written, or if the terminal
    /// fails.
    pub fn mock(
        &self,
        scope: &Scope,
        count: usize,
        minutes: i64,
        terminal: &mut Terminal,
    ) -> Result<()> {
        let state = self.begin(terminal)?;
        let questions = plan::mock(self.bank, &state, scope, count);
        ensure!(
            !questions.is_empty(),
            "no question of that topic and level is answered aloud; leave out --topic or --level"
        );
        terminal.text(&format!(
            "{}, {}. Answer aloud, as in an interview. The time is shown with each question.",
            counted(questions.len(), "question"),
            counted(minutes as usize, "minute")
        ))?;
        terminal
            .faint("Stop with :q, Ctrl-D or Ctrl-C; every point that you have ticked is kept.")?;
        let mut interview = Interview {
            drill: self,
            begin: self.clock.now().as_second(),
            seconds: minutes * 60,
            scored: Vec::new(),
        };
        let result = interview.ask_all(&questions, terminal);
        // The learner gets the scorecard even if the log could not be written.
        interview.print_scorecard(questions.len(), terminal)?;
        result
    }
}

struct Interview<'a> {
    drill: &'a Drill<'a>,
    /// When it began, in seconds since 1970.
    begin: i64,
    /// How long it should take.
    seconds: i64,
    scored: Vec<Scored<'a>>,
}

impl<'a> Interview<'a> {
    fn elapsed(&self) -> i64 {
        self.drill.clock.now().as_second() - self.begin
    }

    fn ask_all(&mut self, questions: &[&'a Question], terminal: &mut Terminal) -> Result<()> {
        let count = questions.len();
        for (index, question) in questions.iter().enumerate() {
            terminal.line("")?;
            if self.elapsed() >= self.seconds {
                let questions = counted(count, "question");
                terminal.line(&format!("Time is up after {index} of {questions}."))?;
                break;
            }
            let minutes = match question.kind {
                Kind::Mock { minutes, .. } => format!(" · about {minutes} min"),
                _ => String::new(),
            };
            terminal.strong(&format!(
                "[{}/{count}] {} of {} · {}{minutes}",
                index + 1,
                clock_face(self.elapsed()),
                clock_face(self.seconds),
                question.topic
            ))?;
            let begin = self.drill.clock.now().as_second();
            let Some(Heard { points, stopped }) = ask(question, terminal)? else {
                terminal.line("This question was not scored.")?;
                break;
            };
            let scored = points.len();
            self.record(question, points, begin)?;
            if stopped {
                let points = counted(scored, "point");
                terminal.line(&format!("This question was scored up to here: {points}."))?;
                break;
            }
        }
        Ok(())
    }

    fn record(&mut self, question: &'a Question, points: Vec<Point>, begin: i64) -> Result<()> {
        let now = self.drill.clock.now().as_second();
        let made = (1..).zip(&points).filter(|(_, point)| point.made);
        let record = Record::Mock(Mock {
            at: now,
            question: question.id.clone(),
            made: made.map(|(number, _)| number).collect(),
            points: points.len(),
            seconds: now - begin,
        });
        self.scored.push(Scored { question, points });
        self.drill.log.append(&record)
    }

    fn print_scorecard(&self, of: usize, terminal: &mut Terminal) -> io::Result<()> {
        let elapsed = self.elapsed();
        let (made, all) = count_points(&self.scored);
        terminal.line("")?;
        terminal.strong(&format!(
            "Scorecard: {made} of {}, {} of {}, {} of {}{}.",
            counted(all, "point"),
            self.scored.len(),
            counted(of, "question"),
            clock_face(elapsed),
            clock_face(self.seconds),
            if elapsed > self.seconds {
                ": over time"
            } else {
                ""
            }
        ))?;
        let mut topics: BTreeMap<_, Vec<&Scored>> = BTreeMap::new();
        for one in &self.scored {
            topics
                .entry(one.question.topic_index())
                .or_default()
                .push(one);
        }
        for scored in topics.into_values() {
            let (made, all) = count_points(scored.iter().copied());
            terminal.line(&format!("{} {made}/{all}", scored[0].question.topic))?;
            for one in scored {
                one.print_missed(terminal)?;
            }
        }
        Ok(())
    }
}

/// Returns the number of points that were made, and of all points.
fn count_points<'a>(scored: impl IntoIterator<Item = &'a Scored<'a>>) -> (usize, usize) {
    let points = scored.into_iter().flat_map(|one| &one.points);
    points.fold((0, 0), |(made, all), point| {
        (made + usize::from(point.made), all + 1)
    })
}

impl Scored<'_> {
    /// Prints the missed points, and where to learn them.
    fn print_missed(&self, terminal: &mut Terminal) -> io::Result<()> {
        if self.points.iter().all(|point| point.made) {
            return Ok(());
        }
        for point in self.points.iter().filter(|point| !point.made) {
            terminal.item("missed:", &point.text)?;
        }
        let question = self.question;
        terminal.item("page:", &format!("book/src/{}", question.lesson()))?;
        if question.has_proof() {
            let command = format!("`cargo run -- drill prove {}`", question.id);
            terminal.item("proof:", &command)?;
        }
        if let Some(exercise) = &question.exercise {
            terminal.item("exercise:", exercise)?;
        }
        Ok(())
    }
}

/// The points of a question that the learner has been asked about.
struct Heard {
    points: Vec<Point>,
    /// Whether the learner stopped before the last follow-up.
    stopped: bool,
}

/// Asks one question. Returns `None` if the learner stops before the rubric is ticked.
fn ask(question: &Question, terminal: &mut Terminal) -> Result<Option<Heard>> {
    terminal.markdown(&question.prompt)?;
    if read("Speak, then press Enter ", terminal)?.is_none() {
        return Ok(None);
    }
    if let Some(say) = &question.say {
        terminal.text(&format!("In thirty seconds: {say}"))?;
    }
    let Some(mut points) = ask_rubric(question, terminal)? else {
        return Ok(None);
    };
    let mut stopped = false;
    for follow_up in &question.follow_ups {
        let Some(made) = ask_follow_up(follow_up, terminal)? else {
            stopped = true;
            break;
        };
        points.push(Point {
            text: follow_up.question.clone(),
            made,
        });
    }
    Ok(Some(Heard { points, stopped }))
}

/// Returns whether the learner knew the answer; `None` if the learner stops.
fn ask_follow_up(follow_up: &FollowUp, terminal: &mut Terminal) -> Result<Option<bool>> {
    terminal.text(&format!("The interviewer goes on: {}", follow_up.question))?;
    if read("Speak, then press Enter ", terminal)?.is_none() {
        return Ok(None);
    }
    terminal.item("-", &follow_up.answer)?;
    ask_yes_or_no("Did you say that? y/n [n] ", terminal)
}

fn ask_rubric(question: &Question, terminal: &mut Terminal) -> Result<Option<Vec<Point>>> {
    let rubric = match &question.kind {
        Kind::Mock { rubric, .. } => rubric.clone(),
        Kind::Recall { answer } if question.must_mention.is_empty() => vec![answer.clone()],
        _ => question.must_mention.clone(),
    };
    terminal.line("The interviewer listens for:")?;
    for (number, point) in (1..).zip(&rubric) {
        terminal.item(&format!("{number}"), point)?;
    }
    let made = loop {
        let Some(typed) = read("Numbers of the points you made (Enter for none) ", terminal)?
        else {
            return Ok(None);
        };
        let numbers = typed.split([' ', ',']).filter(|number| !number.is_empty());
        let numbers: Result<Vec<usize>, _> = numbers.map(str::parse).collect();
        match numbers {
            Ok(made)
                if made
                    .iter()
                    .all(|number| (1..=rubric.len()).contains(number)) =>
            {
                break made;
            }
            _ => terminal.line(&format!(
                "Type numbers from 1 to {}, such as 1 3.",
                rubric.len()
            ))?,
        }
    };
    let points = (1..).zip(rubric).map(|(number, text)| Point {
        made: made.contains(&number),
        text,
    });
    Ok(Some(points.collect()))
}

fn ask_yes_or_no(prompt: &str, terminal: &mut Terminal) -> Result<Option<bool>> {
    loop {
        let Some(typed) = read(prompt, terminal)? else {
            return Ok(None);
        };
        match &*typed.trim().to_lowercase() {
            "y" | "yes" => return Ok(Some(true)),
            "" | "n" | "no" => return Ok(Some(false)),
            _ => terminal.line("Type y or n.")?,
        }
    }
}

/// Reads a line. Returns `None` if the learner stops.
fn read(prompt: &str, terminal: &mut Terminal) -> Result<Option<String>> {
    let typed = terminal.ask(prompt)?;
    Ok(typed.filter(|typed| typed.trim() != ":q"))
}

/// Formats a time: `4:05`.
fn clock_face(seconds: i64) -> String {
    format!("{}:{:02}", seconds / 60, seconds % 60)
}
