//! A mock interview: spoken answers against the clock, a rubric, follow-ups, a scorecard. It moves no schedule.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use anyhow::{Result, ensure};

use crate::bank::Bank;
use crate::bank::question::{Kind, Question};
use crate::progress::plan::Scope;
use crate::progress::state::State;
use crate::session::{Desk, torn};
use crate::terminal::{Terminal, counted};
use course::log::{Mock, Record};

/// How a question went.
struct Scored<'a> {
    question: &'a Question,
    /// Each point of the rubric and each follow-up, and whether it was there.
    points: Vec<(String, bool)>,
}

/// The questions of the next mock: those asked least often in one, then what interviewers ask most. Where there are too
/// few, questions that are answered aloud fill it up.
pub fn choose<'a>(bank: &'a Bank, state: &State, scope: &Scope, count: usize) -> Vec<&'a Question> {
    let spoken = |question: &&Question| {
        let recall = matches!(question.kind, Kind::Recall { .. });
        (question.is_mock() || recall) && scope.has(question)
    };
    let mut chosen: Vec<_> = bank.questions.iter().filter(spoken).collect();
    chosen.sort_by_cached_key(|question| {
        let before = state
            .mocks
            .iter()
            .filter(|mock| mock.question == question.id)
            .count();
        (
            !question.is_mock(),
            before,
            Reverse(question.asked),
            question.level,
            question.id.clone(),
        )
    });
    chosen.truncate(count);
    chosen
}

/// Holds the interview: that many questions, that many minutes.
///
/// # Errors
/// If the log cannot be read or written, or the terminal is gone.
pub fn run(
    desk: &Desk,
    scope: &Scope,
    count: usize,
    minutes: i64,
    terminal: &mut Terminal,
) -> Result<()> {
    let bank = desk.bank;
    desk.can_write()?;
    let state = desk.state()?;
    torn(&state, &desk.log, terminal)?;
    let questions = choose(bank, &state, scope, count);
    ensure!(
        !questions.is_empty(),
        "no question of that topic and level is answered aloud: leave out --topic or --level"
    );
    terminal.text(&format!(
        "{}, {}. Answer aloud, as you would there; the time is shown with each question.",
        counted(questions.len(), "question"),
        counted(minutes as usize, "minute")
    ))?;
    terminal.faint("Stop with the end of input (Ctrl-D) or :q: what was answered is kept.")?;
    let begun = desk.clock.now().as_second();
    let elapsed = || desk.clock.now().as_second() - begun;
    let mut scored = Vec::new();
    for (index, question) in questions.iter().enumerate() {
        terminal.line("")?;
        if elapsed() >= minutes * 60 {
            terminal.line(&format!(
                "Time is up after {index} of {}.",
                counted(questions.len(), "question")
            ))?;
            break;
        }
        let about = match question.kind {
            Kind::Mock { minutes, .. } => format!(" · about {minutes} min"),
            _ => String::new(),
        };
        terminal.strong(&format!(
            "[{}/{}] {} of {} · {}{about}",
            index + 1,
            questions.len(),
            clock_face(elapsed()),
            clock_face(minutes * 60),
            question.topic
        ))?;
        let asked = desk.clock.now().as_second();
        let Some(points) = one(question, terminal)? else {
            terminal.line("This question was not scored.")?;
            break;
        };
        let made = (1..).zip(&points).filter(|(_, (_, made))| *made);
        let written = desk.log.append(&Record::Mock(Mock {
            at: desk.clock.now().as_second(),
            question: question.id.clone(),
            made: made.map(|(number, _)| number).collect(),
            points: points.len(),
            seconds: desk.clock.now().as_second() - asked,
        }));
        scored.push(Scored { question, points });
        // Whoever has answered gets the scorecard, recorded or not.
        if written.is_err() {
            scorecard(&scored, questions.len(), elapsed(), minutes, terminal)?;
            return written;
        }
    }
    scorecard(&scored, questions.len(), elapsed(), minutes, terminal)
}

