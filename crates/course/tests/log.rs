//! The log under bad conditions: writers that are killed, a full disk, concurrent writers.

use std::collections::BTreeSet;
use std::env;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use course::log::{Lines, Log, Record};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigHandler, Signal, signal};

/// The environment variables that make a child process a writer.
const FOLDER: &str = "STATE_TEST_FOLDER";
const NAME: &str = "STATE_TEST_NAME";

/// A record of any size.
fn record(id: impl Into<String>, size: usize) -> Record {
    Record::Proof {
        at: 0,
        question: id.into(),
        result: "x".repeat(size),
        machine: String::new(),
    }
}

/// Starts this program again as a writer.
fn writer(folder: &Path, name: usize, test: &str) -> Child {
    Command::new(env::current_exe().expect("this program"))
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder)
        .env(NAME, name.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a writer")
}

/// Prints each record as soon as it is acknowledged. Does nothing unless `writer` has started this process.
#[test]
fn write_until_killed() {
    let (Some(folder), Ok(name)) = (env::var_os(FOLDER), env::var(NAME)) else {
        return;
    };
    let log = Log::in_folder(Path::new(&folder));
    // Long enough that a kill can come in the middle of the write.
    let size = 300_000;
    for number in 0.. {
        let id = format!("{name}-{number}");
        log.append(&record(&id, size)).expect("a line");
        // In one call, so that a kill cannot leave half a line.
        let line = format!("acknowledged {id}\n");
        std::io::stdout()
            .write_all(line.as_bytes())
            .expect("standard output");
    }
}

fn acknowledged(output: impl Read) -> BTreeSet<String> {
    let lines = BufReader::new(output).lines().map_while(Result::ok);
    let ids = lines.filter_map(|line| {
        let (_, id) = line.split_once("acknowledged ")?;
        Some(id.to_owned())
    });
    ids.collect()
}

fn ids(records: &[Record]) -> Vec<String> {
    let id = |record: &Record| match record {
        Record::Proof { question, .. } => question.clone(),
        other => panic!("unexpected record {other:?}"),
    };
    records.iter().map(id).collect()
}

#[test]
fn no_acknowledged_record_is_lost_when_writers_are_killed() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = Log::in_folder(folder.path());
    let mut acknowledged_ids = BTreeSet::new();
    let mut torn = 0;
    for round in 0..12 {
        let writers: Vec<_> = (0..4)
            .map(|number| {
                let mut child = writer(folder.path(), round * 4 + number, "write_until_killed");
                let output = child.stdout.take().expect("a pipe was requested");
                let reader = thread::spawn(move || acknowledged(output));
                (child, reader)
            })
            .collect();
        for (number, (mut child, reader)) in writers.into_iter().enumerate() {
            // A different delay for each writer, so that the kills come at different points of a write.
            thread::sleep(Duration::from_micros(
                9_000 + 1_700 * number as u64 + 613 * round as u64,
            ));
            child.kill().expect("SIGKILL");
            child.wait().expect("the exit status");
            acknowledged_ids.extend(reader.join().expect("the acknowledged ids"));
        }
        let lines = log.read().expect("the log");
        let found: BTreeSet<_> = ids(&lines.records).into_iter().collect();
        let lost: Vec<_> = acknowledged_ids.difference(&found).collect();
        assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
        assert_eq!(
            found.len(),
            lines.records.len(),
            "a record is in the log twice"
        );
        torn = lines.torn.len();
    }
    assert!(
        acknowledged_ids.len() > 8,
        "only {} records were acknowledged",
        acknowledged_ids.len()
    );
    log.append(&record("last", 0))
        .expect("a line after the kills");
    let lines = log.read().expect("the log");
    assert_eq!(ids(&lines.records).last().map(String::as_str), Some("last"));
    println!("{} acknowledged, {torn} torn", acknowledged_ids.len());
}

/// Simulates a full disk by a limit on the size of files. It applies to the whole process, so a child sets it.
#[test]
fn write_until_full() {
    let Some(folder) = env::var_os(FOLDER) else {
        return;
    };
    // SAFETY: nothing else in this child handles the signal. If it is ignored, a write past the limit returns an error.
    unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }.expect("the signal is ignored");
    setrlimit(Resource::RLIMIT_FSIZE, 1000, 1000).expect("a limit");
    let log = Log::in_folder(Path::new(&folder));
    let mut written = 0;
    let error = loop {
        match log.append(&record(written.to_string(), 100)) {
            Ok(()) if written > 1000 => break "the limit was never reached".to_owned(),
            Ok(()) => written += 1,
            Err(error) => break format!("{error:#}"),
        }
    };
    println!("acknowledged {written}: {error}");
}

#[test]
fn a_full_disk_leaves_the_log_unchanged() {
    let folder = tempfile::tempdir().expect("a folder");
    let child = writer(folder.path(), 0, "write_until_full");
    let output = child.wait_with_output().expect("the output");
    let output = String::from_utf8_lossy(&output.stdout);
    let line = output
        .lines()
        .find_map(|line| line.split_once("acknowledged "));
    let (_, line) = line.unwrap_or_else(|| panic!("no acknowledgement in: {output}"));
    let (written, error) = line.split_once(": ").expect("a number and an error");
    assert!(
        error.contains("log.jsonl cannot be written (File too large"),
        "{error}"
    );
    let lines = Log::in_folder(folder.path()).read().expect("the log");
    assert_eq!(lines.records.len().to_string(), written);
    assert!(lines.torn.is_empty(), "a partial line was left in the log");
}

#[test]
fn concurrent_writers_write_complete_lines() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = Log::in_folder(folder.path());
    thread::scope(|scope| {
        for writer in 0..8 {
            let log = &log;
            scope.spawn(move || {
                for number in 0..20 {
                    log.append(&record(format!("{writer}-{number}"), 0))
                        .expect("a line");
                }
            });
        }
    });
    let lines = log.read().expect("the log");
    let found: BTreeSet<_> = ids(&lines.records).into_iter().collect();
    assert_eq!((found.len(), lines.torn.len()), (160, 0));
}

/// No two writers decide on the same state of the log.
#[test]
fn append_if_decides_and_writes_under_one_lock() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = Log::in_folder(folder.path());
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..20 {
                    let count = |lines: Lines| Some(record(lines.records.len().to_string(), 0));
                    log.append_if(count).expect("a line");
                }
            });
        }
    });
    let lines = log.read().expect("the log");
    let expected: Vec<_> = (0..160).map(|number| number.to_string()).collect();
    assert_eq!(ids(&lines.records), expected);
}

/// A log that version 0.1 wrote, with every kind of record, must stay readable, and must be written the same way.
#[test]
fn a_log_of_version_0_1_is_read_in_full() {
    let text = include_str!("log-0.1.jsonl");
    let lines = course::log::parse(text.as_bytes());
    assert!(lines.torn.is_empty(), "torn lines: {:?}", lines.torn);
    assert!(!lines.records.contains(&Record::Other));
    assert_eq!(lines.records.len(), text.lines().count());
    for (record, line) in lines.records.iter().zip(text.lines()) {
        let before: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let after = serde_json::to_value(record).expect("JSON");
        assert_eq!(after, before);
    }
}
