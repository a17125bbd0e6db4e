//! The judge's report: a file in memory, to which the judge appends a line for each case.
//!
//! The file has no name, so a case, which does not inherit the descriptor, cannot find it. Each line carries a key that
//! only the judge knows.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::Deserialize;

use crate::grade::grader::Case;

/// The longest line that is read, in bytes.
const LONGEST: usize = 16 << 20;

#[derive(Debug)]
pub struct Report {
    file: File,
    key: String,
    /// The number of bytes that have been read.
    read: u64,
    /// The beginning of a line whose end has not been written yet.
    partial: Vec<u8>,
    /// The number of verdicts that do not carry the key.
    pub forged: usize,
}

/// A file without a name.
///
/// # Errors
/// Returns an error if the kernel has no memory or no descriptor left.
pub fn in_memory() -> io::Result<File> {
    Ok(memfd_create(c"grader", MFdFlags::MFD_CLOEXEC)?.into())
}

impl Report {
    /// # Errors
    /// Returns an error if the kernel has no memory or no descriptor left.
    pub fn new() -> io::Result<Report> {
        let mut key = [0; 16];
        File::open("/dev/urandom")?.read_exact(&mut key)?;
        Ok(Report {
            file: in_memory()?,
            key: format!("{:032x}", u128::from_ne_bytes(key)),
            read: 0,
            partial: Vec::new(),
            forged: 0,
        })
    }

    /// Makes the judge that `command` starts write to this report.
    pub fn pass_to(&self, command: &mut Command) {
        let fd = self.file.as_raw_fd();
        command
            .env("JUDGE_REPORT", format!("/proc/self/fd/{fd}"))
            .env("JUDGE_REPORT_KEY", &self.key);
        // SAFETY: between fork and exec the closure makes one system call.
        unsafe { command.pre_exec(move || keep_on_exec(fd)) };
    }

    /// Returns the verdicts that were written since the last call.
    ///
    /// # Errors
    /// Returns an error if the report cannot be read.
    pub fn new_verdicts(&mut self) -> io::Result<Vec<Case>> {
        let mut cases = Vec::new();
        let mut bytes = [0; 8192];
        loop {
            let count = self.file.read_at(&mut bytes, self.read)?;
            if count == 0 {
                return Ok(cases);
            }
            self.read += count as u64;
            for part in bytes[..count].split_inclusive(|byte| *byte == b'\n') {
                self.partial.extend_from_slice(part);
                if part.ends_with(b"\n") {
                    let line = std::mem::take(&mut self.partial);
                    cases.extend(self.verdict(&line));
                }
                self.partial.truncate(LONGEST);
            }
        }
    }

    /// A line that is no verdict has no effect: it may have been written by a judge that was killed meanwhile.
    fn verdict(&mut self, line: &[u8]) -> Option<Case> {
        #[derive(Deserialize)]
        struct Keyed {
            #[serde(default)]
            key: String,
            #[serde(flatten)]
            case: Case,
        }
        let line: Keyed = serde_json::from_slice(line).ok()?;
        if line.key != self.key {
            self.forged += 1;
            return None;
        }
        Some(line.case)
    }
}

/// Clears the flag with which the file was created. Until then no program that another thread starts inherits it.
pub fn keep_on_exec(fd: RawFd) -> io::Result<()> {
    // SAFETY: the call takes numbers.
    let result = unsafe { libc::fcntl(fd, libc::F_SETFD, 0) };
    Errno::result(result)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn line(key: &str, case: &str) -> String {
        format!(
            r#"{{"key":"{key}","case":"{case}","verdict":"passed","kind":"passed","sentence":null}}"#
        )
    }

    fn names(report: &mut Report) -> Vec<String> {
        let cases = report.new_verdicts().expect("a report");
        cases.into_iter().map(|case| case.name).collect()
    }

    #[test]
    fn only_verdicts_with_the_key_count() {
        let mut report = Report::new().expect("a report");
        let mut judge = report.file.try_clone().expect("a descriptor");
        let key = report.key.clone();
        let forged = [line("", "a::b"), line("wrong", "a::c"), line(&key, "a::d")];
        judge
            .write_all((forged.join("\n") + "\n").as_bytes())
            .expect("a line");
        assert_eq!(names(&mut report), ["a::d"]);
        assert_eq!(report.forged, 2);
    }

    #[test]
    fn a_line_that_is_no_verdict_costs_no_other_one() {
        let mut report = Report::new().expect("a report");
        let mut judge = report.file.try_clone().expect("a descriptor");
        let good = line(&report.key, "a::b");
        judge.write_all(b"\xff\xfe\n{\n[1]\n").expect("a line");
        judge.write_all(good.as_bytes()).expect("a line");
        assert_eq!(names(&mut report), [""; 0]);
        judge.write_all(b"\n").expect("a line");
        assert_eq!(names(&mut report), ["a::b"]);
        assert_eq!(report.forged, 0);
    }
}
