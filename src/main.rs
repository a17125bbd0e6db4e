//! The `workbook` command.

use std::process::ExitCode;

use anstream::eprintln;
use anyhow::Result;
use clap::{Parser, Subcommand};
use workbook::{grade, hint, list, root};

/// A self-grading workbook on Linux anonymous memory mappings.
///
/// Without a command it grades every exercise.
#[derive(Parser)]
#[command(name = "workbook", bin_name = "cargo run --", version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Grade an exercise, or all.
    ///
    /// Exit status: 0 all passed; 1 not all; 2 could not grade; 3 passed, but something was skipped.
    Grade {
        /// The exercise, as in `list`.
        exercise: Option<String>,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
        /// Count a skipped case as failed.
        #[arg(long)]
        strict: bool,
    },
    /// Show a hint for a stage: a nudge first, then the concept, then nearly the code.
    Hint {
        /// The exercise, as in `list`.
        exercise: String,
        /// The stage.
        stage: Option<String>,
        /// Which rung of its ladder.
        #[arg(default_value_t = 1)]
        rung: usize,
    },
    /// List the exercises and their stages.
    List,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("workbook: {error:#}.");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: Arguments) -> Result<ExitCode> {
    let root = root::find()?;
    match arguments.command {
        None => return grade::run(&root, None, grade::Options::default()),
        Some(Command::Grade {
            exercise,
            json,
            strict,
        }) => {
            let options = grade::Options { json, strict };
            return grade::run(&root, exercise.as_deref(), options);
        }
        Some(Command::Hint {
            exercise,
            stage,
            rung,
        }) => hint::run(&root, &exercise, stage.as_deref(), rung)?,
        Some(Command::List) => list::run(&root)?,
    }
    Ok(ExitCode::SUCCESS)
}
