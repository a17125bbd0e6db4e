//! The command that `workbook drill` starts.

mod commands;

use std::io::{self, BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::{ArgGroup, Args, Parser, Subcommand};
use commands::Export;
use course::log::Log;
use course::root;
use drill::bank::Bank;
use drill::clock::Clock;
use drill::input::{INTERRUPTED, Input, was_interrupted};
use drill::progress::plan::Scope;
use drill::session::Drill;
use drill::terminal::{Look, Terminal, counted};
use jiff::civil::Date;

/// Ask interview questions about the book, and prove the answers on this machine.
///
/// Without a command, ask what is due and a few new questions. Each grade is written to .workbook/log.jsonl before
/// the next question is asked (WORKBOOK_HOME moves the folder). Some questions are asked only after you have solved
/// an exercise. If an exercise fails, its questions come first. Ctrl-C stops like Ctrl-D, with a summary, and the exit
/// status is 130.
#[derive(Parser)]
#[command(name = "drill", bin_name = "cargo run -- drill")]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: Options,
}

#[derive(Args)]
struct Options {
    /// Only questions on this topic; may be repeated.
    #[arg(long, global = true)]
    topic: Vec<String>,
    /// Only questions of this level, from 1 to 4.
    #[arg(long, global = true, value_parser = clap::value_parser!(u8).range(1..=4))]
    level: Option<u8>,
    /// Number of new questions a day.
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = number::<0, 1000>)]
    new: Option<usize>,
    /// Day of your interview. Spreads the new questions over the days until then, and includes those that need an
    /// exercise.
    #[arg(long, value_name = "DATE", value_parser = date)]
    interview: Option<Date>,
    /// Print no bold or faint text. Implied by TERM=dumb and if the output is not a terminal.
    #[arg(long, global = true)]
    plain: bool,
    /// Print one JSON document. Commands that ask questions only list them.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Ask the weakest and most asked questions first. The schedule does not change.
    Cram {
        /// Number of questions.
        #[arg(short, long, default_value_t = 20, allow_negative_numbers = true, value_parser = number::<1, 1000>)]
        n: usize,
    },
    /// Hold a mock interview: spoken answers, a rubric, follow-ups, a scorecard. The schedule does not change.
    Mock {
        /// Number of questions.
        #[arg(short, long, default_value_t = 5, allow_negative_numbers = true, value_parser = number::<1, 1000>)]
        n: usize,
        /// Time for the interview, in minutes.
        #[arg(long, default_value_t = 20, allow_negative_numbers = true, value_parser = number::<1, 600>)]
        minutes: usize,
    },
    /// Show your progress.
    Stats,
    /// Run the programs that prove the answers, and compare their output.
    ///
    /// Exit status: 0 if all are proved, 1 if something differs on this machine, 3 if something was skipped.
    #[command(group = ArgGroup::new("questions").args(["id", "all"]).required(true))]
    Prove {
        /// Id of a question.
        id: Option<String>,
        /// Prove every question that has a proof.
        #[arg(long)]
        all: bool,
    },
    /// Write the questions for Anki. Importing an edited deck keeps the progress of its cards.
    #[command(group = ArgGroup::new("format").args(["apkg", "anki"]).required(true))]
    Export {
        /// A package, with a style for the phone. Open it in Anki, AnkiDroid or AnkiMobile.
        ///
        /// If you have imported the deck as text before, tick "Merge note types" in the import: your cards keep
        /// their progress.
        #[arg(long, value_name = "FILE.apkg")]
        apkg: Option<PathBuf>,
        /// A text file with tab-separated columns, for Anki's File, Import.
        #[arg(long, value_name = "FILE.tsv")]
        anki: Option<PathBuf>,
    },
    /// Report every problem in the files of the questions.
    Lint,
    /// Write the book's drill pages from the questions.
    Pages,
}

fn number<const LEAST: usize, const MOST: usize>(typed: &str) -> Result<usize, String> {
    let number = typed.parse().ok();
    let number = number.filter(|number| (LEAST..=MOST).contains(number));
    number.ok_or_else(|| format!("expected a number from {LEAST} to {MOST}"))
}

