//! Sessions, typed into a pipe.

mod learner;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use learner::{Learner, finish};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// Removes what differs between machines.
fn portable(text: &str) -> String {
    text.replace(&drill::proof::machine::describe(), "…")
}

/// Every type of question, every letter of the menu, wrong and certain answers, an undo, and the end of the input.
#[test]
fn a_whole_session() {
    let learner = Learner::new();
    let ran = learner.run(
        &["--new", "20", "--topic", "anonymous", "--topic", "private"],
        &[
            // zeros: recall
            "",
            "2",
            "p",
            "w",
            "l",
            "3",
            // which: choice, wrong and certain, counted as wrong
            "a",
            "3",
            "c",
            "u",
            // again: zeros was undone
            "",
            "1",
            "2",
            // which, right
            "b, c",
            "3",
            "",
            // prints: output, with a typo in no name
            "Bytes 0",
            "",
            "",
            // faults: estimate, wrong, certain
            "512",
            "3",
            "w",
            "p",
            "",
            // leak: bug
            "line 5",
            "2",
            "4",
            // steps: order
            "abcd",
            "1",
            "5",
            "",
            // call: write
            "return 6;",
            ".",
            "2",
            "p",
            "",
            // broken, cannot, fails: recall with proofs of all kinds
            "",
            "2",
            "p",
            "1",
            "",
            "2",
            "p",
            "2",
            "",
            "2",
            "p",
            "3",
        ],
    );
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    assert_eq!(ran.stderr, "");
    insta::assert_snapshot!(portable(&ran.stdout));
}

#[test]
fn the_end_of_the_input_ends_a_session_at_any_prompt() {
    let typed = ["", "2", "3", "b c", "3", "3"];
    for count in 0..typed.len() {
        let learner = Learner::new();
        let ran = learner.run(&[], &typed[..count]);
        assert_eq!(ran.status, Some(0), "{count}: {}", ran.stderr);
        let done = format!("\nDone {}:", count / 3);
        assert!(ran.stdout.contains(&done), "{count}: {}", ran.stdout);
        assert_eq!(learner.grades().len(), count / 3);
    }
}

#[test]
fn a_session_can_be_stopped_at_any_prompt() {
    for typed in [[":q", "", ""], ["", ":q", ""], ["", "2", "q"]] {
        let learner = Learner::new();
        let ran = learner.run(&[], &typed);
        assert_eq!(ran.status, Some(0));
        assert!(ran.stdout.contains("Done 0:"), "{}", ran.stdout);
    }
}

#[test]
fn a_pipe_gets_no_escape_sequences() {
    let ran = Learner::new().run(&[], &[""]);
    assert!(!ran.stdout.contains('\x1b'), "{}", ran.stdout);
}

#[test]
fn the_learners_grade_is_recorded_immediately() {
    let learner = Learner::new();
    learner.run(&[], &["", "2", "3", "a", "2", "c", "3", "nothing"]);
    let records = learner.records();
    assert_eq!(
        learner.grades(),
        [("zeros".to_owned(), 3), ("which".to_owned(), 3)]
    );
    assert_eq!(records[1]["right"], true, "the learner counted it as right");
    assert_eq!(records[1]["sure"], 2);
}

#[test]
fn a_certain_but_wrong_answer_is_due_after_ten_minutes() {
    let learner = Learner::new();
    let ran = learner.run(&[], &["", "2", "3", "a", "3", "3"]);
    assert!(
        ran.stdout
            .contains("You were certain, so this question comes back today."),
        "{}",
        ran.stdout
    );
    assert!(ran.stdout.contains("3 good <10m"), "{}", ran.stdout);
    let later = learner.run_at("2026-11-25T10:10:00Z", &["--json"], &[]);
    let plan: Value = serde_json::from_str(&later.stdout).expect("one document");
    assert_eq!(plan["due"], serde_json::json!(["which"]));
}

#[test]
fn undo_survives_the_session() {
    let learner = Learner::new();
    let ran = learner.run(&[], &["", "2", "3", ":u"]);
    assert!(ran.stdout.contains("Undone: zeros."), "{}", ran.stdout);
    assert!(ran.stdout.contains("Done 0: 0 right"), "{}", ran.stdout);
    let ran = learner.run(&["--json"], &[]);
    let plan: Value = serde_json::from_str(&ran.stdout).expect("one document");
    assert_eq!(plan["new"][0], "zeros");
    let ran = Learner::new().run(&[], &[":u"]);
    assert!(
        ran.stdout
            .contains("There is no grade in this session to undo."),
        "{}",
        ran.stdout
    );
}

