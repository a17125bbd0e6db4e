//! The drill's command, which `workbook drill` starts.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use course::log::Log;
use drill::bank::Bank;
use drill::bank::question::Question;
use drill::clock::Clock;
use drill::export::{anki, pages};
use drill::progress::plan::{self as pick, Plan, Scope};
use drill::progress::state::State;
use drill::progress::stats::Stats;
use drill::proof::machine;
use drill::proof::{Proof, Prover};
use drill::session::mock;
use drill::session::{Desk, local};
use drill::terminal::{Look, Terminal, counted};
use jiff::civil::Date;
use serde_json::json;

/// Asks the book's questions, proves the answers on this machine, and knows when to ask again.
///
/// Without a command it asks what is due and a few new ones. Every grade is in .workbook/log.jsonl before the next
/// question comes (WORKBOOK_HOME moves the folder). Some questions wait for an exercise; an exercise that fails asks
/// for its questions.
#[derive(Parser)]
#[command(
    name = "drill",
    bin_name = "cargo run -- drill",
    args_conflicts_with_subcommands = false
)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: Options,
}

#[derive(Args)]
struct Options {
    /// Only this topic; may be given several times.
    #[arg(long, global = true)]
    topic: Vec<String>,
    /// Only this level, from 1 to 4.
    #[arg(long, global = true, value_parser = clap::value_parser!(u8).range(1..=4))]
    level: Option<u8>,
    /// How many new questions a day.
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = number::<0, 1000>)]
    new: Option<usize>,
    /// Spreads what is new over the days that are left until then, and asks what waits for an exercise, too.
    #[arg(long, value_name = "DATE", value_parser = day)]
    interview: Option<Date>,
    /// No bold, no faint: words alone. Implied by TERM=dumb, and where the output is no terminal.
    #[arg(long, global = true)]
    plain: bool,
    /// Print one JSON document. What would ask questions then only tells which.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Ask the weakest and most asked first, and leave the schedule as it is.
    Cram {
        /// How many.
        #[arg(short, long, default_value_t = 20, value_parser = number::<1, 1000>)]
        n: usize,
    },
    /// Hold an interview: spoken answers, a rubric, follow-ups, a scorecard. It moves no schedule.
    Mock {
        /// How many questions.
        #[arg(short, long, default_value_t = 5, value_parser = number::<1, 1000>)]
        n: usize,
        /// How long.
        #[arg(long, default_value_t = 20, value_parser = number::<1, 600>)]
        minutes: usize,
    },
    /// Tell how it stands.
    Stats,
    /// Run the proofs, and compare.
    ///
    /// Exit status: 0 all proved; 1 something differs here; 3 something was skipped.
    Prove {
        /// The question's id.
        #[arg(conflicts_with = "all")]
        id: Option<String>,
        /// All that can be proved.
        #[arg(long)]
        all: bool,
    },
    /// Write the questions for another program.
    Export {
        /// A file that Anki imports (File, Import). An edited deck updates its cards and keeps their progress.
        #[arg(long, value_name = "FILE.tsv")]
        anki: PathBuf,
    },
    /// Say everything that is wrong with the questions.
    Lint,
    /// Write the book's drill pages from the questions.
    Pages,
}

fn number<const LEAST: usize, const MOST: usize>(typed: &str) -> Result<usize, String> {
    let number = typed.parse().ok();
    let number = number.filter(|number| (LEAST..=MOST).contains(number));
    number.ok_or_else(|| format!("a number from {LEAST} to {MOST} is wanted"))
}