fn date(typed: &str) -> Result<Date, String> {
    let date = typed.parse();
    date.map_err(|_| "expected a date such as 2027-01-15".to_owned())
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(status) => status,
        // The reader of the pipe has closed it, as in `drill stats | head`.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // `eprintln!` would panic if the terminal was closed.
            let _ = writeln!(io::stderr(), "drill: {error:#}.");
            ExitCode::from(2)
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let cause = error.downcast_ref::<io::Error>();
    cause.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn run(Arguments { command, options }: Arguments) -> Result<ExitCode> {
    let clock = Clock::from_environment()?;
    let scope = options.scope();
    scope.check(&clock)?;
    ensure!(
        command.is_none() || (scope.new.is_none() && scope.interview.is_none()),
        "--new and --interview cannot be used with a command"
    );
    let root = root::find()?;
    let mut bank = Bank::read(&root)?;
    let json = options.json;
    // Ctrl-C must not leave a program or its files behind.
    let is_interruptible = match command {
        None | Some(Command::Cram { .. } | Command::Mock { .. }) => !json,
        Some(Command::Prove { .. }) => true,
        _ => false,
    };
    let mut input: Box<dyn BufRead> = match is_interruptible {
        true => Box::new(BufReader::new(Input::until_interrupt()?)),
        false => Box::new(io::empty()),
    };
    let mut output = io::stdout().lock();
    let mut terminal = options.terminal(&mut input, &mut output);
    match command {
        Some(Command::Lint) => return commands::lint(&bank, json, &mut terminal),
        Some(Command::Pages) => {
            commands::pages(&bank, &root, json, &mut terminal)?;
            return Ok(ExitCode::SUCCESS);
        }
        _ => {}
    }

    if !bank.problems.is_empty() {
        let problems = counted(bank.problems.len(), "problem");
        eprintln!(
            "drill: questions with problems are left out; `drill lint` reports the {problems}."
        );
    }
    ensure!(
        bank.questions
            .iter()
            .any(|question| scope.contains(question)),
        "there is no question of that topic and level; leave out --topic or --level"
    );
    if let Some(Command::Stats | Command::Export { .. }) = command {
        bank.questions.retain(|question| scope.contains(question));
    }
    let drill = Drill {
        bank: &bank,
        log: Log::of(&root),
        clock: &clock,
    };
    match command {
        None if json => commands::list_plan(&drill, &scope)?,
        None => drill.ask(&scope, &mut terminal)?,
        Some(Command::Cram { n }) if json => commands::list_cram(&drill, &scope, n)?,
        Some(Command::Cram { n }) => drill.cram(&scope, n, &mut terminal)?,
        Some(Command::Mock { n, minutes }) if json => {
            commands::list_mock(&drill, &scope, n, minutes)?;
        }
        Some(Command::Mock { n, minutes }) => {
            drill.mock(&scope, n, minutes as i64, &mut terminal)?;
        }
        Some(Command::Stats) => commands::stats(&drill, json, &mut terminal)?,
        Some(Command::Prove { id, .. }) => {
            return commands::prove(&bank, id.as_deref(), &scope, json, &mut terminal);
        }
        Some(Command::Export { apkg, anki }) => {
            let file = apkg.as_deref().map(Export::Package);
            let file = file.or(anki.as_deref().map(Export::Text));
            let file = file.context("clap requires one of them")?;
            commands::export(&bank, file, json, &mut terminal)?;
        }
        Some(Command::Lint | Command::Pages) => unreachable!("they returned above"),
    }
    Ok(match was_interrupted() {
        true => ExitCode::from(INTERRUPTED),
        false => ExitCode::SUCCESS,
    })
}

impl Options {
    fn scope(&self) -> Scope {
        Scope {
            topics: self.topic.clone(),
            level: self.level,
            new: self.new,
            interview: self.interview,
        }
    }

    fn terminal<'a>(&self, input: &'a mut dyn BufRead, output: &'a mut dyn Write) -> Terminal<'a> {
        Terminal::new(input, output, Look::from_environment(self.plain))
    }
}
