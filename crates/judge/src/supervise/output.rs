//! Reads the output of a case that has ended.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::visible::visible;

/// The number of lines that a learner is shown.
const LINES: usize = 40;
/// The number of bytes, from the end, that are read.
const BYTES: usize = 64 << 10;
/// The longest line, in bytes, that is shown whole.
const WIDEST: usize = 2000;

/// The end of the output, as the lines to show.
pub fn read(file: &File) -> Vec<String> {
    let len = file.metadata().map_or(0, |data| data.len());
    let mut bytes = vec![0; BYTES.min(len as usize)];
    let from = len - bytes.len() as u64;
    if let Err(error) = file.read_exact_at(&mut bytes, from) {
        let line = format!("(the output cannot be read: {error})");
        return vec![line];
    }
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.split_terminator('\n').collect();
    let skipped = lines.len().saturating_sub(LINES);
    let mut shown = Vec::new();
    if skipped > 0 || from > 0 {
        shown.push(format!("(the last {LINES} lines of {len} bytes)"));
    }
    let end = |line: &str| line.floor_char_boundary(WIDEST);
    let lines = lines[skipped..].iter();
    shown.extend(lines.map(|line| match line.len() > WIDEST {
        true => format!("{}… ({} bytes)", visible(&line[..end(line)]), line.len()),
        false => visible(line),
    }));
    shown
}