fn day(typed: &str) -> Result<Date, String> {
    let day = typed.parse();
    day.map_err(|_| "a day is wanted, such as 2027-01-15".to_owned())
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(status) => status,
        // Whoever reads has seen enough: `drill stats | head`.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("drill: {error:#}.");
            ExitCode::from(2)
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let cause = error.downcast_ref::<io::Error>();
    cause.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn run(arguments: &Arguments) -> Result<ExitCode> {
    let root = course::root::find()?;
    let mut bank = Bank::read(&root)?;
    let clock = Clock::from_environment()?;
    let log = Log::of(&root);
    let options = &arguments.options;
    let scope = Scope {
        topics: options.topic.clone(),
        level: options.level,
        new: options.new,
        interview: options.interview,
    };
    scope.check(&clock)?;
    if arguments.command.is_some() && (options.new.is_some() || options.interview.is_some()) {
        bail!("--new and --interview are for `drill` alone, and not for its commands");
    }
    let asks = !matches!(arguments.command, Some(Command::Lint | Command::Pages));
    if asks && !bank.questions.iter().any(|question| scope.has(question)) {
        bail!("there is no question of that topic and level: leave out --topic or --level");
    }
    if let Some(Command::Stats | Command::Export { .. }) = arguments.command {
        bank.questions.retain(|question| scope.has(question));
    }
    let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
    let look = Look::from_environment(options.plain);
    let mut terminal = Terminal::new(&mut input, &mut output, look);
    if !matches!(arguments.command, Some(Command::Lint)) && !bank.problems.is_empty() {
        let count = counted(bank.problems.len(), "problem");
        eprintln!(
            "drill: {count} about the questions, which are left out; `drill lint` says more."
        );
    }
    match &arguments.command {
        None if options.json => print(&plan(&bank, &State::read(&log, &clock)?, &clock, &scope))?,
        None => Desk::new(&bank, log, &clock).drill(&scope, &mut terminal)?,
        Some(Command::Cram { n }) if options.json => {
            let questions = pick::cram(&bank, &State::read(&log, &clock)?, &clock, &scope);
            print(&json!({ "questions": ids(&questions[..questions.len().min(*n)]) }))?;
        }
        Some(Command::Cram { n }) => {
            Desk::new(&bank, log, &clock).cram(&scope, *n, &mut terminal)?
        }
        Some(Command::Mock { n, minutes }) if options.json => {
            let questions = mock::choose(&bank, &State::read(&log, &clock)?, &scope, *n);
            print(&json!({ "questions": ids(&questions), "minutes": minutes }))?;
        }
        Some(Command::Mock { n, minutes }) => {
            mock::run(
                &Desk::new(&bank, log, &clock),
                &scope,
                *n,
                *minutes as i64,
                &mut terminal,
            )?;
        }
        Some(Command::Stats) => {
            let stats = Stats::count(&bank, &State::read(&log, &clock)?, &clock);
            match options.json {
                true => print(&stats)?,
                false => stats.show(&mut terminal)?,
            }
        }
        Some(Command::Prove {
            id: None,
            all: false,
        }) => {
            bail!("what is to be proved? `drill prove ID`, or `drill prove --all`");
        }
        Some(Command::Prove { id, .. }) => {
            return prove(&bank, id.as_deref(), &scope, options.json, &mut terminal);
        }
        Some(Command::Export { anki: path }) => {
            let text = anki::export(&bank);
            fs::write(path, text)
                .with_context(|| format!("{} cannot be written", path.display()))?;
            let count = bank.questions.len();
            match options.json {
                true => print(&json!({ "questions": count, "file": path }))?,
                false => terminal.line(&format!(
                    "{} in {}.",
                    counted(count, "question"),
                    path.display()
                ))?,
            }
        }
        Some(Command::Lint) => {
            let (questions, problems) = (bank.questions.len(), bank.problems.len());
            if options.json {
                print(&json!({ "questions": questions, "problems": bank.problems }))?;
            } else {
                for problem in &bank.problems {
                    terminal.line(&problem.to_string())?;
                }
                terminal.line(&format!(
                    "{} in order, {}.",
                    counted(questions, "question"),
                    counted(problems, "problem")
                ))?;
            }
            return Ok(ExitCode::from(u8::from(problems > 0)));
        }
        Some(Command::Pages) => {
            if !bank.problems.is_empty() {
                bail!("the questions are not in order: `drill lint` says why");
            }
            let count = pages::write(&bank, &root)?;
            match options.json {
                true => print(&json!({ "pages": count, "folder": pages::FOLDER }))?,
                false => terminal.line(&format!("{count} pages in {}.", pages::FOLDER))?,
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print(document: &impl serde::Serialize) -> Result<()> {
    writeln!(io::stdout(), "{}", serde_json::to_string_pretty(document)?)?;
    Ok(())
}

fn ids<'a>(questions: &[&'a Question]) -> Vec<&'a str> {
    questions.iter().map(|question| &*question.id).collect()
}

fn plan(bank: &Bank, state: &State, clock: &Clock, scope: &Scope) -> serde_json::Value {
    let plan = Plan::make(bank, state, clock, scope);
    json!({
        "now": local(clock.now().as_second(), clock),
        "due": ids(&plan.due),
        "new": ids(&plan.new),
        "soon": ids(&plan.soon),
        "locked": plan.locked,
        "forward": plan.forward,
        "minutes": plan.minutes,
        "next_due": plan.next_due.map(|time| clock.local(time)),
        "interview": plan.interview,
    })
}

/// The table of proofs.
fn prove(
    bank: &Bank,
    id: Option<&str>,
    scope: &Scope,
    as_json: bool,
    terminal: &mut Terminal,
) -> Result<ExitCode> {
    let questions: Vec<_> = match id {
        Some(id) => vec![bank.find(id)?],
        None => {
            let questions = bank.questions.iter();
            questions
                .filter(|question| question.has_proof() && scope.has(question))
                .collect()
        }
    };
    let mut prover = Prover::new(&bank.book.root);
    prover.prepare(questions.iter().copied())?;
    let mut rows = Vec::new();
    let mut counts = [0; 3];
    for question in questions {
        let proof = prover.prove(question)?;
        let mut proving = Vec::new();
        let (place, why, lines) = match &proof {
            Proof::Proved { shown, lines } => {
                proving = shown.clone();
                (0, String::new(), lines.clone())
            }
            Proof::Differs { why, lines } => (1, why.clone(), lines.clone()),
            Proof::Skipped(why) => (2, why.clone(), Vec::new()),
        };
        counts[place] += 1;
        if as_json {
            rows.push(json!({
                "question": question.id,
                "topic": question.topic,
                "program": question.prove,
                "result": proof.word(),
                "why": why,
                "shown": proving,
                "lines": lines,
            }));
            continue;
        }
        let program = question.prove.as_deref().unwrap_or("its own check");
        terminal.line(
            format!(
                "{:<13} {:<34} {program:<22} {why}",
                proof.word(),
                question.id
            )
            .trim_end(),
        )?;
        if id.is_some() || place == 1 {
            for line in lines {
                let mark = if proving.contains(&line) { '*' } else { '|' };
                terminal.line(&format!("              {mark} {line}"))?;
            }
        }
    }
    let machine = machine::words();
    let [proved, differ, skipped] = counts;
    if as_json {
        print(&json!({
            "machine": machine,
            "proved": proved,
            "differ": differ,
            "skipped": skipped,
            "proofs": rows,
        }))?;
    } else {
        terminal.line(&format!(
            "{proved} proved, {differ} differ here, {skipped} skipped ({machine})."
        ))?;
    }
    Ok(ExitCode::from(match (proved, differ, skipped) {
        (_, 1.., _) => 1,
        (_, _, 1..) => 3,
        _ => 0,
    }))
}
