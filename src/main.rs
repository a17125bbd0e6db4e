//! The `workbook` command.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use clap_complete::Shell;
use course::root;
use workbook::class::{Isolation, gradescope};
use workbook::commands::{
    bench, class, doctor, drill, grade, handout, hint, list, new, programs, read, reset, solution,
};
use workbook::grade::report::Format;
use workbook::terminal::Prompt;
use workbook::{say, warn, watch};

/// The command line. clap's derive macro would enable features of `syn` that the graders' dependencies do not, so that
/// crates would be compiled twice.
fn cli() -> Command {
    Command::new("workbook")
        .bin_name("cargo run --")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A self-grading workbook on Linux anonymous memory mappings")
        .long_about(
            "A self-grading workbook on Linux anonymous memory mappings.\n\n\
             Without a command, in a terminal, it grades the first exercise that is not solved, grades again \
             whenever you save, and serves the book; type `?` and Enter to see what else it does. Without a terminal, it \
             grades every exercise once.",
        )
        .args_conflicts_with_subcommands(true)
        .arg(flag("open", "Open the book in the browser"))
        .subcommands([
            Command::new("grade")
                .about("Grade all exercises, one exercise, or one stage")
                .long_about(
                    "Grade all exercises, one exercise, or one stage.\n\n\
                     Exit status: 0 if everything passed, bonus stages aside; 1 if not; 2 if an answer could not be \
                     graded; 3 if everything passed, but something was skipped.",
                )
                .arg(word(EXERCISE, "Name of the exercise, as in `list`"))
                .arg(word(
                    STAGE,
                    "Name of the stage, as in `list`. The verdicts on one stage are not recorded",
                ))
                .arg(flag("json", "Print one JSON document"))
                .arg(flag("strict", "Count a skipped case as failed")),
            Command::new("watch")
                .about("Grade whatever you save, as soon as you save it")
                .arg(word(
                    EXERCISE,
                    "The exercise to begin with; by default the first that is not solved",
                ))
                .arg(flag(
                    "poll",
                    "Poll the files, for file systems that do not report changes",
                ))
                .arg(flag("read", "Also serve the book"))
                .arg(flag("open", "Also serve the book, and open it in the browser")),
            Command::new("read")
                .about(
                    "Read the book in the browser, with your verdicts on its pages and its programs run on your kernel",
                )
                .arg(
                    option("port", "PORT", "Port of 127.0.0.1; 0 chooses a free one")
                        .value_parser(value_parser!(u16))
                        .default_value(read::PORT.to_string()),
                )
                .arg(flag("open", "Open the book in the browser")),
            Command::new("drill")
                .about(
                    "Answer interview questions, repeated at the right time, with the answers proved on this machine",
                )
                .long_about(
                    "Answer interview questions, repeated at the right time, with the answers proved on this \
                     machine.\n\n`drill --help` shows its own options. The drill is built first, which takes about half a minute the \
                     first time.",
                )
                .disable_help_flag(true)
                .arg(
                    word(ARGUMENTS, "Arguments passed on to the drill")
                        .value_parser(value_parser!(OsString))
                        .action(ArgAction::Append)
                        .num_args(0..)
                        .trailing_var_arg(true)
                        .allow_hyphen_values(true),
                ),
            Command::new("list").about("List the exercises, their stages, and what you have solved"),
            Command::new("hint")
                .about("Show the next hint: first a nudge, then the concept, then almost the code")
                .arg(word(
                    EXERCISE,
                    "Name of the exercise, as in `list`; by default the first that is not solved",
                ))
                .arg(word(
                    STAGE,
                    "Name of the stage; by default the first that failed, or else the first that is not started",
                ))
                .arg(
                    word(RUNG, "Number of the hint; by default the one after the last that was shown")
                        .value_parser(value_parser!(usize)),
                ),
            Command::new("solution")
                .about("Show how your answer differs from the reference solution")
                .arg(word(EXERCISE, "Name of the exercise, as in `list`").required(true))
                .arg(flag("spoil", "Show it even if the exercise is not solved"))
                .arg(flag("bonus", "Include the bonus stages")),
            Command::new("reset")
                .about("Restore an exercise's stub. A copy of your file is kept")
                .arg(word(EXERCISE, "Name of the exercise, as in `list`"))
                .arg(flag("all", "Restore the stubs of all exercises").conflicts_with(EXERCISE)),
            Command::new("bench")
                .about("Compare the allocator of threshold-alloc with others: counts, instructions, CPU time")
                .long_about(
                    "Compare the allocator of threshold-alloc with others: counts, instructions, CPU time.\n\n\
                     Measures your allocator if it passes all stages that are not bonus stages, otherwise the \
                     solution's.",
                )
                .arg(flag("learner", "Benchmark only your own allocator").conflicts_with("solution"))
                .arg(flag("solution", "Benchmark the solution"))
                .arg(flag("json", "Print one JSON document"))
                .arg(flag("quick", "Finish within a minute, with less work and as many rounds as fit"))
                .arg(
                    option("rounds", "ROUNDS", "Number of rounds in which the allocators take turns")
                        .value_parser(value_parser!(u16)),
                )
                .arg(
                    option("svg", "FILE", "Write a chart to FILE")
                        .value_parser(value_parser!(PathBuf)),
                ),
            Command::new("programs")
                .about("Run real programs, such as git and python3, on the allocator of threshold-alloc")
                .long_about(
                    "Run real programs on the allocator of threshold-alloc, and compare them with glibc's malloc.\n\n\
                     Builds your allocator into a shared object with malloc's C interface, and preloads it into \
                     sqlite3, git, python3, cc, perl and jq. Stages 1 to 4 are enough. Compares their output, exit \
                     status, system calls, page faults, memory and CPU time.\n\n\
                     Exit status: 0 if every program does the same on both; 1 if one does not; 2 if nothing could be \
                     run; 3 if a program was skipped.",
                )
                .arg(
                    word(PROGRAM, "Names of programs; by default all")
                        .action(ArgAction::Append)
                        .num_args(0..),
                )
                .arg(flag("solution", "Use the solution's allocator"))
                .arg(flag("json", "Print one JSON document"))
                .arg(
                    option("rounds", "ROUNDS", "Number of rounds in which the two allocators take turns; 7 by default")
                        .value_parser(value_parser!(u16).range(1..)),
                )
                .arg(
                    option("seconds", "SECONDS", "Seconds after which a program is stopped; 60 by default")
                        .value_parser(value_parser!(u16).range(1..)),
                ),
            Command::new("doctor")
                .about("Describe this machine, and what that means for grading")
                .arg(flag("json", "Print one JSON document")),
            Command::new("report")
                .about("Grade everything once, and print a report for machines")
                .arg(
                    option("format", "FORMAT", "Format of the report")
                        .value_parser(value_parser!(Format))
                        .default_value("json"),
                ),
            Command::new("handout")
                .about("Write a copy of the repository for students, without solutions, answers and exam")
                .arg(
                    word(FOLDER, "A new folder for the copy")
                        .value_parser(value_parser!(PathBuf))
                        .required(true),
                ),
            class_command(),
            Command::new("new")
                .about("Add to the repository, for contributors")
                .subcommand_required(true)
                .arg_required_else_help(true)
                .subcommand(
                    Command::new("answer")
                        .about(
                            "Make a wrong answer for the exam from your current file, and show which case catches it",
                        )
                        .arg(word(EXERCISE, "Name of the exercise, as in `list`").required(true))
                        .arg(
                            word(
                                SLUG,
                                "Name of the answer: what is wrong with it, such as `unmaps_one_page`",
                            )
                            .required(true),
                        ),
                ),
            Command::new("completions")
                .about("Print shell completions for the command `workbook`, which must be on your PATH to use them")
                .arg(
                    Arg::new(SHELL)
                        .value_parser(value_parser!(Shell))
                        .required(true),
                ),
        ])
}

