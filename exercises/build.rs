//! Compiles a hash of `src` into an exercise's grader, so that the judge detects a grader of another version.

#[path = "../crates/judge/src/answer/hash.rs"]
mod hash;

use std::io;
use std::path::Path;

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=src");
    let hash = hash::hash_of(Path::new("src"))?;
    println!("cargo::rustc-env=ANSWER_HASH={hash}");
    Ok(())
}
