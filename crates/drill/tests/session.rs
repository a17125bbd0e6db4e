//! A session as the learner meets it, typed into a pipe.

mod desk;

use desk::{Desk, finish};
use serde_json::Value;

/// Hides what differs from machine to machine.
fn steady(text: &str) -> String {
    text.replace(&drill::proof::machine::words(), "…")
}

/// Every type, every letter of the menu, a wrong answer, a certain one, an undo; then the input ends.
#[test]
fn a_whole_session() {
    let desk = Desk::new();
    let ran = desk.run(
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
    insta::assert_snapshot!(steady(&ran.stdout));
}

#[test]
fn the_end_of_the_input_ends_a_session_anywhere() {
    let typed = ["", "2", "3", "b c", "3", "3"];
    for count in 0..typed.len() {
        let desk = Desk::new();
        let ran = desk.run(&[], &typed[..count]);
        assert_eq!(ran.status, Some(0), "{count}: {}", ran.stderr);
        let done = format!("\nDone {}.", count / 3);
        assert!(ran.stdout.contains(&done), "{count}: {}", ran.stdout);
        assert_eq!(desk.grades().len(), count / 3);
    }
}

#[test]
fn stop_is_a_word_of_its_own() {
    for typed in [[":q", "", ""], ["", ":q", ""], ["", "2", "q"]] {
        let desk = Desk::new();
        let ran = desk.run(&[], &typed);
        assert_eq!(ran.status, Some(0));
        assert!(ran.stdout.contains("Done 0."), "{}", ran.stdout);
    }
}

#[test]
fn nobody_is_told_in_colours_through_a_pipe() {
    let ran = Desk::new().run(&[], &[""]);
    assert!(!ran.stdout.contains('\x1b'), "{}", ran.stdout);
}

#[test]
fn the_learners_grade_wins_and_is_there_at_once() {
    let desk = Desk::new();
    desk.run(&[], &["", "2", "3", "a", "2", "c", "3", "nothing"]);
    let records = desk.records();
    assert_eq!(
        desk.grades(),
        [("zeros".to_owned(), 3), ("which".to_owned(), 3)]
    );
    assert_eq!(records[1]["right"], true, "it was counted as right");
    assert_eq!(records[1]["sure"], 2);
}

#[test]
fn certain_but_wrong_is_due_again_after_ten_minutes() {
    let desk = Desk::new();
    let ran = desk.run(&[], &["", "2", "3", "a", "3", "3"]);
    assert!(
        ran.stdout
            .contains("You were certain: this one comes back today."),
        "{}",
        ran.stdout
    );
    assert!(ran.stdout.contains("3 good <10m"), "{}", ran.stdout);
    let later = desk.run_at("2026-11-25T10:10:00Z", &["--json"], &[]);
    let plan: Value = serde_json::from_str(&later.stdout).expect("one document");
    assert_eq!(plan["due"], serde_json::json!(["which"]));
}

#[test]
fn undo_survives_the_session() {
    let desk = Desk::new();
    let ran = desk.run(&[], &["", "2", "3", ":u"]);
    assert!(ran.stdout.contains("Undone: zeros."), "{}", ran.stdout);
    assert!(ran.stdout.contains("Done 0. right 0"), "{}", ran.stdout);
    let ran = desk.run(&["--json"], &[]);
    let plan: Value = serde_json::from_str(&ran.stdout).expect("one document");
    assert_eq!(plan["new"][0], "zeros");
    let ran = Desk::new().run(&[], &[":u"]);
    assert!(
        ran.stdout
            .contains("There is no grade in this session to undo."),
        "{}",
        ran.stdout
    );
}

#[test]
fn a_written_answer_is_compiled_and_run() {
    let desk = Desk::new();
    let write = |lines: &[&str]| {
        let typed = [lines, &[".", "2", ":q"]].concat();
        desk.run(&["--topic", "private", "--level", "3"], &typed)
            .stdout
    };
    assert!(write(&["int seven = 7;", "return seven;"]).contains("RIGHT."));
    assert!(write(&["return 8;"]).contains("Your code: it is not seven."));
    let told = write(&["int seven = 7", "return seven;"]);
    assert!(told.contains("Your code: it does not compile."), "{told}");
    assert!(
        told.contains("answer.c:2:1: error:"),
        "the line is the learner's: {told}"
    );
    assert!(write(&["for (;;) __builtin_trap();"]).contains("it was killed by SIG"));
}

#[test]
fn what_cannot_be_meant_is_asked_for_again() {
    let desk = Desk::new();
    for (level, typed, told) in [
        (
            ["anonymous", "1"],
            ["", "2", "3", "e", "b b"].as_slice(),
            "Letters from a to d, each once at most.",
        ),
        (
            ["private", "2"],
            &["some", "1 or 2"],
            "One number, such as 12 or 4 KiB.",
        ),
        (
            ["private", "2"],
            &["256", "2", "", "five", "8"],
            "The number of a line, from 1 to 7.",
        ),
        (
            ["private", "2"],
            &["256", "2", "", "5", "2", "", "a b c"],
            "Every letter from a to d, each once.",
        ),
    ] {
        let ran = Desk::new().run(&["--topic", level[0], "--level", level[1]], typed);
        assert!(ran.stdout.contains(told), "{typed:?}: {}", ran.stdout);
        assert!(
            !ran.stdout.contains("NOT QUITE"),
            "{typed:?}: {}",
            ran.stdout
        );
    }
    assert!(desk.grades().is_empty());
}

#[test]
fn a_second_look_at_a_proof_does_not_count() {
    let ran = Desk::new().run(&[], &["", "2", "p", "p", "3"]);
    assert!(
        ran.stdout.contains("Done 1. right 1, proved 1,"),
        "{}",
        ran.stdout
    );
}

#[test]
fn an_answer_may_be_left_open() {
    let desk = Desk::new();
    let ran = desk.run(&["--topic", "private", "--level", "2"], &["", "", ":q"]);
    assert!(
        ran.stdout.contains("LEFT OPEN: 256 faults."),
        "{}",
        ran.stdout
    );
    assert!(!ran.stdout.contains("Sure?"), "{}", ran.stdout);
    let records = desk.records();
    assert_eq!(
        (&records[0]["sure"], &records[0]["grade"]),
        (&1.into(), &1.into())
    );
    let ran = desk.run(&["--topic", "private", "--level", "3"], &[".", ":q"]);
    assert!(ran.stdout.contains("LEFT OPEN."), "{}", ran.stdout);
}

#[test]
fn an_order_is_right_so_far() {
    let typed = ["256", "2", "", "5", "2", "", "d b a c", "2"];
    let ran = Desk::new().run(&["--topic", "private", "--level", "2"], &typed);
    let told = "Your first 2 steps are right.\nNOT QUITE: d b c a.\n  d) map\n  b) touch\n";
    assert!(ran.stdout.contains(told), "{}", ran.stdout);
}

#[test]
fn stats_and_export_keep_to_the_scope() {
    let desk = Desk::new();
    desk.run(&[], &["", "2", "3", "a", "3", "1", ":q"]);
    let ran = desk.run(&["stats", "--json", "--topic", "private"], &[]);
    let stats: Value = serde_json::from_str(&ran.stdout).expect("one document");
    assert_eq!(
        (&stats["seen"], &stats["questions"]),
        (&0.into(), &8.into())
    );
    assert_eq!(stats["sure"][2]["answers"], 0);
    let ran = desk.run(
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
fn what_more_there_is_today_is_said() {
    let ran = Desk::new().run(&["--new", "0"], &[]);
    assert!(
        ran.stdout
            .starts_with("Nothing is due. `--new 8` begins more today.\n"),
        "{}",
        ran.stdout
    );
}

#[test]
fn every_command_has_its_document() {
    let desk = Desk::new();
    let document = |arguments: &[&str]| {
        let ran = desk.run(&[arguments, &["--json"]].concat(), &[]);
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
    assert!(desk.records().is_empty(), "nothing was asked");
}

#[test]
fn cram_leaves_the_schedule_as_it_is() {
    let desk = Desk::new();
    let before = desk.run(&["--json"], &[]).stdout;
    let ran = desk.run(&["cram", "-n", "2"], &["", "2", "2", "256", "2", "3"]);
    assert!(ran.stdout.contains("Done 2. right 2"), "{}", ran.stdout);
    assert_eq!(desk.grades().len(), 2);
    let after = desk.run(&["--json"], &[]).stdout;
    let new = |plan: &str| serde_json::from_str::<Value>(plan).expect("a document")["new"].clone();
    assert_eq!(new(&before), new(&after));
}

#[test]
fn a_mock_interview() {
    let desk = Desk::new();
    let typed = [
        // talk: the second point, the follow-up
        "", "3", "2", "", "maybe", "yes", // speech: nothing
        "", "", "", "", // zeros fills it up
        "", "1 2",
    ];
    let ran = desk.run(&["mock", "-n", "3", "--minutes", "20"], &typed);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    insta::assert_snapshot!(ran.stdout);
    let records = desk.records();
    assert_eq!(records[0]["made"], serde_json::json!([2, 3]));
}

#[test]
fn a_mock_begins_with_what_was_asked_least() {
    let desk = Desk::new();
    let ran = desk.run(&["mock", "-n", "1"], &["", "", "", ""]);
    assert!(
        ran.stdout.contains("Talk me through fork."),
        "{}",
        ran.stdout
    );
    let ran = desk.run(&["mock", "-n", "1"], &[]);
    assert!(ran.stdout.contains("What does mmap do?"), "{}", ran.stdout);
}

#[test]
fn a_mock_can_end_anywhere() {
    let typed = ["", "1", "", "y", "", "", "", ""];
    for count in 0..typed.len() {
        let ran = Desk::new().run(&["mock", "-n", "2"], &typed[..count]);
        assert_eq!(ran.status, Some(0), "{count}: {}", ran.stderr);
        let scored = format!("{} of 2 questions", count / 4);
        assert!(ran.stdout.contains(&scored), "{count}: {}", ran.stdout);
    }
}

#[test]
fn an_interview_is_told_how_it_stands() {
    let desk = Desk::new();
    desk.run(&[], &["", "2", "3"]);
    let ran = desk.run(&["--interview", "2026-12-04"], &[]);
    insta::assert_snapshot!(ran.stdout);
    let ran = desk.run(&["--interview", "2026-11-26"], &[]);
    assert!(
        ran.stdout.contains("`drill cram` asks the weakest"),
        "{}",
        ran.stdout
    );
    let ran = desk.run(&["--interview", "2026-11-24"], &[]);
    assert_eq!(ran.status, Some(2));
    assert_eq!(
        ran.stderr,
        "drill: the interview on 2026-11-24 is over: today is 2026-11-25.\n"
    );
}

#[test]
fn stats_say_how_it_stands() {
    let desk = Desk::new();
    desk.run(&[], &["", "2", "3", "a", "3", "1", ":q"]);
    desk.run(&["mock", "-n", "1"], &["", "1", "", "y"]);
    let ran = desk.run(&["stats"], &[]);
    insta::assert_snapshot!(ran.stdout);
    let ran = desk.run(&["stats", "--json"], &[]);
    let stats: Value = serde_json::from_str(&ran.stdout).expect("one document");
    assert_eq!(stats["seen"], 2);
    assert_eq!(stats["certain_but_wrong"], serde_json::json!(["which"]));
}

#[test]
fn a_torn_line_is_said() {
    let desk = Desk::new();
    desk.run(&[], &["", "2", "3"]);
    let text = std::fs::read_to_string(desk.log()).expect("a log");
    std::fs::write(desk.log(), format!("{text}{{\"what\":\"gra")).expect("a torn line");
    let ran = desk.run(&[], &["b c", "2", "3"]);
    assert!(
        ran.stdout.contains("line 2, which was never finished"),
        "{}",
        ran.stdout
    );
    assert!(ran.stdout.contains("Done 1."), "{}", ran.stdout);
    let ran = desk.run(&["stats", "--json"], &[]);
    let stats: Value = serde_json::from_str(&ran.stdout).expect("one document");
    assert_eq!(stats["seen"], 2, "what was written after it counts");
}

/// A limit on the size of files stands for a full disk.
fn on_a_full_disk(desk: &Desk, arguments: &[&str]) -> std::process::Command {
    let program = env!("CARGO_BIN_EXE_drill");
    let session = format!(
        "ulimit -f 1; trap '' XFSZ; exec {program} {}",
        arguments.join(" ")
    );
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &session]);
    for (name, value) in desk.command(&[]).get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    command
}

#[test]
fn whoever_answered_a_mock_gets_the_scorecard_though_the_disk_is_full() {
    let desk = Desk::new();
    let line = "{\"what\":\"later\"}\n";
    std::fs::write(desk.log(), line.repeat(60)).expect("a log");
    let typed = ["", "1", "", "y"].repeat(20);
    let ran = finish(&mut on_a_full_disk(&desk, &["mock"]), &typed);
    assert_eq!(ran.status, Some(2), "{}", ran.stdout);
    assert!(
        ran.stderr.contains("nothing was recorded"),
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

/// The folder is a file: root may write to every folder.
#[test]
fn nobody_answers_first_and_is_told_then_that_nothing_is_kept() {
    let desk = Desk::new();
    for arguments in [[].as_slice(), &["cram"], &["mock"]] {
        let mut command = desk.command(arguments);
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
fn a_full_disk_is_said_and_nothing_acknowledged_is_lost() {
    let desk = Desk::new();
    desk.run(&[], &["", "2", "3"]);
    let whole = std::fs::read(desk.log()).expect("a log");
    let typed = ["b c", "3", "3"].repeat(4);
    let ran = finish(&mut on_a_full_disk(&desk, &[]), &typed);
    assert_eq!(ran.status, Some(2), "{}", ran.stdout);
    assert!(
        ran.stderr.contains("nothing was recorded"),
        "{}",
        ran.stderr
    );
    let grades = desk.grades().len();
    assert!(
        ran.stdout.contains(&format!("Done {}.", grades - 1)),
        "{}",
        ran.stdout
    );
    assert!(
        std::fs::read(desk.log())
            .expect("a log")
            .starts_with(&whole)
    );
    // When there is room again, it goes on.
    let ran = desk.run(&["stats", "--json"], &[]);
    let stats: Value = serde_json::from_str(&ran.stdout).expect("one document");
    assert_eq!(stats["seen"], grades);
}

/// Both see the first question; the one that grades it later is told.
#[test]
fn two_sessions_agree() {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::process::Stdio;

    let desk = Desk::new();
    let mut first = desk.command(&[]);
    let mut first = first
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a session");
    let mut stdin = first.stdin.take().expect("a pipe was asked for");
    let mut stdout = BufReader::new(first.stdout.take().expect("a pipe was asked for"));
    stdin.write_all(b"\n2\n").expect("typed");
    let mut line = String::new();
    while !line.contains("In thirty seconds") {
        line.clear();
        assert!(
            stdout.read_line(&mut line).expect("a line") > 0,
            "the answer is shown"
        );
    }
    // Meanwhile the other grades that question, and the next.
    let second = desk.run(&[], &["", "2", "4", "b c", "3", "3"]);
    assert!(second.stdout.contains("Done 2."), "{}", second.stdout);
    stdin.write_all(b"1\n").expect("typed");
    drop(stdin);
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).expect("the rest");
    first.wait().expect("it ends");
    assert!(
        rest.contains("Another session has graded this question meanwhile."),
        "{rest}"
    );
    assert!(
        !rest.contains("Which of these fail?"),
        "the next is another's, too: {rest}"
    );
    assert_eq!(
        desk.grades(),
        [("zeros".to_owned(), 4), ("which".to_owned(), 3)]
    );
}

#[test]
fn whoever_has_seen_enough_closes_the_pipe() {
    let desk = Desk::new();
    let program = env!("CARGO_BIN_EXE_drill");
    let mut shell = desk.command(&[]);
    let stats = format!("{program} stats | head -n 1");
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &stats]);
    for (name, value) in shell.env("TERM", "dumb").get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    let ran = finish(&mut command, &[]);
    assert_eq!(ran.stderr, "");
}

#[test]
fn errors_name_what_there_is() {
    let desk = Desk::new();
    for (arguments, told) in [
        (
            ["--topic", "paging"].as_slice(),
            "there is no topic paging: there is anonymous, private",
        ),
        (
            &["prove", "zero"],
            "there is no question zero; did you mean zeros?",
        ),
        (&["--level", "7"], "7 is not in 1..=4"),
        (
            &["--interview", "tomorrow"],
            "a day is wanted, such as 2027-01-15",
        ),
        (&["--new", "-1"], "a number from 0 to 1000 is wanted"),
        (&["mock", "-n", "0"], "a number from 1 to 1000 is wanted"),
        (
            &["mock", "--minutes", "0"],
            "a number from 1 to 600 is wanted",
        ),
        (
            &["--new", "3", "cram"],
            "--new and --interview are for `drill` alone",
        ),
        (&["prove"], "`drill prove ID`, or `drill prove --all`"),
        (
            &["--topic", "malloc"],
            "no question of that topic and level: leave out --topic or --level",
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
        let ran = desk.run(arguments, &[]);
        assert_eq!(ran.status, Some(2), "{arguments:?}");
        assert!(ran.stderr.contains(told), "{arguments:?}: {}", ran.stderr);
    }
}