fn class_command() -> Command {
    let exercise =
        || option("exercise", "EXERCISE", "Name of the exercise, as in `list`").required(true);
    let container = || {
        flag(
            "container",
            "Run as the user nobody instead of in a sandbox: this machine is a container for one submission",
        )
    };
    let path = |name, help| {
        word(name, help)
            .value_parser(value_parser!(PathBuf))
            .required(true)
    };
    let minutes = || {
        option(
            "minutes",
            "MINUTES",
            "What all cases of a submission may take together; those without a verdict then earn nothing",
        )
        .value_parser(value_parser!(u16).range(1..))
        .default_value("30")
    };
    Command::new("class")
        .about("Grade the answers of a class, each in its own sandbox, for teachers")
        .long_about(
            "Grade the answers of a class, each in its own sandbox, for teachers. TEACHING.md explains it.\n\n\
             Exit status: 0 if every submission was graded or rejected; 2 if one could not be graded, or if the \
             command failed.",
        )
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([
            Command::new("grade")
                .about("Grade every submission in a folder, and write a table of the points")
                .long_about(
                    "Grade every submission in a folder, and write a table of the points.\n\n\
                     A submission is a file, NAME.rs, or a folder, NAME, with src/lib.rs or lib.rs. Every other entry \
                     of the folder is a submission, too, unless it is hidden. A submission that is already graded \
                     is not graded again, unless the answer or the grader has changed.",
                )
                .arg(path(FOLDER, "The folder with one submission for each student"))
                .arg(exercise())
                .arg(
                    option("results", "RESULTS", "The folder for the results; by default FOLDER-results")
                        .value_parser(value_parser!(PathBuf)),
                )
                .arg(
                    option("jobs", "JOBS", "Number of submissions at a time; by default one for each processor")
                        .value_parser(value_parser!(u16).range(1..)),
                )
                .arg(minutes()),
            Command::new("one")
                .about("Grade one submission, for a program that runs many commands")
                .arg(exercise())
                .arg(container())
                .arg(path(SUBMISSION, "A file, or a folder with src/lib.rs or lib.rs"))
                .arg(path(RESULT, "The file for the result, in JSON"))
                .arg(
                    option("gradescope", "FILE", "Also write the result in Gradescope's format")
                        .value_parser(value_parser!(PathBuf)),
                )
                .arg(
                    option("visibility", "WHEN", "When students see the verdicts on Gradescope")
                        .value_parser(gradescope::VISIBILITIES)
                        .default_value("visible"),
                )
                .arg(minutes()),
            Command::new("questions")
                .about("Make questions for a student from the system calls of their own answer")
                .arg(path(RESULT, "A result file"))
                .arg(
                    option("count", "COUNT", "Number of questions")
                        .value_parser(value_parser!(u16).range(1..))
                        .default_value("3"),
                ),
            Command::new("prepare")
                .about("Build what grading an exercise needs; the other commands do so when it is missing")
                .arg(exercise())
                .arg(container()),
        ])
}