#[test]
fn a_written_answer_is_compiled_and_run() {
    let learner = Learner::new();
    let write = |lines: &[&str]| {
        let typed = [lines, &[".", "2", ":q"]].concat();
        learner
            .run(&["--topic", "private", "--level", "3"], &typed)
            .stdout
    };
    assert!(write(&["int seven = 7;", "return seven;"]).contains("RIGHT."));
    assert!(write(&["return 8;"]).contains("Your code: it is not seven."));
    let output = write(&["int seven = 7", "return seven;"]);
    assert!(
        output.contains("Your code: it does not compile."),
        "{output}"
    );
    assert!(
        output.contains("answer.c:2:1: error:"),
        "lines are counted in the answer: {output}"
    );
    assert!(write(&["for (;;) __builtin_trap();"]).contains("the program was killed by SIG"));
}

#[test]
fn a_mistyped_answer_is_asked_for_again() {
    for (level, typed, expected) in [
        (
            ["anonymous", "1"],
            ["", "2", "3", "e", "b b"].as_slice(),
            "Type letters from a to d, each at most once.",
        ),
        (
            ["private", "2"],
            &["some", "1 or 2"],
            "Type one number, such as 12 or 4 KiB.",
        ),
        (
            ["private", "2"],
            &["256", "2", "", "five", "8"],
            "Type the number of a line, from 1 to 7.",
        ),
        (
            ["private", "2"],
            &["256", "2", "", "5", "2", "", "a b c"],
            "Type every letter from a to d once.",
        ),
    ] {
        let ran = Learner::new().run(&["--topic", level[0], "--level", level[1]], typed);
        assert!(ran.stdout.contains(expected), "{typed:?}: {}", ran.stdout);
        assert!(!ran.stdout.contains("WRONG"), "{typed:?}: {}", ran.stdout);
    }
}

#[test]
fn a_repeated_proof_counts_once() {
    let ran = Learner::new().run(&[], &["", "2", "p", "p", "3"]);
    assert!(
        ran.stdout.contains("Done 1: 1 right, 1 proved,"),
        "{}",
        ran.stdout
    );
}

#[test]
fn an_answer_may_be_skipped() {
    let learner = Learner::new();
    let ran = learner.run(&["--topic", "private", "--level", "2"], &["", "", ":q"]);
    assert!(
        ran.stdout.contains("NO ANSWER: 256 faults."),
        "{}",
        ran.stdout
    );
    assert!(!ran.stdout.contains("How sure?"), "{}", ran.stdout);
    let records = learner.records();
    assert_eq!(
        (&records[0]["sure"], &records[0]["grade"]),
        (&1.into(), &1.into())
    );
    let ran = learner.run(&["--topic", "private", "--level", "3"], &[".", ":q"]);
    assert!(ran.stdout.contains("NO ANSWER."), "{}", ran.stdout);
}

#[test]
fn a_partly_right_order_is_reported() {
    let typed = ["256", "2", "", "5", "2", "", "d b a c", "2"];
    let ran = Learner::new().run(&["--topic", "private", "--level", "2"], &typed);
    let expected = "Your first 2 steps are right.\nWRONG: d b c a.\n  d) map\n  b) touch\n";
    assert!(ran.stdout.contains(expected), "{}", ran.stdout);
}

#[test]
fn stats_and_export_respect_the_scope() {
    let learner = Learner::new();
    learner.run(&[], &["", "2", "3", "a", "3", "1", ":q"]);
    let ran = learner.run(&["stats", "--json", "--topic", "private"], &[]);
    let stats: Value = serde_json::from_str(&ran.stdout).expect("one document");
    assert_eq!(
        (&stats["seen"], &stats["questions"]),
        (&0.into(), &8.into())
    );
    assert_eq!(stats["sure"][2]["answers"], 0);
    let ran = learner.run(
        &[
            "export",
            "--anki",
            "/dev/null",
            "--topic",
            "fork",
            "--level",
            "2",
        ],
        &[],
    );
    assert_eq!(ran.stdout, "1 question in /dev/null.\n");
}

