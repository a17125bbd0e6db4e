//! Checks the answer's files before anything reads them: reading a FIFO or a device might never end.

use std::fs::{self, FileType};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use course::exercise::Exercise;
use proc_macro2::{TokenStream, TokenTree};
use syn::Lit;

/// The most files that an answer may have, which also ends a circle of links.
const FILES: usize = 1000;

/// The most bytes that an answer may have.
const BYTES: u64 = 16 << 20;

/// Checks every file below the answer's `src`, and the files that they include.
///
/// # Errors
/// Returns an error if one is no regular file or cannot be read, if they are too many or too large, or if an included file
/// is outside of the exercise.
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
                "{} is too large: an answer may have at most 16 MiB",
                shown(root, &path)
            );
            if path.extension().is_some_and(|extension| extension == "rs") {
                check_included(exercise, &path)?;
            }
        }
    }
    Ok(())
}

/// Checks the files that the source at `path` includes.
fn check_included(exercise: &Exercise, path: &Path) -> Result<()> {
    let name = shown(&exercise.root, path);
    let text = fs::read(path).with_context(|| name.clone())?;
    let folder = path.parent().unwrap_or(path);
    for included in included(&String::from_utf8_lossy(&text)) {
        // The compiler reports a file that is not there.
        let Ok(file) = folder.join(&included).canonicalize() else {
            continue;
        };
        let inside = file.starts_with(exercise.folder().canonicalize()?);
        ensure!(
            inside && file.is_file(),
            "{name} includes {included}; an answer includes only regular files of exercises/{}",
            exercise.name
        );
    }
    Ok(())
}

/// The paths in `include!`, `include_str!`, `include_bytes!` and `#[path]`, as far as they are literals. Source that rustc
/// could not read either includes nothing.
fn included(source: &str) -> Vec<String> {
    let mut paths = Vec::new();
    // A stream of tokens, and whether it is part of an attribute.
    let mut streams: Vec<(TokenStream, bool)> = Vec::new();
    streams.extend(source.parse().map(|stream| (stream, false)));
    while let Some((stream, in_attribute)) = streams.pop() {
        let tokens: Vec<_> = stream.into_iter().collect();
        for (index, token) in tokens.iter().enumerate() {
            if let TokenTree::Group(group) = token {
                let begins = index > 0 && is_mark(&tokens[index - 1], '#');
                streams.push((group.stream(), in_attribute || begins));
            }
            paths.extend(named_by(&tokens[index..], in_attribute));
        }
    }
    paths
}

/// The path, if `tokens` begin with `include!("path")`, or in an attribute with `path = "path"`.
fn named_by(tokens: &[TokenTree], in_attribute: bool) -> Option<String> {
    let [TokenTree::Ident(name), mark, value, ..] = tokens else {
        return None;
    };
    let includes = ["include", "include_str", "include_bytes"];
    let literal = match value {
        TokenTree::Group(group)
            if is_mark(mark, '!') && includes.iter().any(|known| name == known) =>
        {
            group.stream().into_iter().next()?
        }
        literal if is_mark(mark, '=') && in_attribute && name == "path" => literal.clone(),
        _ => return None,
    };
    match literal {
        TokenTree::Literal(literal) => match Lit::new(literal) {
            Lit::Str(path) => Some(path.value()),
            _ => None,
        },
        _ => None,
    }
}

fn is_mark(token: &TokenTree, mark: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == mark)
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

#[cfg(test)]
mod tests {
    use super::included;

    #[test]
    fn included_files_are_found_wherever_they_are_named() {
        let source = r##"
            const A: &[u8] = include_bytes!("/dev/zero");
            fn f() { let path = "not this"; std::include!{r"b.rs"} }
            #[path = "../c.rs"]
            mod c;
            #[cfg_attr(all(), path = "../d.rs")]
            mod d;
            // include_str!("a comment")
            const D: &str = include_str!(concat!("e", ".txt"));
        "##;
        let mut found = included(source);
        found.sort();
        assert_eq!(found, ["../c.rs", "../d.rs", "/dev/zero", "b.rs"]);
        assert!(included("fn unfinished( {").is_empty());
    }
}
