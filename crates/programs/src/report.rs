//! The report: text for people, JSON for machines.

use std::fmt::Write;
use std::io::{IsTerminal, stdout};

use anstyle::{AnsiColor, Style};
use anyhow::Result;
use serde::Serialize;

use crate::compare::{Comparison, Numbers, Pair, Verdict};
use crate::object::{Object, Subject};
use crate::trace::OTHER;

const FAINT: Style = Style::new().dimmed();

#[derive(Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    object: &'a Object,
    programs: &'a [Comparison],
}

/// # Errors
/// Returns an error if the report cannot be represented as JSON.
pub fn json(object: &Object, programs: &[Comparison]) -> Result<String> {
    Ok(serde_json::to_string_pretty(&Document {
        object,
        programs,
    })?)
}

/// Says whose malloc it is, and what the object does without.
pub fn heading(object: &Object) -> String {
    let whose = match object.subject {
        Subject::Learner => "Your ThresholdAlloc",
        Subject::Solution => "The solution's ThresholdAlloc",
    };
    let mut text =
        format!("{whose}, preloaded as a shared object (LD_PRELOAD), in place of glibc's malloc.");
    if !object.lacks.is_empty() {
        let lacks = object.lacks.join(", ");
        let _ = write!(
            text,
            " It does without the stages that you have not begun: {lacks}."
        );
    }
    wrapped("", &text)
}

pub fn text(comparison: &Comparison) -> String {
    let (sign, color, sentence) = match &comparison.verdict {
        Verdict::Same(_) => ("✓", AnsiColor::Green, "same output, same exit status"),
        Verdict::Failed(sentence) => ("✗", AnsiColor::Red, sentence.as_str()),
        Verdict::Skipped(why) => ("–", AnsiColor::Yellow, why.as_str()),
    };
    let style = color.on_default();
    let title = format!(
        "{style}{sign}{style:#} {} {}",
        comparison.program, comparison.task
    );
    match &comparison.verdict {
        Verdict::Same(numbers) => format!("{title}: {sentence}\n{}", table(numbers)),
        Verdict::Failed(_) => format!("{title}\n{}", wrapped("  ", sentence)),
        Verdict::Skipped(_) => format!(
            "{title}\n{}",
            wrapped("  ", &format!("skipped: {sentence}"))
        ),
    }
}

fn table(numbers: &Numbers) -> String {
    let mut text = format!(
        "  {FAINT}{:<22}{:>16}{:>12}{FAINT:#}",
        "", "ThresholdAlloc", "glibc"
    );
    let mut row = |what: &str, pair: Pair<String>| {
        let _ = write!(text, "\n  {what:<22}{:>16}{:>12}", pair.ours, pair.glibc);
    };
    match &numbers.traced {
        Ok(traced) => {
            let sum = |of: fn(&Pair<u64>) -> u64| traced.calls.values().map(of).sum();
            let all = Pair {
                ours: sum(|pair| pair.ours),
                glibc: sum(|pair| pair.glibc),
            };
            row("system calls", all.map(count));
            for (call, pair) in traced.calls.iter().filter(|(call, _)| **call != OTHER) {
                row(&format!("  {call}"), pair.map(count));
            }
            row(
                "page faults",
                numbers.faults.map(|faults| count(faults as u64)),
            );
            row("peak resident", traced.peak.map(mebibytes));
            row("anonymous at the end", traced.last.map(mebibytes));
        }
        Err(_) => row(
            "page faults",
            numbers.faults.map(|faults| count(faults as u64)),
        ),
    }
    if let Some(cpu) = numbers.cpu {
        let spread = cpu.spread.map_or(String::new(), |spread| {
            format!(" ± {:.0} %", spread * 100.0)
        });
        let ratio = format!("{:.2}{spread}", cpu.median);
        row(
            "CPU time",
            Pair {
                ours: ratio,
                glibc: "1".to_owned(),
            },
        );
    }
    let used = match &numbers.traced {
        Ok(traced) => {
            let (with, all) = (traced.processes, traced.processes);
            let without: Vec<&str> = traced.without.iter().map(String::as_str).collect();
            let blocks = count(traced.blocks.all);
            match (without.is_empty(), all) {
                (true, 1) => format!("It allocated {blocks} blocks from the object."),
                (true, _) => format!(
                    "The object was loaded into all of its {with} processes; one allocated {blocks} blocks from it."
                ),
                (false, _) => format!(
                    "One process allocated {blocks} blocks from the object. It was not loaded into {}.",
                    without.join(", ")
                ),
            }
        }
        Err(why) => {
            format!("skipped: system calls, memory, and whether the object is used: {why}.")
        }
    };
    let _ = write!(text, "\n{}", wrapped("  ", &used));
    text
}

/// Explains the rows once, at the end.
pub fn explanation(compared: &[Comparison]) -> String {
    if !compared
        .iter()
        .any(|one| matches!(one.verdict, Verdict::Same(_)))
    {
        return String::new();
    }
    let text = "System calls are those of all processes, counted in a traced run. Memory is that of the process with the \
         highest peak; its peak includes the pages of files. CPU time is the median of the ratios to glibc in alternated \
         rounds, with half the interquartile range.";
    format!("{FAINT}{}{FAINT:#}", wrapped("", text))
}

impl<T: Copy> Pair<T> {
    fn map<U>(self, f: impl Fn(T) -> U) -> Pair<U> {
        Pair {
            ours: f(self.ours),
            glibc: f(self.glibc),
        }
    }
}

/// Writes a number with commas.
fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// Indents and wraps a sentence on a terminal. Elsewhere it stays on one line, so that it can be searched for.
fn wrapped(margin: &str, text: &str) -> String {
    if !stdout().is_terminal() {
        return format!("{margin}{text}");
    }
    let options = textwrap::Options::with_termwidth()
        .initial_indent(margin)
        .subsequent_indent(margin)
        .break_words(false);
    textwrap::fill(text, options)
}
