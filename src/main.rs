//! The `workbook` command.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;

use anstream::{eprintln, print};
use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use workbook::grade::Format;
use workbook::words::Prompt;
use workbook::{bench, doctor, drill, grade, hint, list, read, reset, root, solution, watch};

/// A self-grading workbook on Linux anonymous memory mappings.
///
/// Without a command, in a terminal, it grades the first exercise that is not solved, and again whenever you save; `?`
/// shows what you can type meanwhile. Without a terminal it grades every exercise once.
#[derive(Parser)]
#[command(
    name = "workbook",
    bin_name = "cargo run --",
    version,
    args_conflicts_with_subcommands = true
)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Show the book in the browser.
    #[arg(long)]
    open: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Grade an exercise, or all.
    ///
    /// Exit status: 0 all passed, bonus stages aside; 1 not all; 2 could not grade; 3 passed, but something was skipped.
    Grade {
        /// The exercise, as in `list`.
        exercise: Option<String>,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
        /// Count a skipped case as failed.
        #[arg(long)]
        strict: bool,
        /// Where to write the first failure.
        #[arg(long, hide = true)]
        failure: Option<PathBuf>,
        /// Of cargo only what is wrong.
        #[arg(long, hide = true)]
        quiet: bool,
    },
    /// Grade whatever you save, as you save it.
    Watch {
        /// Look at the files again and again: for file systems that do not tell of changes.
        #[arg(long)]
        poll: bool,
        /// Serve the book meanwhile.
        #[arg(long)]
        read: bool,
        /// Serve it, and show it in the browser.
        #[arg(long)]
        open: bool,
    },
    /// Read the book in the browser: verdicts appear on its pages, its programs run on your kernel.
    Read {
        /// Of 127.0.0.1; 0 for any that is free.
        #[arg(long, default_value_t = read::PORT)]
        port: u16,
        /// Show it in the browser.
        #[arg(long)]
        open: bool,
    },
    /// Be asked the book's questions at the right time, and have the answers proved on this machine.
    ///
    /// `drill --help` says more; the first time, it is built.
    #[command(disable_help_flag = true)]
    Drill {
        /// As the drill knows them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// List the exercises, their stages, and what you have solved.
    List,
    /// Show the next hint: a nudge first, then the concept, then nearly the code.
    Hint {
        /// The exercise, as in `list`; without it the first that you have not solved.
        exercise: Option<String>,
        /// The stage; without it the first that failed, or else the first that you have not begun.
        stage: Option<String>,
        /// Which rung of its ladder; without it the one after the last shown.
        rung: Option<usize>,
    },
    /// Show how your answer differs from the reference solution.
    Solution {
        /// The exercise, as in `list`.
        exercise: String,
        /// Also before it is solved.
        #[arg(long)]
        spoil: bool,
    },
    /// Put an exercise's stub back; your file is kept aside.
    Reset {
        /// The exercise, as in `list`.
        exercise: String,
    },
    /// Run the allocator of threshold-alloc against others: counts, instructions, CPU time.
    ///
    /// Yours, if its stages pass, bonus aside; otherwise the solution.
    Bench {
        /// Yours, or nothing.
        #[arg(long, conflicts_with = "solution")]
        learner: bool,
        /// The solution.
        #[arg(long)]
        solution: bool,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
        /// Rounds in which the allocators take turns.
        #[arg(long)]
        rounds: Option<u16>,
        /// Write a chart there.
        #[arg(long, value_name = "FILE")]
        svg: Option<PathBuf>,
    },
    /// Tell what this machine is, and what that means for grading.
    Doctor {
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Grade everything once, and print a report for a machine.
    Report {
        /// Its form.
        #[arg(long, default_value = "json")]
        format: Format,
    },
    /// Print a shell's completions, for `workbook` on your path.
    Completions {
        /// The shell.
        shell: Shell,
    },
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
        None if io::stdin().is_terminal() && io::stdout().is_terminal() => {
            let options = watch::Options {
                read: true,
                open: arguments.open,
                ..watch::Options::default()
            };
            return watch::run(&root, options);
        }
        None => return grade::run(&root, None, &grade::Options::default()),
        Some(Command::Grade {
            exercise,
            json,
            strict,
            failure,
            quiet,
        }) => {
            let options = grade::Options {
                report: json.then_some(Format::Json),
                strict,
                failure,
                quiet,
            };
            return grade::run(&root, exercise.as_deref(), &options);
        }
        Some(Command::Watch { poll, read, open }) => {
            let read = read || open;
            return watch::run(&root, watch::Options { poll, read, open });
        }
        Some(Command::Read { port, open }) => return read::run(&root, port, open),
        Some(Command::Drill { arguments }) => return drill::run(&root, &arguments),
        Some(Command::List) => list::run(&root)?,
        Some(Command::Hint {
            exercise,
            stage,
            rung,
        }) => {
            let exercise = exercise.as_deref();
            hint::run(&root, exercise, stage.as_deref(), rung, Prompt::Shell)?;
        }
        Some(Command::Solution { exercise, spoil }) => {
            solution::run(&root, &exercise, spoil, Prompt::Shell)?;
        }
        Some(Command::Reset { exercise }) => reset::run(&root, &exercise)?,
        Some(Command::Bench {
            learner,
            solution,
            json,
            rounds,
            svg,
        }) => {
            let wanted = match (learner, solution) {
                (true, _) => bench::Wanted::Learner,
                (_, true) => bench::Wanted::Solution,
                _ => bench::Wanted::Either,
            };
            let options = bench::Options { json, rounds, svg };
            return bench::run(&root, wanted, &options);
        }
        Some(Command::Doctor { json }) => doctor::run(&root, json)?,
        Some(Command::Report { format }) => {
            let options = grade::Options {
                report: Some(format),
                ..grade::Options::default()
            };
            return grade::run(&root, None, &options);
        }
        Some(Command::Completions { shell }) => {
            let mut command = Arguments::command();
            // By itself it panics where nobody reads to the end.
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut command, "workbook", &mut text);
            print!("{}", String::from_utf8_lossy(&text));
        }
    }
    Ok(ExitCode::SUCCESS)
}
