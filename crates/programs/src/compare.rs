//! Runs a program on both allocators, and compares.

use std::collections::{BTreeMap, BTreeSet};

use std::os::unix::process::ExitStatusExt;

use anyhow::{Result, ensure};
use course::process::{End, Limits};
use serde::{Serialize, Serializer};

use crate::list::Program;
use crate::object::Object;
use crate::progress::Progress;
use crate::run::{Malloc, Outcome, Ready, difference, short};
use crate::trace::{self, Blocks, Trace, signal_name};
use course::statistics::{self, Ratio};

pub struct Plan {
    pub rounds: usize,
    pub limits: Limits,
}

/// The result for one program.
#[derive(Debug, Serialize)]
pub struct Comparison {
    pub program: &'static str,
    pub task: &'static str,
    #[serde(flatten)]
    pub verdict: Verdict,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Same(Box<Numbers>),
    /// What differs, in a sentence.
    Failed(String),
    /// Why nothing was compared.
    Skipped(String),
}

/// The numbers of a program that does the same on both.
#[derive(Debug, Serialize)]
pub struct Numbers {
    /// The ratio of the CPU times, to glibc's.
    pub cpu: Option<Ratio>,
    /// Medians of minor page faults.
    pub faults: Pair<f64>,
    /// `Err` with the reason if nothing was traced.
    #[serde(serialize_with = "traced_or_skipped")]
    pub traced: Result<Traced, String>,
}

fn traced_or_skipped<S: Serializer>(
    traced: &Result<Traced, String>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match traced {
        Ok(traced) => traced.serialize(serializer),
        Err(why) => BTreeMap::from([("skipped", why)]).serialize(serializer),
    }
}

/// The value of the object, and that of glibc.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Pair<T> {
    pub ours: T,
    pub glibc: T,
}

#[derive(Debug, Serialize)]
pub struct Traced {
    /// System calls of all processes, by name.
    pub calls: BTreeMap<&'static str, Pair<u64>>,
    /// Memory in bytes, of the process with the highest peak.
    pub peak: Pair<u64>,
    pub last: Pair<u64>,
    pub processes: usize,
    /// The names of the processes that the object was not loaded into.
    pub without: BTreeSet<String>,
    /// What one process has allocated from the object: the most of any process.
    pub blocks: Blocks,
}

/// # Errors
/// Returns an error if the program's inputs cannot be written, or if it cannot be started.
pub fn compare(
    program: &'static Program,
    object: &Object,
    plan: &Plan,
    progress: &Progress,
) -> Result<Comparison> {
    Ok(Comparison {
        program: program.name,
        task: program.task,
        verdict: verdict(program, object, plan, progress)?,
    })
}

fn verdict(
    program: &'static Program,
    object: &Object,
    plan: &Plan,
    progress: &Progress,
) -> Result<Verdict> {
    let name = program.name;
    let Some(executable) = program.find() else {
        let package = program.package;
        return Ok(Verdict::Skipped(format!(
            "{name} is not installed (apt install {package})."
        )));
    };
    let show = |what: &str| progress.show(&format!("{name} {}: {what}", program.task));
    let ready = Ready::new(program, executable)?;
    show("on glibc's malloc");
    let expected = ready.run(Malloc::Glibc, plan.limits)?;
    if !expected.ran.success() {
        return Ok(Verdict::Skipped(format!(
            "{name} fails with glibc's malloc: it {}. {}",
            expected.ran.describe(),
            last_error(&expected)
        )));
    }
    let ours = Malloc::Object(object);
    show("on the object");
    let first = ready.run(ours, plan.limits)?;
    if let Some(sentence) = wrong(&ready, &first, &expected) {
        show("looking for the process that failed");
        let traced = trace::trace(ready.command(ours)?, object, plan.limits);
        let cause = traced.map_or(String::new(), |traced| cause(name, &traced));
        return Ok(Verdict::Failed(sentence + &cause));
    }
    show("counting system calls");
    let traced = match trace_both(&ready, object, plan) {
        Ok(Ok(traced)) => Ok(traced),
        Ok(Err(sentence)) => return Ok(Verdict::Failed(sentence)),
        Err(error) => Err(format!("{error:#}")),
    };
    if let Ok(traced) = &traced
        && traced.blocks.all == 0
    {
        return Ok(Verdict::Skipped(format!(
            "{name} does not use the object: {}. A statically linked or set-user-ID program ignores LD_PRELOAD.",
            match traced.without.is_empty() {
                true => "it is loaded, and malloc is not called",
                false => "it is not in the memory of the process",
            }
        )));
    }
    if let Ok(traced) = &traced
        && traced.blocks.misaligned > 0
    {
        return Ok(Verdict::Failed(format!(
            "The output of {name} is the same, but {} Most instructions of this processor do not need the alignment; a \
             program that uses others, such as vectors of 16 bytes, crashes.",
            misaligned(traced.blocks)
        )));
    }
    let mut times = Pair {
        ours: Vec::new(),
        glibc: Vec::new(),
    };
    let mut faults = times.clone();
    for round in 0..plan.rounds {
        show(&format!("round {} of {}", round + 1, plan.rounds));
        // They take turns in being the first.
        let order = match round % 2 {
            0 => [ours, Malloc::Glibc],
            _ => [Malloc::Glibc, ours],
        };
        for malloc in order {
            let outcome = ready.run(malloc, plan.limits)?;
            let different = wrong(&ready, &outcome, &expected);
            let (times, faults) = match malloc {
                Malloc::Object(_) => {
                    if let Some(sentence) = different {
                        let run = round + 2;
                        return Ok(Verdict::Failed(format!(
                            "{sentence} This was run {run}; earlier ones were right."
                        )));
                    }
                    (&mut times.ours, &mut faults.ours)
                }
                Malloc::Glibc if different.is_some() => {
                    return Ok(Verdict::Skipped(format!(
                        "{name} does not do the same in every run with glibc's malloc, so there is nothing to compare."
                    )));
                }
                Malloc::Glibc => (&mut times.glibc, &mut faults.glibc),
            };
            times.push(outcome.cpu.as_secs_f64());
            faults.push(outcome.faults as f64);
        }
    }
    Ok(Verdict::Same(Box::new(Numbers {
        cpu: Ratio::of(&times.ours, &times.glibc),
        faults: Pair {
            ours: statistics::median(&faults.ours).unwrap_or(0.0),
            glibc: statistics::median(&faults.glibc).unwrap_or(0.0),
        },
        traced,
    })))
}

