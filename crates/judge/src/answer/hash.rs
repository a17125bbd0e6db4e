//! A hash of an answer's files.
//!
//! `exercises/build.rs` also includes this module. The hash of the standard library may change between versions, but
//! both users are compiled by the same toolchain.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::{fs, io};

/// The most files and folders that an answer may have.
const MOST: usize = 1000;

/// Returns a hash of the paths and contents of all files below `folder`.
pub fn hash_of(folder: &Path) -> io::Result<u64> {
    let mut files: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    let mut seen = 0;
    while let Some(current) = folders.pop() {
        for entry in fs::read_dir(current)? {
            let path = entry?.path();
            // A link that leads nowhere, such as an editor's lock, is not part of the answer.
            let Ok(about) = fs::metadata(&path) else {
                continue;
            };
            if about.is_dir() {
                folders.push(path);
                seen += 1;
            } else if about.is_file() {
                let name = path.strip_prefix(folder).unwrap_or(&path).to_owned();
                files.insert(name, fs::read(&path)?);
                seen += 1;
            } else {
                // Reading a FIFO or a device might never end.
                let error = format!("{} is not a regular file", path.display());
                return Err(io::Error::other(error));
            }
            if seen > MOST {
                let error = format!(
                    "{} has too many files, or links in a circle",
                    folder.display()
                );
                return Err(io::Error::other(error));
            }
        }
    }
    let mut hasher = DefaultHasher::new();
    files.hash(&mut hasher);
    Ok(hasher.finish())
}
