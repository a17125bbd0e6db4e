//! The book's server, with a client that listens to its events as a browser does.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use course::cargo;
use course::log::{Count, Graded, Record, StageCount, now};

use crate::copy::Copy;

pub struct Live {
    copy_root: std::path::PathBuf,
    server: Child,
    events: BufReader<TcpStream>,
}

impl Live {
    /// Starts the server, which must be built.
    pub fn serve(copy: &Copy) -> Live {
        let program = cargo::separate_target(&course::root::find().expect("a clone"));
        let program = program.join("debug/reader");
        let mut command = copy.command(program.to_str().expect("a path in UTF-8"));
        command.args(["serve", "--port", "0"]);
        let mut server = command
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let mut line = String::new();
        let stdout = server.stdout.take().expect("a pipe was requested");
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("an address");
        let (_, rest) = line.split_once("http://").expect("an address");
        let address = rest.split_whitespace().next().expect("an address");
        let ask = |path: &str| {
            let mut stream = TcpStream::connect(address).expect("the server listens");
            let request =
                format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
            stream
                .write_all(request.as_bytes())
                .expect("the request is sent");
            stream
        };
        let mut page = String::new();
        ask("/").read_to_string(&mut page).expect("a page");
        let (_, rest) = page.split_once("data-token=\"").expect("a token");
        let (token, _) = rest.split_once('"').expect("a token");
        let events = ask(&format!("/live/events?token={token}"));
        let timeout = Some(Duration::from_secs(60));
        events.set_read_timeout(timeout).expect("a timeout");
        let mut live = Live {
            copy_root: copy.root.clone(),
            server,
            events: BufReader::new(events),
        };
        live.wait_for("event: book");
        live
    }

    /// Waits for a line that contains `text`.
    fn wait_for(&mut self, text: &str) {
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            let read = self.events.read_line(&mut line).expect("an event");
            assert!(read > 0, "the server has ended");
        }
    }

    /// Returns the time from an edit of a page to the event for it.
    pub fn time_of_page(&mut self, round: usize) -> Duration {
        let page = self.copy_root.join("book/src/fork.md");
        let text = fs::read_to_string(&page).expect("a page") + &format!("\nEdit {round}.\n");
        let begun = Instant::now();
        fs::write(&page, text).expect("the copy can be changed");
        self.wait_for("event: book");
        begun.elapsed()
    }

    /// Returns the time from a line in the log to the event for it.
    pub fn time_of_verdict(&mut self, round: usize) -> Duration {
        // Each round hits a different phase of the server's polling interval.
        thread::sleep(Duration::from_millis(17 * round as u64));
        let log = self.copy_root.join(".workbook/log.jsonl");
        let passed = 1000 + round;
        let stage = StageCount {
            name: "by_hand".to_owned(),
            bonus: false,
            count: Count {
                passed,
                ..Count::default()
            },
            failure: None,
        };
        let record = Record::Exercise(Graded {
            at: now(),
            exercise: "private-alloc".to_owned(),
            solved: false,
            stages: vec![stage],
        });
        let line = serde_json::to_string(&record).expect("JSON") + "\n";
        let mut log = OpenOptions::new().append(true).open(log).expect("a log");
        let begun = Instant::now();
        log.write_all(line.as_bytes())
            .expect("the log can be written");
        self.wait_for(&format!("\"passed\":{passed},"));
        begun.elapsed()
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