fn run_class(root: &Path, arguments: &ArgMatches) -> Result<ExitCode> {
    let Some((command, arguments)) = arguments.subcommand() else {
        bail!("say what to do, as in `cargo run -- class grade`");
    };
    if command == "questions" {
        let count = *required::<u16>(arguments, "count");
        class::questions(required::<PathBuf>(arguments, RESULT), count.into())?;
        return Ok(ExitCode::SUCCESS);
    }
    let exercise: &String = required(arguments, "exercise");
    let time = |arguments| {
        let minutes: &u16 = required(arguments, "minutes");
        Duration::from_secs(u64::from(*minutes) * 60)
    };
    if command == "grade" {
        let results = arguments.get_one("results").map(PathBuf::as_path);
        let jobs = arguments.get_one::<u16>("jobs").copied();
        let folder: &PathBuf = required(arguments, FOLDER);
        return class::grade(
            root,
            exercise,
            folder,
            results,
            jobs.map(usize::from),
            time(arguments),
        );
    }
    let isolation = match arguments.get_flag("container") {
        true => Isolation::Container,
        false => Isolation::Sandbox,
    };
    if command == "prepare" {
        class::prepare(root, exercise, isolation)?;
        return Ok(ExitCode::SUCCESS);
    }
    let submission: &PathBuf = required(arguments, SUBMISSION);
    let result: &PathBuf = required(arguments, RESULT);
    let visibility: &String = required(arguments, "visibility");
    let gradescope = arguments.get_one("gradescope").map(PathBuf::as_path);
    let gradescope = gradescope.map(|file| (file, visibility.as_str()));
    class::one(
        root,
        exercise,
        isolation,
        submission,
        result,
        gradescope,
        time(arguments),
    )
}

// The names of positional arguments, as `--help` shows them.
const EXERCISE: &str = "EXERCISE";
const STAGE: &str = "STAGE";
const RUNG: &str = "RUNG";
const SLUG: &str = "SLUG";
const FOLDER: &str = "FOLDER";
const SUBMISSION: &str = "SUBMISSION";
const RESULT: &str = "RESULT";
const SHELL: &str = "SHELL";
const ARGUMENTS: &str = "ARGUMENTS";
const PROGRAM: &str = "PROGRAM";

fn word(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).help(help)
}

fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .action(ArgAction::SetTrue)
        .help(help)
}

fn option(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).help(help)
}

