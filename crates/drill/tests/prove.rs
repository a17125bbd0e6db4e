//! Every answer of the book is proved on this machine, and no wrong answer is.

#[allow(dead_code, reason = "nothing is typed here")]
mod learner;

use std::collections::BTreeSet;

use drill::bank::Bank;
use drill::bank::question::{Kind, Question};
use drill::matching::one_space;
use drill::proof::{Proof, Prover, check_written};
use learner::Learner;
use serde_json::Value;

fn bank() -> Bank {
    let root = course::root::find().expect("a clone");
    Bank::read(&root).expect("a bank")
}

/// Builds in the target directory of the book's tests, which also build the lab.
fn prover(bank: &Bank) -> Prover {
    let target = course::cargo::target(&bank.book.root).expect("cargo knows its target directory");
    Prover::building_in(&bank.book.root, &target)
}

fn proved(bank: &Bank) -> Vec<&Question> {
    let questions = bank.questions.iter();
    questions.filter(|question| question.has_proof()).collect()
}

#[test]
fn every_answer_is_proved() {
    let bank = bank();
    let mut prover = prover(&bank);
    let questions = proved(&bank);
    prover
        .prepare(questions.iter().copied())
        .expect("cargo builds the lab");
    let mut wrong = Vec::new();
    for question in questions {
        match prover.prove(question).expect("a result") {
            Proof::Proved { .. } => {}
            // A sandbox may have no compiler, and an older kernel may lack a call.
            Proof::Skipped(why) if std::env::var_os("CI").is_none() => {
                println!("{}: {why}", question.id)
            }
            other => wrong.push(format!("{}: {other:?}", question.id)),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Changes one thing at a time that a proof expects. Then it must fail.
#[test]
fn a_wrong_answer_is_not_proved() {
    let bank = bank();
    let mut prover = prover(&bank);
    let questions = proved(&bank);
    prover
        .prepare(questions.iter().copied())
        .expect("cargo builds the lab");
    let mut tried = 0;
    let mut held = Vec::new();
    for question in questions {
        let Proof::Proved { lines, .. } = prover.prove(question).expect("a result") else {
            continue;
        };
        for (change, wrong) in wrong_variants(question, &lines) {
            tried += 1;
            if matches!(
                prover.prove(&wrong).expect("a result"),
                Proof::Proved { .. }
            ) {
                held.push(format!("{}: {change}", question.id));
            }
        }
    }
    assert!(
        held.is_empty(),
        "wrong answers that were proved:\n{}",
        held.join("\n")
    );
    assert!(tried > 0);
}

/// Returns variants with a wrong line, a wrong answer or wrong code, each with a description. `printed` is the output
/// of the question's program.
fn wrong_variants(question: &Question, printed: &[String]) -> Vec<(String, Question)> {
    let mut all = Vec::new();
    for index in 0..question.shows.len() {
        let mut wrong = question.clone();
        wrong.shows[index] = changed(&question.shows[index]);
        all.push((format!("shows: {}", wrong.shows[index]), wrong));
    }
    match &question.kind {
        // The accepted answers stay right: the expected one alone is wrong.
        Kind::Output { answers } | Kind::Estimate { answers, .. } => {
            for answer in wrong_answers(&answers[0], printed) {
                let mut wrong = question.clone();
                if let Kind::Output { answers } | Kind::Estimate { answers, .. } = &mut wrong.kind {
                    answers[0].clone_from(&answer);
                }
                all.push((format!("answer: {answer}"), wrong));
            }
        }
        Kind::Write { .. } => {
            let mut wrong = question.clone();
            if let Kind::Write { answer, .. } = &mut wrong.kind {
                answer.clear();
            }
            all.push(("no code".to_owned(), wrong));
        }
        _ => {}
    }
    if let Kind::Write { answer, .. } = &question.kind {
        // Mistakes that a check must notice.
        for (right, wrong) in [
            ("PROT_WRITE", "PROT_READ"),
            ("PROT_NONE", "PROT_READ"),
            ("MAP_PRIVATE", "MAP_SHARED"),
            ("MAP_SHARED", "MAP_PRIVATE"),
            ("MAP_ANONYMOUS", "0"),
            ("-1, 0)", "-1, 1)"),
            ("MAP_FAILED", "NULL"),
            ("sizeof *tally", "sizeof tally"),
            ("MFD_CLOEXEC", "0"),
            ("MADV_POPULATE_WRITE", "MADV_POPULATE_READ"),
            ("PTHREAD_PROCESS_SHARED", "PTHREAD_PROCESS_PRIVATE"),
            ("1024 * 1024", "2 * 1024 * 1024"),
            ("1024 * 1024", "1000 * 1000"),
            ("(pages - 1)", "pages"),
            ("unsafe impl Send", "// "),
            ("unsafe impl Sync", "// "),
            ("!= 0", "== 0"),
            ("!= 1", "== 1"),
            ("return -1;", ";"),
            ("return error;", ";"),
            ("return NULL;", ";"),
            ("return errno;", ";"),
            ("sysconf(_SC_PAGESIZE)", "(1 << 12)"),
            ("(start + len - 1)", "(start + len)"),
            ("- first + 1", "- first"),
            ("waitpid(child, &status", "waitpid(-1, &status"),
            ("WIFEXITED(status)", "1"),
            ("WNOHANG", "0"),
            ("close(ends[1]);\nint", "int"),
            ("int in = ends[0]", "int in = ends[1]"),
            ("write(ends[1]", "write(ends[0]"),
            ("MS_SYNC", "MS_ASYNC"),
            ("start[0] = 'X'", "start[0] = 'x'"),
            ("O_EXCL", "0"),
            ("0600", "0666"),
            ("(off_t)len", "1"),
            ("MADV_DONTNEED", "MADV_FREE"),
            ("start + page, (pages - 1)", "start, pages"),
            ("MREMAP_MAYMOVE", "0"),
            ("MCL_CURRENT", "0"),
            ("MCL_FUTURE", "0"),
            ("MCL_FUTURE", "MCL_FUTURE | MCL_ONFAULT"),
            ("semaphore, 1, 3", "semaphore, 0, 3"),
            ("semaphore, 1, 3", "semaphore, 1, 2"),
            ("CLOCK_MONOTONIC", "CLOCK_REALTIME"),
            ("while (count == 0)", "if (count == 0)"),
            ("pthread_mutex_unlock(&lock);", ";"),
            ("pthread_mutex_lock(&lock);", ";"),
            ("memory_order_acquire", "memory_order_relaxed"),
            ("memory_order_acquire", "memory_order_seq_cst"),
            ("memory_order_release", "memory_order_relaxed"),
            ("memory_order_release", "memory_order_seq_cst"),
            (
                "atomic_compare_exchange_weak(largest, &seen, value)",
                "(*largest = value)",
            ),
            ("seen < value &&", ""),
            ("== 8", "== 9"),
            ("mine + 1", "mine + 2"),
            ("to < from", "1"),
            ("to < from", "0"),
            ("alignment - 1", "alignment"),
            ("+ sizeof(void *)", ""),
            ("(used + 15) & ~(size_t)15", "used"),
            ("len > sizeof heap - start", "start + len > sizeof heap"),
            ("SIZE_MAX / size", "SIZE_MAX"),
            ("memset(block, 0", "memset(block, 1"),
            ("sizeof *message + len", "len"),
            ("sizeof *message + len", "sizeof *message"),
            ("first_free = block->next", "block->next"),
            ("freed->next = first_free", "freed->next"),
            ("volatile ", ""),
            ("<< 3", "<< 4"),
            ("<< 5", "<< 4"),
            ("<< 24", "<< 16"),
            ("| bytes[3]", ""),
        ] {
            if answer.contains(right) && holds(question, &answer.replace(right, wrong)) {
                all.push((format!("{wrong} instead of {right}"), question.clone()));
            }
        }
    }
    all
}

/// Returns wrong answers: the right one with a mistake, and everything else that the program prints.
fn wrong_answers(right: &str, printed: &[String]) -> BTreeSet<String> {
    let lines = printed.iter().map(|line| one_space(line));
    let words = printed.iter().flat_map(|line| line.split_whitespace());
    let words = words.flat_map(|word| {
        let bare = word.trim_matches(|letter: char| !letter.is_alphanumeric());
        [word, bare].map(str::to_owned)
    });
    let mut wrong: BTreeSet<String> = lines.chain(words).chain([changed(right)]).collect();
    wrong.remove(&one_space(right));
    wrong.remove("");
    wrong
}

fn holds(question: &Question, answer: &str) -> bool {
    let Kind::Write {
        language, check, ..
    } = &question.kind
    else {
        return false;
    };
    matches!(
        check_written(*language, check, answer).expect("a result"),
        Proof::Proved { .. }
    )
}

/// Replaces the last digit, or else the last letter.
fn changed(text: &str) -> String {
    let digit = text.rfind(|letter: char| letter.is_ascii_digit());
    let letter = || text.rfind(|letter: char| letter.is_ascii_alphabetic());
    let Some(index) = digit.or_else(letter) else {
        return format!("{text} not");
    };
    let other = match &text[index..=index] {
        "9" => "8",
        digit if digit.as_bytes()[0].is_ascii_digit() => "9",
        "x" => "y",
        _ => "x",
    };
    format!("{}{other}{}", &text[..index], &text[index + 1..])
}

#[test]
fn the_table_lists_what_differs_and_what_was_skipped() {
    let learner = Learner::new();
    let ran = learner.run(&["prove", "--all"], &[]);
    assert_eq!(ran.status, Some(1), "{}", ran.stderr);
    insta::assert_snapshot!(ran.stdout.replace(&drill::proof::machine::describe(), "…"));

    let ran = learner.run(&["prove", "--all", "--json"], &[]);
    let table: Value = serde_json::from_str(&ran.stdout).expect("one document");
    assert_eq!(table["differ"], 2);
    assert_eq!(learner.run(&["prove", "zeros"], &[]).status, Some(0));
    assert_eq!(learner.run(&["prove", "cannot"], &[]).status, Some(3));
    assert_eq!(
        learner.run(&["prove", "which"], &[]).status,
        Some(3),
        "this question has no proof"
    );
}
