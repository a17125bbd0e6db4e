//! Sessions, typed into a pipe.

mod learner;

use std::fs::Permissions;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use learner::{Learner, Ran, finish};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// Only the questions on one topic, so that `which` follows `zeros`.
const ANONYMOUS: [&str; 2] = ["--topic", "anonymous"];

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
            // zeros: recall, spoken
            "",
            "2",
            "p",
            "w",
            "l",
            "3",
            // faults: estimate, wrong and certain, counted as right
            "512",
            "3",
            "c",
            "u",
            // again: zeros was undone; a typed answer
            "Because the kernel clears it.",
            "1",
            "2",
            // faults again, wrong
            "512",
            "3",
            "w",
            "p",
            "",
            // which: choice, partly right
            "a",
            "3",
            "",
            // leak: bug
            "line 5",
            "2",
            "4",
            // prints: output, with a typo in no name
            "Bytes 0",
            "",
            "",
            // steps: order, partly right
            "abcd",
            "1",
            "5",
            "",
            // call: write, wrong, not compiled, given up
            "return 6;",
            ".",
            "2",
            "return 7",
            ".",
            ":g",
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
        let ran = learner.run(&ANONYMOUS, &typed[..count]);
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
    learner.run(&ANONYMOUS, &["", "2", "3", "b", "2", "c", "3", "nothing"]);
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
    let ran = learner.run(&ANONYMOUS, &["", "2", "3", "b", "3", "3"]);
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

/// Types these lines at the question that asks for code.
fn write(learner: &Learner, typed: &[&str]) -> Ran {
    learner.run(&["--topic", "private", "--level", "3"], typed)
}

#[test]
fn a_written_answer_is_compiled_and_run() {
    let write = |lines: &[&str]| {
        let typed = [lines, &[".", "2", ":q"]].concat();
        write(&Learner::new(), &typed).stdout
    };
    assert!(write(&["int seven = 7;", "return seven;"]).contains("RIGHT."));
    assert!(write(&["return 8;"]).contains("NOT YET: it is not seven."));
    let output = write(&["int seven = 7", "return seven;"]);
    assert!(output.contains("NOT YET: it does not compile."), "{output}");
    assert!(
        output.contains("answer.c:2:1: error:"),
        "lines are counted in the answer: {output}"
    );
    assert!(write(&["for (;;) __builtin_trap();"]).contains("the program was killed by SIG"));
}

#[test]
fn written_code_can_be_corrected_until_it_passes() {
    let learner = Learner::new();
    let ran = write(
        &learner,
        &["return 8;", ".", "2", "return 7", ".", "return 7;", ".", ""],
    );
    let (before, after) = ran
        .stdout
        .split_once("RIGHT after 3 attempts.")
        .unwrap_or_else(|| panic!("{}", ran.stdout));
    assert!(before.contains("NOT YET: it is not seven."), "{before}");
    assert!(before.contains("error:"), "{before}");
    assert!(
        !before.contains("For example"),
        "the answer was shown: {before}"
    );
    assert!(after.contains("For example:\n  return 7;"), "{after}");
    assert_eq!(learner.grades(), [("call".to_owned(), 2)], "hard");
    assert_eq!(learner.records()[0]["right"], true);
}

#[test]
fn giving_up_shows_the_answer() {
    let learner = Learner::new();
    let ran = write(&learner, &["return 8;", ".", "2", ":g", ""]);
    assert!(
        ran.stdout.contains("WRONG.\nFor example:"),
        "{}",
        ran.stdout
    );
    assert_eq!(learner.records()[0]["right"], false);
    let ran = write(&Learner::new(), &[":g", ":q"]);
    assert!(
        ran.stdout.contains("NO ANSWER.\nFor example:"),
        "{}",
        ran.stdout
    );
}

/// Many and long errors must not hide the question.
#[test]
fn the_compilers_output_is_bounded() {
    let long = format!("int {} = ;", "x".repeat(1000));
    let typed = [vec![&*long; 30], vec![".", "2", ":q"]].concat();
    let ran = write(&Learner::new(), &typed);
    let (_, after) = ran.stdout.split_once("NOT YET").expect("a verdict");
    let (told, _) = after.split_once("Try again").expect("a prompt");
    assert!(told.contains("error:"), "{told}");
    assert!(told.lines().count() <= 14, "{told}");
    assert!(told.lines().all(|line| line.len() < 200), "{told}");
}