#[test]
fn more_questions_are_offered_when_nothing_is_due() {
    let ran = Learner::new().run(&["--new", "0"], &[]);
    assert!(
        ran.stdout
            .starts_with("Nothing is due. `--new 8` adds new questions today.\n"),
        "{}",
        ran.stdout
    );
}

#[test]
fn every_command_prints_json() {
    let learner = Learner::new();
    let document = |arguments: &[&str]| {
        let ran = learner.run(&[arguments, &["--json"]].concat(), &[]);
        serde_json::from_str::<Value>(&ran.stdout)
            .unwrap_or_else(|error| panic!("{arguments:?}: {error}: {}", ran.stdout))
    };
    assert_eq!(
        document(&["cram", "-n", "1"])["questions"],
        serde_json::json!(["zeros"])
    );
    assert_eq!(
        document(&["mock", "-n", "1"])["questions"],
        serde_json::json!(["talk"])
    );
    assert_eq!(document(&["lint"])["problems"], serde_json::json!([]));
    assert_eq!(
        document(&["export", "--anki", "/dev/null"])["questions"],
        14
    );
    assert!(learner.records().is_empty(), "no question was asked");
}

#[test]
fn cram_leaves_the_schedule_unchanged() {
    let learner = Learner::new();
    let before = learner.run(&["--json"], &[]).stdout;
    let ran = learner.run(&["cram", "-n", "2"], &["", "2", "2", "256", "2", "3"]);
    assert!(ran.stdout.contains("Done 2: 2 right"), "{}", ran.stdout);
    assert_eq!(learner.grades().len(), 2);
    let after = learner.run(&["--json"], &[]).stdout;
    let new = |plan: &str| serde_json::from_str::<Value>(plan).expect("a document")["new"].clone();
    assert_eq!(new(&before), new(&after));
}

#[test]
fn a_mock_interview() {
    let learner = Learner::new();
    let typed = [
        // talk: the second point, the follow-up
        "", "3", "2", "", "maybe", "yes", // speech: nothing
        "", "", "", "", // zeros fills the interview
        "", "1 2",
    ];
    let ran = learner.run(&["mock", "-n", "3", "--minutes", "20"], &typed);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    insta::assert_snapshot!(ran.stdout);
    let records = learner.records();
    assert_eq!(records[0]["made"], serde_json::json!([2, 3]));
}

#[test]
fn a_mock_begins_with_the_question_that_was_asked_least() {
    let learner = Learner::new();
    let ran = learner.run(&["mock", "-n", "1"], &["", "", "", ""]);
    assert!(
        ran.stdout.contains("Talk me through fork."),
        "{}",
        ran.stdout
    );
    let ran = learner.run(&["mock", "-n", "1"], &[]);
    assert!(ran.stdout.contains("What does mmap do?"), "{}", ran.stdout);
}

#[test]
fn a_mock_can_end_at_any_prompt() {
    let typed = ["", "1", "", "y", "", "", "", ""];
    for count in 0..typed.len() {
        let ran = Learner::new().run(&["mock", "-n", "2"], &typed[..count]);
        assert_eq!(ran.status, Some(0), "{count}: {}", ran.stderr);
        let scored = format!("{} of 2 questions", count / 4);
        assert!(ran.stdout.contains(&scored), "{count}: {}", ran.stdout);
    }
}

#[test]
fn an_interview_date_shows_the_predicted_recall() {
    let learner = Learner::new();
    learner.run(&[], &["", "2", "3"]);
    let ran = learner.run(&["--interview", "2026-12-04"], &[]);
    insta::assert_snapshot!(ran.stdout);
    let ran = learner.run(&["--interview", "2026-11-26"], &[]);
    assert!(
        ran.stdout.contains("`drill cram` asks the weakest"),
        "{}",
        ran.stdout
    );
    let ran = learner.run(&["--interview", "2026-11-24"], &[]);
    assert_eq!(ran.status, Some(2));
    assert_eq!(
        ran.stderr,
        "drill: the interview on 2026-11-24 is in the past: today is 2026-11-25.\n"
    );
}

