//! The `workbook` command.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use course::root;
use workbook::commands::{bench, doctor, drill, grade, hint, list, new, read, reset, solution};
use workbook::grade::report::Format;
use workbook::terminal::Prompt;
use workbook::{say, warn, watch};

/// A self-grading workbook on Linux anonymous memory mappings.
///
/// Without a command, in a terminal, it grades the first exercise that is not solved, and grades again whenever you
/// save; type `?` and Enter to see what else it does. Without a terminal it grades every exercise once.
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
    /// Open the book in the browser.
    #[arg(long)]
    open: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Grade all exercises, one exercise, or one stage.
    ///
    /// Exit status: 0 if everything passed, bonus stages aside; 1 if not; 2 if an answer could not be graded; 3 if
    /// everything passed, but something was skipped.
    Grade {
        /// Name of the exercise, as in `list`.
        exercise: Option<String>,
        /// Name of the stage, as in `list`. The verdicts on one stage are not recorded.
        stage: Option<String>,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
        /// Count a skipped case as failed.
        #[arg(long)]
        strict: bool,
    },
    /// Grade whatever you save, as soon as you save it.
    Watch {
        /// The exercise to begin with; by default the first that is not solved.
        exercise: Option<String>,
        /// Poll the files, for file systems that do not report changes.
        #[arg(long)]
        poll: bool,
        /// Also serve the book.
        #[arg(long)]
        read: bool,
        /// Also serve the book, and open it in the browser.
        #[arg(long)]
        open: bool,
    },
    /// Read the book in the browser, with your verdicts on its pages and its programs run on your kernel.
    Read {
        /// Port of 127.0.0.1; 0 chooses a free one.
        #[arg(long, default_value_t = read::PORT)]
        port: u16,
        /// Open the book in the browser.
        #[arg(long)]
        open: bool,
    },
    /// Answer interview questions, repeated at the right time, with the answers proved on this machine.
    ///
    /// `drill --help` shows its own options. The first time, the drill is built.
    #[command(disable_help_flag = true)]
    Drill {
        /// Arguments passed on to the drill.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// List the exercises, their stages, and what you have solved.
    List,
    /// Show the next hint: first a nudge, then the concept, then almost the code.
    Hint {
        /// Name of the exercise, as in `list`; by default the first that is not solved.
        exercise: Option<String>,
        /// Name of the stage; by default the first that failed, or else the first that is not started.
        stage: Option<String>,
        /// Number of the hint; by default the one after the last that was shown.
        rung: Option<usize>,
    },
    /// Show how your answer differs from the reference solution.
    Solution {
        /// Name of the exercise, as in `list`.
        exercise: String,
        /// Show it even if the exercise is not solved.
        #[arg(long)]
        spoil: bool,
        /// Include the bonus stages.
        #[arg(long)]
        bonus: bool,
    },
    /// Restore an exercise's stub. A copy of your file is kept.
    Reset {
        /// Name of the exercise, as in `list`.
        exercise: Option<String>,
        /// Restore the stubs of all exercises.
        #[arg(long, conflicts_with = "exercise")]
        all: bool,
    },
    /// Compare the allocator of threshold-alloc with others: counts, instructions, CPU time.
    ///
    /// Measures your allocator if it passes all stages that are not bonus stages, otherwise the solution's.
    Bench {
        /// Benchmark only your own allocator.
        #[arg(long, conflicts_with = "solution")]
        learner: bool,
        /// Benchmark the solution.
        #[arg(long)]
        solution: bool,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
        /// Number of rounds in which the allocators take turns.
        #[arg(long)]
        rounds: Option<u16>,
        /// Write a chart to FILE.
        #[arg(long, value_name = "FILE")]
        svg: Option<PathBuf>,
    },
    /// Describe this machine, and what that means for grading.
    Doctor {
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Grade everything once, and print a report for machines.
    Report {
        /// Format of the report.
        #[arg(long, default_value = "json")]
        format: Format,
    },
    /// Add to the repository, for contributors.
    New {
        #[command(subcommand)]
        what: New,
    },
    /// Print the completions for a shell, if `workbook` is on your path.
    Completions { shell: Shell },
}

#[derive(Subcommand)]
enum New {
    /// Make a wrong answer for the exam from your current file, and show which case catches it.
    Answer {
        /// Name of the exercise, as in `list`.
        exercise: String,
        /// Name of the answer: what is wrong with it, such as `unmaps_one_page`.
        slug: String,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(status) => status,
        Err(error) => {
            warn!("workbook: {}", workbook::grade::sentence(&error));
            ExitCode::from(2)
        }
    }
}

fn run(arguments: Arguments) -> Result<ExitCode> {
    // Completions are the same for every clone, and work outside of one.
    if let Some(Command::Completions { shell }) = arguments.command {
        completions(shell);
        return Ok(ExitCode::SUCCESS);
    }
    let root = root::find()?;
    match arguments.command {
        Some(command) => run_command(&root, command),
        None => run_default(&root, arguments.open),
    }
}

/// Watches the exercises and serves the book in a terminal; otherwise grades every exercise once.
fn run_default(root: &Path, open: bool) -> Result<ExitCode> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return grade::run(root, None, None, &grade::Options::default());
    }
    let options = watch::Options {
        read: true,
        open,
        ..watch::Options::default()
    };
    watch::run(root, &options)
}