#[test]
fn unfinished_code_is_kept() {
    // The end of the input, in a line, at the question about the certainty, and after a wrong attempt.
    for typed in [
        ["int seven = 7;", "return seven;"].as_slice(),
        &["int seven = 7;", "return seven;", ":q"],
        &["int seven = 7;", "return seven;", "."],
        &["return 8;", ".", "2", "int seven = 7;", "return seven;"],
    ] {
        let learner = Learner::new();
        let ran = write(&learner, typed);
        assert_eq!(ran.status, Some(0));
        assert!(
            ran.stdout.contains("Your code is kept in "),
            "{typed:?}: {}",
            ran.stdout
        );
        assert!(ran.stdout.contains("Done 0:"), "{}", ran.stdout);
        assert!(!ran.stdout.contains("For example"), "{}", ran.stdout);
        let ran = write(&learner, &[".", "2", ""]);
        let kept = "checks it again:\n   1  int seven = 7;\n   2  return seven;\n";
        assert!(ran.stdout.contains(kept), "{}", ran.stdout);
        assert!(ran.stdout.contains("RIGHT."), "{}", ran.stdout);
        let drafts = learner.log().with_file_name("drafts");
        let left = std::fs::read_dir(drafts).expect("a folder").count();
        assert_eq!(left, 0, "graded code is not kept");
    }
}

#[test]
fn a_stopped_correction_keeps_the_last_attempt() {
    let learner = Learner::new();
    write(&learner, &["return 8;", ".", "2", "oops"]);
    let draft = |name| std::fs::read_to_string(learner.log().with_file_name("drafts").join(name));
    assert_eq!(draft("call.c").expect("a draft"), "oops\n");
    assert_eq!(draft("call.c~").expect("the last attempt"), "return 8;\n");
}

#[test]
fn an_editor_corrects_the_code() {
    let learner = Learner::new();
    let mut command = learner.command(&["--topic", "private", "--level", "3"]);
    command.env_remove("VISUAL").env("EDITOR", "sed -i s/8/7/");
    let ran = finish(&mut command, &["return 8;", ".", "2", ":e", ":q"]);
    assert!(
        ran.stdout.contains("RIGHT after 2 attempts."),
        "{}",
        ran.stdout
    );
    let mut command = learner.command(&["--topic", "private", "--level", "3"]);
    command.env_remove("VISUAL").env("EDITOR", "false");
    let ran = finish(&mut command, &["return 7;", ":e", ".", "2", ":q"]);
    assert!(
        ran.stdout.contains("the editor false failed"),
        "{}",
        ran.stdout
    );
    assert!(
        ran.stdout.contains("RIGHT."),
        "the code was kept: {}",
        ran.stdout
    );
}

#[test]
fn a_typed_recall_is_shown_beside_the_expected_answer() {
    let typed = ["The kernel clears it.", "2", "3"];
    let learner = Learner::new();
    let ran = learner.run(&ANONYMOUS, &typed);
    let both = "Your answer: The kernel clears it.\nExpected answer:\nThe frame may have held another's data.";
    assert!(ran.stdout.contains(both), "{}", ran.stdout);
    assert_eq!(learner.grades(), [("zeros".to_owned(), 3)]);
    let ran = Learner::new().run(&ANONYMOUS, &["", "2", "3"]);
    assert!(
        !ran.stdout.contains("Your answer:"),
        "it was spoken: {}",
        ran.stdout
    );
}

#[test]
fn the_last_question_is_not_repeated_at_once() {
    let learner = Learner::new();
    // zeros is not known; which and prints are; zeros is asked again, and is not known again.
    let typed = [
        "", "2", "1", "a d", "2", "3", "bytes 0", "2", "3", "", "2", "1",
    ];
    let ran = learner.run(&ANONYMOUS, &typed);
    assert!(ran.stdout.contains("[4/4]"), "{}", ran.stdout);
    let end = "\nNothing else is due before 2026-11-25 10:10.\n\nDone 4:";
    assert!(ran.stdout.contains(end), "{}", ran.stdout);
}

#[test]
fn a_partly_right_answer_is_neither_right_nor_wrong() {
    let learner = Learner::new();
    let ran = learner.run(&ANONYMOUS, &["", "2", "3", "a", "3", ""]);
    assert!(
        ran.stdout.contains("PARTLY RIGHT. The answer: a d."),
        "{}",
        ran.stdout
    );
    assert!(!ran.stdout.contains("comes back today"), "{}", ran.stdout);
    let done = "Done 2: 1 right, 1 partly right, 0 wrong. 0 proved. 0 certain but wrong.";
    assert!(ran.stdout.contains(done), "{}", ran.stdout);
    let record = &learner.records()[1];
    assert_eq!(
        (&record["right"], &record["partly"]),
        (&false.into(), &true.into())
    );
    let ran = Learner::new().run(&ANONYMOUS, &["", "2", "3", "b", "1", ""]);
    assert!(
        ran.stdout.contains("\nWRONG. The answer: a d."),
        "{}",
        ran.stdout
    );
}

