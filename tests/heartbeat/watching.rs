//! A running `workbook watch`, with the time of each line that it prints.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub struct Watching {
    child: Child,
    lines: Receiver<(Instant, String)>,
}

impl Watching {
    /// Starts the command and waits for its first verdicts.
    pub fn begin(mut command: Command) -> Watching {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command
            .stderr(Stdio::null())
            .spawn()
            .expect("the command starts");
        let (sender, lines) = mpsc::channel();
        let stdout = child.stdout.take().expect("a pipe was requested");
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send((Instant::now(), line));
            }
        });
        let watching = Watching { child, lines };
        watching.wait_for(|line| line.contains(" passed"));
        watching
    }

    fn wait_for(&self, wanted: impl Fn(&str) -> bool) -> Instant {
        loop {
            let received = self.lines.recv_timeout(Duration::from_secs(120));
            let (at, line) = received.expect("a line");
            if wanted(&line) {
                return at;
            }
        }
    }

    /// Returns the times from a save to the verdicts on behaviour, and to all verdicts.
    pub fn times(&self, save: impl FnOnce()) -> (Duration, Duration) {
        // Skip the output that belongs to an earlier save.
        while self.lines.recv_timeout(Duration::from_millis(1500)).is_ok() {}
        let begun = Instant::now();
        save();
        let stages = self.wait_for(|line| line.contains("populate "));
        let all = self.wait_for(|line| line.contains(" passed"));
        (stages - begun, all - begun)
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("the process exists");
    }

    pub fn pause(&self) {
        while self.lines.recv_timeout(Duration::from_millis(1500)).is_ok() {}
        self.signal(Signal::SIGSTOP);
    }

    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    pub fn end(&mut self) {
        let mut stdin = self.child.stdin.as_ref().expect("a pipe was requested");
        writeln!(stdin, "q").expect("the command reads its input");
        self.child.wait().expect("the exit status");
    }
}
