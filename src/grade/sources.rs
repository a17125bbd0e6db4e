//! Checks the answer's files before anything reads them: reading a FIFO or a device might never end.

use std::fs::{self, FileType};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use course::exercise::Exercise;

/// The most files that an answer may have, which also ends a circle of links.
const FILES: usize = 1000;

/// The most bytes that an answer may have.
const BYTES: u64 = 16 << 20;

/// Checks every file below the answer's `src`.
///
/// # Errors
/// Returns an error if one is no regular file or cannot be read, or if they are too many or too large.
pub fn check(exercise: &Exercise) -> Result<()> {
    let root = &exercise.root;
    let answer = exercise.answer();
    // A missing file is reported after the build, together with what brings it back.
    if let Ok(about) = fs::metadata(&answer) {
        expect_file(root, &answer, about.file_type())?;
    }
    let (mut files, mut bytes) = (0, 0);
    let mut folders = vec![exercise.folder().join("src")];
    while let Some(folder) = folders.pop() {
        let name = shown(root, &folder);
        let Ok(entries) = fs::read_dir(&folder) else {
            ensure!(!folder.exists(), "{name} cannot be read");
            continue;
        };
        for entry in entries {
            let path = entry.with_context(|| name.clone())?.path();
            files += 1;
            ensure!(
                files <= FILES,
                "{name} has more than {FILES} files, or links in a circle"
            );
            // A link that leads nowhere, such as an editor's lock, is not read.
            let Ok(about) = fs::metadata(&path) else {
                continue;
            };
            if about.is_dir() {
                folders.push(path);
                continue;
            }
            expect_file(root, &path, about.file_type())?;
            bytes += about.len();
            ensure!(
                bytes <= BYTES,
                "{} is too large: an answer may have 16 MiB",
                shown(root, &path)
            );
        }
    }
    Ok(())
}

fn expect_file(root: &Path, path: &Path, kind: FileType) -> Result<()> {
    let name = shown(root, path);
    let kind = match kind {
        kind if kind.is_file() => return Ok(()),
        kind if kind.is_dir() => "a directory",
        kind if kind.is_fifo() => "a FIFO (named pipe)",
        kind if kind.is_socket() => "a socket",
        _ => "a device",
    };
    bail!(
        "{name} is {kind}; an answer has only regular files. Move it away; `cargo run -- reset` restores the stub"
    )
}

fn shown(root: &Path, path: &Path) -> String {
    path.strip_prefix(root)
        .unwrap_or(path)
        .display()
        .to_string()
}