#[test]
fn a_mistyped_answer_is_asked_for_again() {
    for (level, typed, expected) in [
        (
            ["anonymous", "1"],
            ["", "2", "3", "e", "b b", "."].as_slice(),
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
        ran.stdout
            .contains("Done 1: 1 right, 0 partly right, 0 wrong. 1 proved."),
        "{}",
        ran.stdout
    );
}

#[test]
fn an_answer_may_be_skipped() {
    let learner = Learner::new();
    let ran = learner.run(&["--topic", "private", "--level", "2"], &["", "", ":q"]);
    assert!(
        ran.stdout.contains("NO ANSWER. The answer: 256 faults."),
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
    let expected = "PARTLY RIGHT. The answer: d b c a. Steps that are followed by the right one: 1 of 3.\n  d) map\n";
    assert!(ran.stdout.contains(expected), "{}", ran.stdout);
}

#[test]
fn stats_and_export_respect_the_scope() {
    let learner = Learner::new();
    learner.run(&ANONYMOUS, &["", "2", "3", "b", "3", "1", ":q"]);
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
fn cram_says_that_it_leaves_the_schedule_unchanged() {
    let learner = Learner::new();
    let before = learner.run(&["--json"], &[]).stdout;
    // The second answer is wrong and certain.
    let ran = learner.run(
        &["cram", "-n", "2", "--topic", "anonymous"],
        &["", "2", "2", "b", "3", "1"],
    );
    for said in [
        "Cramming does not change the schedule",
        "WRONG. The answer: a d.\n",
        "Grade: 1 again  2 hard  3 good  4 easy  u undo [1] >",
        "Done 2: 1 right, 0 partly right, 1 wrong.",
        "The schedule has not changed: every question is due when it was due before.",
    ] {
        assert!(ran.stdout.contains(said), "{said}: {}", ran.stdout);
    }
    assert!(!ran.stdout.contains("comes back"), "{}", ran.stdout);
    assert_eq!(learner.grades().len(), 2);
    let after = learner.run(&["--json"], &[]).stdout;
    let new = |plan: &str| {
        let plan: Value = serde_json::from_str(plan).expect("a document");
        let mut ids: Vec<_> = plan["new"].as_array().expect("a list").clone();
        ids.sort_by_key(Value::to_string);
        (ids, plan["due"].clone(), plan["soon"].clone())
    };
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
        let learner = Learner::new();
        let ran = learner.run(&["mock", "-n", "2"], &typed[..count]);
        assert_eq!(ran.status, Some(0), "{count}: {}", ran.stderr);
        // Once the rubric is ticked, it counts.
        let questions = count / 4 + usize::from(count % 4 > 1);
        let scored = format!("{questions} of 2 questions");
        assert!(ran.stdout.contains(&scored), "{count}: {}", ran.stdout);
        assert_eq!(learner.records().len(), questions, "{count}");
    }
}

#[test]
fn a_mock_that_stops_at_a_follow_up_keeps_what_was_ticked() {
    for typed in [["", "1"].as_slice(), &["", "1", ""], &["", "1", ":q"]] {
        let learner = Learner::new();
        let ran = learner.run(&["mock"], typed);
        assert!(
            ran.stdout
                .contains("This question was scored up to here: 2 points."),
            "{}",
            ran.stdout
        );
        assert!(
            ran.stdout.contains("Scorecard: 1 of 2 points"),
            "{}",
            ran.stdout
        );
        let record = &learner.records()[0];
        assert_eq!(
            (&record["made"], &record["points"]),
            (&serde_json::json!([1]), &2.into())
        );
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
    learner.run(&ANONYMOUS, &["", "2", "3", "b", "3", "1", ":q"]);
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
    let ran = learner.run(&ANONYMOUS, &["b c", "2", "3"]);
    assert!(
        ran.stdout.contains("line 2 was not written completely."),
        "{}",
        ran.stdout
    );
    assert!(ran.stdout.contains("Done 1:"), "{}", ran.stdout);
    let ran = learner.run(&["stats", "--json"], &[]);
    let stats: Value = serde_json::from_str(&ran.stdout).expect("one document");
    assert_eq!(stats["seen"], 2, "the record after the torn line counts");
}

#[test]
fn a_damaged_line_is_not_called_incomplete() {
    let learner = Learner::new();
    learner.run(&[], &["", "2", "3"]);
    let text = std::fs::read_to_string(learner.log()).expect("a log");
    // The log's line is read although an editor has put a byte-order mark before it.
    std::fs::write(
        learner.log(),
        format!("\u{feff}{text}oops\n{text}nonsense\n"),
    )
    .expect("a log");
    let ran = learner.run(&ANONYMOUS, &[]);
    assert!(
        ran.stdout.contains("lines 2 and 4 were edited or damaged"),
        "{}",
        ran.stdout
    );
    assert!(!ran.stdout.contains("completely"), "{}", ran.stdout);
    assert!(
        ran.stdout.contains("[1/2]"),
        "zeros is known: {}",
        ran.stdout
    );
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
    learner.run(&ANONYMOUS, &["", "2", "3"]);
    let before = std::fs::read(learner.log()).expect("a log");
    let typed = ["b c", "3", "3"].repeat(4);
    let ran = finish(&mut on_a_full_disk(&learner, &ANONYMOUS), &typed);
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

    fn interrupt(&self) {
        let pid = Pid::from_raw(self.session.id().cast_signed());
        kill(pid, Signal::SIGINT).expect("the session runs");
    }

    /// Waits for the session's end, while its input stays open. Returns the rest of the output.
    fn wait(mut self) -> (ExitStatus, String) {
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).expect("the rest");
        (self.session.wait().expect("the session ends"), rest)
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
    let mut first = Running::new(learner.command(&ANONYMOUS));
    first.type_lines("\n2\n");
    first.wait_for("In thirty seconds");
    // Meanwhile the other session grades this question and the next one.
    let second = learner.run(&ANONYMOUS, &["", "2", "4", "b c", "3", "3"]);
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

/// At every kind of prompt, Ctrl-C ends the session with its summary, and the status tells a shell that it was Ctrl-C.
#[test]
fn ctrl_c_ends_a_session_with_its_summary() {
    let mock = ["mock", "-n", "2"].as_slice();
    let code = ["--topic", "private", "--level", "3"].as_slice();
    for (arguments, typed, shown, summary, records) in [
        (ANONYMOUS.as_slice(), "", "Stop at any time", "Done 0:", 0),
        (&ANONYMOUS, "\n", "Why is fresh memory", "Done 0:", 0),
        (&ANONYMOUS, "\n2\n", "In thirty seconds", "Done 0:", 0),
        (&ANONYMOUS, "\n2\n3\n", "[2/", "Done 1: 1 right", 1),
        (&["cram"], "\n2\n3\n", "[2/", "Done 1: 1 right", 1),
        (
            mock,
            "\n1\n",
            "The interviewer goes on",
            "1 of 2 questions",
            1,
        ),
        (code, "return 7;\n", "In C.", "Your code is kept", 0),
    ] {
        let learner = Learner::new();
        let mut running = Running::new(learner.command(arguments));
        running.type_lines(typed);
        running.wait_for(shown);
        // The session may still be on its way to the prompt, where it has to notice the signal, too.
        thread::sleep(Duration::from_millis(50));
        running.interrupt();
        let (status, rest) = running.wait();
        assert_eq!(status.code(), Some(130), "{typed:?}: {rest}");
        assert!(rest.contains(summary), "{typed:?}: {rest}");
        assert_eq!(learner.records().len(), records, "{typed:?}");
    }
}

/// Ctrl-C reaches the editor and the drill. It is the editor's own business, and the session goes on.
#[test]
fn ctrl_c_in_the_editor_does_not_end_the_session() {
    let learner = Learner::new();
    let folder = tempfile::tempdir().expect("a folder");
    let (editor, started) = (folder.path().join("editor"), folder.path().join("started"));
    let lines = format!(
        "touch {}\nsleep 1\nsed -i s/8/7/ \"$1\"\n",
        started.display()
    );
    std::fs::write(&editor, lines).expect("a script");
    let mut command = learner.command(&["--topic", "private", "--level", "3"]);
    command
        .env_remove("VISUAL")
        .env("EDITOR", format!("sh {}", editor.display()));
    let mut running = Running::new(command);
    running.type_lines("return 8;\n.\n2\n:e\n");
    running.wait_for("Try again");
    while !started.exists() {
        thread::sleep(Duration::from_millis(5));
    }
    running.interrupt();
    running.type_lines("\n");
    let rest = running.finish();
    assert!(rest.contains("RIGHT after 2 attempts."), "{rest}");
    assert_eq!(learner.grades(), [("call".to_owned(), 2)]);
}

/// Ctrl-C kills the check and the compiler, what they have started, and their files. It does not count as an attempt.
#[test]
fn ctrl_c_ends_a_check_of_code() {
    let learner = Learner::new();
    let temporary = tempfile::tempdir().expect("a folder");
    let mut command = learner.command(&["--topic", "private", "--level", "3"]);
    let mut running = Running::new({
        command.env("TMPDIR", temporary.path());
        command
    });
    running.type_lines("if (fork() == 0) for (;;) sleep(1);\nfor (;;);\n.\n2\n");
    let entries = || {
        let entries = std::fs::read_dir(temporary.path()).expect("a folder");
        entries.map(|entry| entry.expect("an entry").path())
    };
    while !entries().any(|folder| folder.join("check").exists()) {
        thread::sleep(Duration::from_millis(5));
    }
    running.interrupt();
    let (status, rest) = running.wait();
    assert_eq!(status.code(), Some(130), "{rest}");
    assert!(rest.contains("Your code is kept"), "{rest}");
    assert!(!rest.contains("NOT YET"), "{rest}");
    let left: Vec<_> = entries().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn ctrl_c_ends_a_proof() {
    let learner = Learner::new();
    let folder = tempfile::tempdir().expect("a folder");
    let (path, temporary) = (folder.path().join("path"), folder.path().join("temporary"));
    let started = folder.path().join("started");
    std::fs::create_dir(&path).expect("a folder");
    std::fs::create_dir(&temporary).expect("a folder");
    let compiler = path.join("cc");
    let lines = format!("#!/bin/sh\n: > {}\nsleep 30\n", started.display());
    std::fs::write(&compiler, lines).expect("a compiler");
    std::fs::set_permissions(&compiler, Permissions::from_mode(0o755)).expect("permissions");
    let others = std::env::var("PATH").expect("a path");
    let mut command = learner.command(&["prove", "call"]);
    command
        .env("PATH", format!("{}:{others}", path.display()))
        .env("TMPDIR", &temporary);
    let running = Running::new(command);
    while !started.exists() {
        thread::sleep(Duration::from_millis(5));
    }
    running.interrupt();
    let (status, rest) = running.wait();
    assert_eq!(status.code(), Some(130), "{rest}");
    let left = std::fs::read_dir(&temporary).expect("a folder");
    assert_eq!(left.count(), 0);
}

#[test]
fn a_proof_that_cannot_start_does_not_end_the_session() {
    let learner = Learner::new();
    let mut command = learner.command(&ANONYMOUS);
    command.env("CARGO", "/nowhere/cargo");
    let ran = finish(&mut command, &["", "2", "p", "3"]);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    let skipped = "SKIPPED: cargo cannot be started";
    assert!(ran.stdout.contains(skipped), "{}", ran.stdout);
    assert_eq!(learner.grades(), [("zeros".to_owned(), 3)]);

    let learner = Learner::new();
    let mut command = learner.command(&["--topic", "private", "--level", "3"]);
    command.env("TMPDIR", "/nowhere");
    let ran = finish(&mut command, &["return 7;", ".", "2", "3"]);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    let not_run = "Your code was not run: a temporary folder cannot be created";
    assert!(ran.stdout.contains(not_run), "{}", ran.stdout);
    assert_eq!(learner.grades(), [("call".to_owned(), 3)]);
}

#[test]
fn code_that_is_not_utf_8_is_not_called_empty() {
    let learner = Learner::new();
    let mut command = learner.command(&["--topic", "private", "--level", "3"]);
    command
        .env_remove("VISUAL")
        .env("EDITOR", "printf '\\377\\n' >>");
    let ran = finish(&mut command, &["return 7;", ":e", "2", ":q"]);
    assert!(!ran.stdout.contains("is empty"), "{}", ran.stdout);
    assert!(ran.stdout.contains("NOT YET"), "{}", ran.stdout);
}

#[test]
fn a_log_with_absurd_numbers_has_statistics() {
    let learner = Learner::new();
    let points = usize::MAX;
    let line = format!(
        r#"{{"what":"mock","at":1,"question":"talk","made":[1],"points":{points},"seconds":1}}"#
    );
    std::fs::write(learner.log(), format!("{line}\n{line}\n")).expect("a log");
    let ran = learner.run(&["stats"], &[]);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
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
            "there is no topic paging; the topics are ",
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
        (&["cram", "-n", "-1"], "expected a number from 1 to 1000"),
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