fn run_command(root: &Path, command: Command) -> Result<ExitCode> {
    match command {
        Command::Grade {
            exercise,
            stage,
            json,
            strict,
        } => {
            let report = json.then_some(Format::Json);
            let options = grade::Options { report, strict };
            return grade::run(root, exercise.as_deref(), stage.as_deref(), &options);
        }
        Command::Watch {
            exercise,
            poll,
            read,
            open,
        } => {
            let options = watch::Options {
                exercise,
                poll,
                read: read || open,
                open,
            };
            return watch::run(root, &options);
        }
        Command::Read { port, open } => return read::run(root, port, open),
        Command::Drill { arguments } => return drill::run(root, &arguments),
        Command::List => list::run(root)?,
        Command::Hint {
            exercise,
            stage,
            rung,
        } => {
            let exercise = exercise.as_deref();
            hint::run(root, exercise, stage.as_deref(), rung, Prompt::Shell)?;
        }
        Command::Solution {
            exercise,
            spoil,
            bonus,
        } => {
            let options = solution::Options { spoil, bonus };
            solution::run(root, &exercise, options, Prompt::Shell)?;
        }
        Command::Reset { exercise, all } => match exercise {
            Some(exercise) => reset::run(root, &exercise)?,
            None if all => reset::run_all(root)?,
            None => bail!("name an exercise, or restore all stubs with `cargo run -- reset --all`"),
        },
        Command::Bench {
            learner,
            solution,
            json,
            rounds,
            svg,
        } => {
            let wanted = match (learner, solution) {
                (true, _) => bench::Wanted::Learner,
                (_, true) => bench::Wanted::Solution,
                _ => bench::Wanted::Either,
            };
            let options = bench::Options { json, rounds, svg };
            return bench::run(root, wanted, &options);
        }
        Command::Doctor { json } => doctor::run(root, json)?,
        Command::Report { format } => {
            let options = grade::Options {
                report: Some(format),
                ..grade::Options::default()
            };
            return grade::run(root, None, None, &options);
        }
        Command::New {
            what: New::Answer { exercise, slug },
        } => new::answer(root, &exercise, &slug)?,
        Command::Completions { .. } => unreachable!("handled above"),
    }
    Ok(ExitCode::SUCCESS)
}

fn completions(shell: Shell) {
    let mut command = Arguments::command();
    // Into memory, because clap_complete panics if its output cannot be written.
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command, "workbook", &mut text);
    say!("{}", String::from_utf8_lossy(&text).trim_end());
}