#[test]
fn stats_show_the_progress() {
    let learner = Learner::new();
    learner.run(&[], &["", "2", "3", "a", "3", "1", ":q"]);
    learner.run(&["mock", "-n", "1"], &["", "1", "", "y"]);
    let ran = learner.run(&["stats"], &[]);
    insta::assert_snapshot!(ran.stdout);
    let ran = learner.run(&["stats", "--json"], &[]);
    let stats: Value = serde_json::from_str(&ran.stdout).expect("one document");
    assert_eq!(stats["seen"], 2);
    assert_eq!(stats["certain_but_wrong"], serde_json::json!(["which"]));
}

#[test]
fn a_torn_line_is_reported() {
    let learner = Learner::new();
    learner.run(&[], &["", "2", "3"]);
    let text = std::fs::read_to_string(learner.log()).expect("a log");
    std::fs::write(learner.log(), format!("{text}{{\"what\":\"gra")).expect("a torn line");
    let ran = learner.run(&[], &["b c", "2", "3"]);
    assert!(ran.stdout.contains("incomplete line 2."), "{}", ran.stdout);
    assert!(ran.stdout.contains("Done 1:"), "{}", ran.stdout);
    let ran = learner.run(&["stats", "--json"], &[]);
    let stats: Value = serde_json::from_str(&ran.stdout).expect("one document");
    assert_eq!(stats["seen"], 2, "the record after the torn line counts");
}

/// Runs a shell script in which `"$@"` is the drill with these arguments.
fn in_shell(learner: &Learner, script: &str, arguments: &[&str]) -> Command {
    let drill = learner.command(arguments);
    let mut shell = Command::new("sh");
    shell.args(["-c", script, "sh"]);
    shell.arg(drill.get_program()).args(drill.get_args());
    for (name, value) in drill.get_envs() {
        shell.env(name, value.unwrap_or_default());
    }
    shell
}

/// Simulates a full disk by a limit on the size of files.
fn on_a_full_disk(learner: &Learner, arguments: &[&str]) -> Command {
    in_shell(learner, "ulimit -f 1; trap '' XFSZ; exec \"$@\"", arguments)
}

#[test]
fn a_full_disk_does_not_prevent_the_scorecard() {
    let learner = Learner::new();
    let line = "{\"what\":\"later\"}\n";
    std::fs::write(learner.log(), line.repeat(60)).expect("a log");
    let typed = ["", "1", "", "y"].repeat(20);
    let ran = finish(&mut on_a_full_disk(&learner, &["mock"]), &typed);
    assert_eq!(ran.status, Some(2), "{}", ran.stdout);
    assert!(
        ran.stderr.contains("log.jsonl cannot be written"),
        "{}",
        ran.stderr
    );
    assert!(
        ran.stdout
            .contains("Scorecard: 2 of 3 points, 1 of 5 questions"),
        "{}",
        ran.stdout
    );
}

/// WORKBOOK_HOME is a file, because root may write to every folder.
#[test]
fn an_unwritable_log_is_reported_before_the_first_question() {
    let learner = Learner::new();
    for arguments in [[].as_slice(), &["cram"], &["mock"]] {
        let mut command = learner.command(arguments);
        let ran = finish(command.env("WORKBOOK_HOME", "/dev/null"), &["", "2", "3"]);
        assert_eq!((ran.status, &*ran.stdout), (Some(2), ""), "{arguments:?}");
        assert!(
            ran.stderr
                .contains("; WORKBOOK_HOME=FOLDER puts the log elsewhere"),
            "{}",
            ran.stderr
        );
    }
}

#[test]
fn a_full_disk_loses_no_acknowledged_grade() {
    let learner = Learner::new();
    learner.run(&[], &["", "2", "3"]);
    let before = std::fs::read(learner.log()).expect("a log");
    let typed = ["b c", "3", "3"].repeat(4);
    let ran = finish(&mut on_a_full_disk(&learner, &[]), &typed);
    assert_eq!(ran.status, Some(2), "{}", ran.stdout);
    assert!(
        ran.stderr.contains("log.jsonl cannot be written"),
        "{}",
        ran.stderr
    );
    let grades = learner.grades().len();
    assert!(
        ran.stdout.contains(&format!("Done {}:", grades - 1)),
        "{}",
        ran.stdout
    );
    assert!(
        std::fs::read(learner.log())
            .expect("a log")
            .starts_with(&before)
    );
    // The log can still be used when there is room again.
    let ran = learner.run(&["stats", "--json"], &[]);
    let stats: Value = serde_json::from_str(&ran.stdout).expect("one document");
    assert_eq!(stats["seen"], grades);
}