fn main() -> ExitCode {
    match run(&cli().get_matches()) {
        Ok(status) => status,
        Err(error) => {
            warn!("workbook: {}", workbook::grade::sentence(&error));
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &ArgMatches) -> Result<ExitCode> {
    // Completions are the same for every clone, and work outside of one.
    if let Some(("completions", arguments)) = arguments.subcommand() {
        completions(*required::<Shell>(arguments, SHELL));
        return Ok(ExitCode::SUCCESS);
    }
    let root = root::find()?;
    match arguments.subcommand() {
        Some((command, arguments)) => run_command(&root, command, arguments),
        None => run_default(&root, arguments.get_flag("open")),
    }
}

/// The value of an argument that is required, or has a default.
fn required<'a, T: Clone + Send + Sync + 'static>(arguments: &'a ArgMatches, name: &str) -> &'a T {
    arguments.get_one(name).expect("clap requires it")
}

fn text<'a>(arguments: &'a ArgMatches, name: &str) -> Option<&'a str> {
    arguments.get_one::<String>(name).map(String::as_str)
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

fn run_command(root: &Path, command: &str, arguments: &ArgMatches) -> Result<ExitCode> {
    let flag = |name| arguments.get_flag(name);
    match command {
        "grade" => {
            let report = flag("json").then_some(Format::Json);
            let strict = flag("strict");
            let options = grade::Options { report, strict };
            let exercise = text(arguments, EXERCISE);
            return grade::run(root, exercise, text(arguments, STAGE), &options);
        }
        "watch" => {
            let options = watch::Options {
                exercise: arguments.get_one(EXERCISE).cloned(),
                poll: flag("poll"),
                read: flag("read") || flag("open"),
                open: flag("open"),
            };
            return watch::run(root, &options);
        }
        "read" => return read::run(root, *required(arguments, "port"), flag("open")),
        "drill" => {
            let passed_on = arguments.get_many(ARGUMENTS).into_iter().flatten();
            return drill::run(root, &passed_on.cloned().collect::<Vec<OsString>>());
        }
        "list" => list::run(root)?,
        "hint" => {
            let (exercise, stage) = (text(arguments, EXERCISE), text(arguments, STAGE));
            let rung = arguments.get_one(RUNG).copied();
            hint::run(root, exercise, stage, rung, Prompt::Shell)?;
        }
        "solution" => {
            let options = solution::Options {
                spoil: flag("spoil"),
                bonus: flag("bonus"),
            };
            let exercise: &String = required(arguments, EXERCISE);
            solution::run(root, exercise, options, Prompt::Shell)?;
        }
        "reset" => match text(arguments, EXERCISE) {
            Some(exercise) => reset::run(root, exercise)?,
            None if flag("all") => reset::run_all(root)?,
            None => bail!("name an exercise, or restore all stubs with `cargo run -- reset --all`"),
        },
        "bench" => {
            let wanted = match (flag("learner"), flag("solution")) {
                (true, _) => bench::Wanted::Learner,
                (_, true) => bench::Wanted::Solution,
                _ => bench::Wanted::Either,
            };
            let options = bench::Options {
                json: flag("json"),
                quick: flag("quick"),
                rounds: arguments.get_one("rounds").copied(),
                svg: arguments.get_one("svg").cloned(),
            };
            return bench::run(root, wanted, &options);
        }
        "programs" => {
            let programs = arguments.get_many(PROGRAM).into_iter().flatten();
            let options = programs::Options {
                programs: programs.cloned().collect(),
                solution: flag("solution"),
                json: flag("json"),
                rounds: arguments.get_one("rounds").copied(),
                seconds: arguments.get_one("seconds").copied(),
            };
            return programs::run(root, &options);
        }
        "doctor" => doctor::run(root, flag("json"))?,
        "report" => {
            let options = grade::Options {
                report: Some(*required(arguments, "format")),
                ..grade::Options::default()
            };
            return grade::run(root, None, None, &options);
        }
        "handout" => handout::run(root, required::<PathBuf>(arguments, FOLDER))?,
        "class" => return run_class(root, arguments),
        "new" => {
            // `answer` is the only thing to add.
            let Some((_, arguments)) = arguments.subcommand() else {
                bail!("say what to add, as in `cargo run -- new answer`");
            };
            let (exercise, slug) = (
                required::<String>(arguments, EXERCISE),
                required::<String>(arguments, SLUG),
            );
            new::answer(root, exercise, slug)?;
        }
        other => bail!("the command {other} is not implemented"),
    }
    Ok(ExitCode::SUCCESS)
}

fn completions(shell: Shell) {
    let mut command = cli();
    // Into memory, because clap_complete panics if its output cannot be written.
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command, "workbook", &mut text);
    say!("{}", String::from_utf8_lossy(&text).trim_end());
}