/// Returns a sentence if the run differs from what is expected.
fn wrong(ready: &Ready, outcome: &Outcome, expected: &Outcome) -> Option<String> {
    let name = ready.program.name;
    let with_glibc = format!("With glibc's malloc, it {}.", expected.ran.describe());
    match outcome.ran.end {
        End::TimeLimit => {
            return Some(format!(
                "{name} {}, and was stopped. With glibc's malloc, it took {:.1} s of CPU time.",
                outcome.ran.describe(),
                expected.cpu.as_secs_f64()
            ));
        }
        end if end != expected.ran.end => {
            return Some(format!(
                "{name} {}. {with_glibc} {}",
                outcome.ran.describe(),
                last_error(outcome)
            ));
        }
        _ => {}
    }
    for (stream, text, expected) in [
        ("output", &outcome.ran.stdout, &expected.ran.stdout),
        ("standard error", &outcome.ran.stderr, &expected.ran.stderr),
    ] {
        if text != expected {
            return Some(format!(
                "The {stream} of {name} differs from that with glibc's malloc: {}.",
                difference(text, expected)
            ));
        }
    }
    let files = outcome.files.iter().zip(&expected.files);
    let (file, _) = ready
        .program
        .files
        .iter()
        .zip(files)
        .find(|(_, (one, other))| one != other)?;
    Some(format!(
        "The file `{file}` that {name} wrote differs from that with glibc's malloc."
    ))
}

/// Returns a sentence with the last line on standard error.
fn last_error(outcome: &Outcome) -> String {
    match outcome.ran.stderr.lines().last() {
        Some(line) => format!("Its last message was `{}`.", short(line)),
        None => "It printed no error message.".to_owned(),
    }
}

/// Returns sentences about a process that a signal killed, and about misaligned blocks, if there are any.
fn cause(program: &str, traced: &Trace) -> String {
    let mut sentences = String::new();
    let mut killed = traced
        .processes
        .iter()
        .filter(|process| process.name != program);
    if let Some((process, signal)) =
        killed.find_map(|process| Some((&process.name, process.signal.as_ref()?)))
    {
        sentences += &format!(" Its process {process} was killed by {signal}.");
    }
    let blocks = traced.processes.iter().filter_map(|process| process.blocks);
    if let Some(blocks) = blocks.max_by_key(|blocks| blocks.misaligned)
        && blocks.misaligned > 0
    {
        sentences += &format!(" Besides, {}", misaligned(blocks));
    }
    sentences
}

fn misaligned(blocks: Blocks) -> String {
    format!(
        "{} of the {} blocks that malloc returned are not aligned to 16 bytes, or to the alignment that was asked for.",
        blocks.misaligned, blocks.all
    )
}

/// Returns a sentence if the program fails on the object, as it may in one run and not in another.
fn trace_both(ready: &Ready, object: &Object, plan: &Plan) -> Result<Result<Traced, String>> {
    let name = ready.program.name;
    let ours = trace::trace(ready.command(Malloc::Object(object))?, object, plan.limits)?;
    let glibc = trace::trace(ready.command(Malloc::Glibc)?, object, plan.limits)?;
    let succeeds = |trace: &Trace| trace.end.is_some_and(|end| end.success());
    ensure!(
        succeeds(&glibc),
        "{name} fails with glibc's malloc while it is traced"
    );
    match ours.end {
        None => {
            return Ok(Err(format!(
                "{name} did not end in a traced run, and was stopped."
            )));
        }
        Some(end) if !end.success() => {
            let how = match end.signal() {
                Some(signal) => format!("was killed by {}", signal_name(signal)),
                None => format!("exited with status {}", end.code().unwrap_or(0)),
            };
            return Ok(Err(format!(
                "{name} {how} in a traced run; the run before was right.{}",
                cause(name, &ours)
            )));
        }
        Some(_) => {}
    }
    let mut calls = BTreeMap::new();
    for &call in ours.calls.keys().chain(glibc.calls.keys()) {
        let count = |trace: &Trace| trace.calls.get(call).copied().unwrap_or(0);
        let pair = Pair {
            ours: count(&ours),
            glibc: count(&glibc),
        };
        calls.insert(call, pair);
    }
    let largest = |trace: &Trace| {
        let largest = trace.processes.iter().max_by_key(|process| process.peak);
        largest.map_or((0, 0), |process| (process.peak, process.last))
    };
    let (ours_largest, glibc_largest) = (largest(&ours), largest(&glibc));
    let without = ours
        .processes
        .iter()
        .filter(|process| process.blocks.is_none());
    Ok(Ok(Traced {
        calls,
        peak: Pair {
            ours: ours_largest.0,
            glibc: glibc_largest.0,
        },
        last: Pair {
            ours: ours_largest.1,
            glibc: glibc_largest.1,
        },
        processes: ours.processes.len(),
        without: without.map(|process| process.name.clone()).collect(),
        blocks: ours
            .processes
            .iter()
            .filter_map(|process| process.blocks)
            .max()
            .unwrap_or_default(),
    }))
}