/// Asks one question. Returns its points, or none where the input has ended.
fn one(question: &Question, terminal: &mut Terminal) -> Result<Option<Vec<(String, bool)>>> {
    terminal.markdown(&question.prompt)?;
    if answer(terminal, "Speak, then Enter ")?.is_none() {
        return Ok(None);
    }
    let rubric = match &question.kind {
        Kind::Mock { rubric, .. } => rubric.clone(),
        Kind::Recall { answer } if question.must_mention.is_empty() => vec![answer.clone()],
        _ => question.must_mention.clone(),
    };
    if let Some(say) = &question.say {
        terminal.text(&format!("In thirty seconds: {say}"))?;
    }
    terminal.line("What was listened for:")?;
    for (number, point) in (1..).zip(&rubric) {
        terminal.item(&format!("{number}"), point)?;
    }
    let ticked = loop {
        let Some(typed) = answer(terminal, "The numbers of what you said (Enter: none) ")? else {
            return Ok(None);
        };
        let numbers = typed.split([' ', ',']).filter(|number| !number.is_empty());
        let numbers: Option<Vec<usize>> = numbers.map(|number| number.parse().ok()).collect();
        match numbers {
            Some(numbers)
                if numbers
                    .iter()
                    .all(|number| (1..=rubric.len()).contains(number)) =>
            {
                break numbers;
            }
            _ => terminal.line(&format!("Numbers from 1 to {}, such as 1 3.", rubric.len()))?,
        }
    };
    let rubric = (1..).zip(rubric);
    let mut points: Vec<_> = rubric
        .map(|(number, point)| (point, ticked.contains(&number)))
        .collect();
    for follow_up in &question.follow_ups {
        terminal.text(&format!("The interviewer goes on: {}", follow_up.question))?;
        if answer(terminal, "Speak, then Enter ")?.is_none() {
            return Ok(None);
        }
        terminal.item("-", &follow_up.answer)?;
        let had = loop {
            let Some(typed) = answer(terminal, "Did you have it? y/n [n] ")? else {
                return Ok(None);
            };
            match &*typed.trim().to_lowercase() {
                "y" | "yes" => break true,
                "" | "n" | "no" => break false,
                _ => terminal.line("y or n.")?,
            }
        };
        points.push((follow_up.question.clone(), had));
    }
    Ok(Some(points))
}

fn answer(terminal: &mut Terminal, prompt: &str) -> Result<Option<String>> {
    let typed = terminal.ask(prompt)?;
    Ok(typed.filter(|typed| typed.trim() != ":q"))
}

fn scorecard(
    scored: &[Scored],
    of: usize,
    seconds: i64,
    minutes: i64,
    terminal: &mut Terminal,
) -> Result<()> {
    let count = |scored: &[&Scored]| {
        let points = || scored.iter().flat_map(|scored| &scored.points);
        (points().filter(|(_, made)| *made).count(), points().count())
    };
    let (made, all) = count(&scored.iter().collect::<Vec<_>>());
    terminal.line("")?;
    terminal.strong(&format!(
        "Scorecard: {made} of {}, {} of {}, {} of {}{}.",
        counted(all, "point"),
        scored.len(),
        counted(of, "question"),
        clock_face(seconds),
        clock_face(minutes * 60),
        if seconds > minutes * 60 {
            ": over time"
        } else {
            ""
        }
    ))?;
    let mut topics: BTreeMap<(usize, &str), Vec<&Scored>> = BTreeMap::new();
    for one in scored {
        let key = (one.question.topic_index(), &*one.question.topic);
        topics.entry(key).or_default().push(one);
    }
    for ((_, topic), scored) in topics {
        let (made, all) = count(&scored);
        terminal.line(&format!("{topic} {made}/{all}"))?;
        for Scored { question, points } in scored {
            let missed: Vec<_> = points.iter().filter(|(_, made)| !made).collect();
            for (point, _) in &missed {
                terminal.item("missed:", point)?;
            }
            if !missed.is_empty() {
                remedy(question, terminal)?;
            }
        }
    }
    Ok(())
}

/// Where a missed point is to be learnt: page, proof, exercise.
fn remedy(question: &Question, terminal: &mut Terminal) -> Result<()> {
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

fn clock_face(seconds: i64) -> String {
    format!("{}:{:02}", seconds / 60, seconds % 60)
}