/// A session that still runs.
struct Running {
    session: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Running {
    fn new(mut command: Command) -> Running {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut session = command.spawn().expect("a session");
        let stdout = session.stdout.take().expect("a pipe was requested");
        Running {
            stdin: session.stdin.take().expect("a pipe was requested"),
            stdout: BufReader::new(stdout),
            session,
        }
    }

    fn type_lines(&mut self, lines: &str) {
        self.stdin.write_all(lines.as_bytes()).expect("input");
    }

    fn wait_for(&mut self, text: &str) {
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            let length = self.stdout.read_line(&mut line).expect("a line");
            assert!(length > 0, "the output ended before {text}");
        }
    }

    /// Ends the input, and returns the rest of the output.
    fn finish(mut self) -> String {
        drop(self.stdin);
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).expect("the rest");
        self.session.wait().expect("the session ends");
        rest
    }
}

/// Both sessions ask the same question. Only the first grade counts.
#[test]
fn two_concurrent_sessions_record_one_grade() {
    let learner = Learner::new();
    let mut first = Running::new(learner.command(&[]));
    first.type_lines("\n2\n");
    first.wait_for("In thirty seconds");
    // Meanwhile the other session grades this question and the next one.
    let second = learner.run(&[], &["", "2", "4", "b c", "3", "3"]);
    assert!(second.stdout.contains("Done 2:"), "{}", second.stdout);
    first.type_lines("1\n");
    let rest = first.finish();
    assert!(
        rest.contains("Another session graded this question in the meantime."),
        "{rest}"
    );
    assert!(
        !rest.contains("Which of these fail?"),
        "the other session graded the next question, too: {rest}"
    );
    assert_eq!(
        learner.grades(),
        [("zeros".to_owned(), 4), ("which".to_owned(), 3)]
    );
}

#[test]
fn ctrl_c_loses_no_acknowledged_grade() {
    let learner = Learner::new();
    let mut running = Running::new(learner.command(&[]));
    running.type_lines("\n2\n3\n");
    running.wait_for("[2/");
    let pid = Pid::from_raw(running.session.id().cast_signed());
    kill(pid, Signal::SIGINT).expect("the session runs");
    let status = running.session.wait().expect("the session ends");
    assert_eq!(status.signal(), Some(Signal::SIGINT as i32));
    assert_eq!(learner.grades(), [("zeros".to_owned(), 3)]);
}

#[test]
fn a_closed_pipe_is_not_an_error() {
    let learner = Learner::new();
    let mut command = in_shell(&learner, "\"$@\" | head -n 1", &["stats"]);
    let ran = finish(&mut command, &[]);
    assert_eq!(ran.stderr, "");
}

#[test]
fn errors_suggest_a_fix() {
    let learner = Learner::new();
    for (arguments, expected) in [
        (
            ["--topic", "paging"].as_slice(),
            "there is no topic paging; the topics are address-space, anonymous",
        ),
        (
            &["prove", "zero"],
            "there is no question zero; did you mean zeros?",
        ),
        (&["--level", "7"], "7 is not in 1..=4"),
        (
            &["--interview", "tomorrow"],
            "expected a date such as 2027-01-15",
        ),
        (&["--new", "-1"], "expected a number from 0 to 1000"),
        (&["mock", "-n", "0"], "expected a number from 1 to 1000"),
        (
            &["mock", "--minutes", "0"],
            "expected a number from 1 to 600",
        ),
        (
            &["--new", "3", "cram"],
            "--new and --interview cannot be used with a command",
        ),
        (&["prove"], "not provided:\n  <ID|--all>"),
        (
            &["--topic", "malloc"],
            "no question of that topic and level; leave out --topic or --level",
        ),
        (
            &["mock", "--topic", "fork", "--level", "3"],
            "no question of that topic and level is answered aloud",
        ),
        (
            &["export", "--anki", "/nowhere/deck.tsv"],
            "/nowhere/deck.tsv cannot be written",
        ),
    ] {
        let ran = learner.run(arguments, &[]);
        assert_eq!(ran.status, Some(2), "{arguments:?}");
        assert!(
            ran.stderr.contains(expected),
            "{arguments:?}: {}",
            ran.stderr
        );
    }
}
