//! Runs real programs on `ThresholdAlloc`, and compares them with glibc's malloc.
//!
//! `cargo run -- programs` in the clone starts it.

mod compare;
mod interrupt;
mod list;
mod object;
mod progress;
mod report;
mod run;
mod trace;

use std::process::ExitCode;
use std::time::Duration;

use anstream::{eprintln, println};
use anyhow::{Result, bail};
use clap::Parser;
use course::process::Limits;

use compare::{Comparison, Verdict};
use list::{PROGRAMS, Program};
use progress::Progress;

/// Runs real programs on ThresholdAlloc, and compares them with glibc's malloc.
#[derive(Parser)]
struct Arguments {
    /// Names of programs; by default all.
    programs: Vec<String>,
    /// Use the solution's allocator.
    #[arg(long)]
    solution: bool,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
    /// Number of rounds in which the two allocators take turns.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Seconds after which a program is stopped.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u16).range(1..))]
    seconds: u16,
}

fn main() -> ExitCode {
    run(&Arguments::parse()).unwrap_or_else(|error| {
        eprintln!("workbook: {error:#}.");
        // 130 is a shell's status for SIGINT.
        ExitCode::from(if interrupt::is_pending() { 130 } else { 2 })
    })
}

fn run(arguments: &Arguments) -> Result<ExitCode> {
    let programs = chosen(&arguments.programs)?;
    let progress = Progress::new();
    interrupt::handle()?;
    let object = object::build(arguments.solution, &progress)?;
    interrupt::check()?;
    let Some(object) = object else {
        return Ok(ExitCode::from(2)); // cargo has printed why.
    };
    let plan = compare::Plan {
        rounds: arguments.rounds.into(),
        limits: Limits::time(Duration::from_secs(arguments.seconds.into())),
    };
    if !arguments.json {
        println!("{}", report::heading(&object));
    }
    let mut compared = Vec::new();
    for program in programs {
        let comparison = compare::compare(program, &object, &plan, &progress)?;
        interrupt::check()?;
        progress.show("");
        if !arguments.json {
            println!("\n{}", report::text(&comparison));
        }
        compared.push(comparison);
    }
    if arguments.json {
        println!("{}", report::json(&object, &compared)?);
    } else {
        println!("\n{}", report::explanation(&compared));
    }
    Ok(status(&compared))
}

/// Returns the programs with these names, or all.
fn chosen(names: &[String]) -> Result<Vec<&'static Program>> {
    for name in names {
        if !PROGRAMS.iter().any(|program| program.name == name) {
            let mut all: Vec<_> = PROGRAMS.iter().map(|program| program.name).collect();
            all.dedup();
            bail!(
                "there is no program {name} here; choose from {}",
                all.join(", ")
            );
        }
    }
    let chosen = PROGRAMS
        .iter()
        .filter(|program| names.is_empty() || names.iter().any(|name| name == program.name));
    Ok(chosen.collect())
}

/// As for `grade`: 1 if a program fails, 3 if one was skipped.
fn status(compared: &[Comparison]) -> ExitCode {
    let any = |wanted: fn(&Verdict) -> bool| compared.iter().any(|one| wanted(&one.verdict));
    if any(|verdict| matches!(verdict, Verdict::Failed(_))) {
        ExitCode::from(1)
    } else if any(|verdict| matches!(verdict, Verdict::Skipped(_))) {
        ExitCode::from(3)
    } else {
        ExitCode::SUCCESS
    }
}
