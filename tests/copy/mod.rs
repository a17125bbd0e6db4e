//! A copy of the clone, whose answers may be overwritten. It builds into the clone's target directory, where the
//! dependencies are built already; it does not lie there, because trybuild would print other paths.
//!
//! Its crates have a version of their own. Cargo names what it builds by a crate's name, version and place in its
//! workspace: with the clone's version the two would share their graders, and the older file would count as built.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

/// A copy of the clone.
pub struct Copy {
    /// Where it is.
    pub root: PathBuf,
    /// Where it builds.
    pub target: PathBuf,
}

impl Copy {
    /// Makes the copy of that name, or brings it up to date.
    pub fn make(name: &str) -> Copy {
        let clone = workbook::root::find().expect("a clone");
        let target = workbook::cargo::target(&clone).expect("cargo knows its target directory");
        let root = clone.join(".workbook").join(name);
        if root.exists() {
            // A file that has gone must go here too; what is built is elsewhere.
            fs::remove_dir_all(&root).expect("the old copy goes away");
        }
        fs::create_dir_all(&root).expect("a folder for the copy");
        for part in [
            "Cargo.toml",
            "Cargo.lock",
            ".cargo",
            "src",
            "exercises",
            "solutions",
            "tests",
            "book",
        ] {
            copy_all(&clone.join(part), &root.join(part)).expect("the clone can be copied");
        }
        let manifest = root.join("Cargo.toml");
        let text = fs::read_to_string(&manifest).expect("a manifest");
        let version = concat!("version = \"", env!("CARGO_PKG_VERSION"));
        let own = text.replacen(version, &format!("{version}+{name}"), 1);
        assert_ne!(own, text, "the workspace has no {version}\"");
        fs::write(&manifest, own).expect("the copy can be changed");
        // Whatever the reader has answered so far: here nothing is answered yet.
        for exercise in workbook::exercise::Exercise::all(&root).expect("exercises") {
            let stub = exercise.tests().join("answers/stub.rs");
            fs::copy(stub, exercise.folder().join("src/lib.rs")).expect("a stub");
        }
        Copy { root, target }
    }

    /// The reference solution.
    pub fn solution(&self) -> String {
        let path = self.root.join("solutions/src/private_alloc.rs");
        fs::read_to_string(path).expect("there is a solution")
    }

    /// Makes `text` the learner's answer.
    pub fn answer(&self, text: &str) {
        self.answer_to("private-alloc", text);
    }

    /// Makes `text` the learner's answer to that exercise.
    pub fn answer_to(&self, exercise: &str, text: &str) {
        let path = self.root.join(format!("exercises/{exercise}/src/lib.rs"));
        fs::write(path, text).expect("the answer can be written");
    }

    /// The program, as it is run in the copy.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(&self.root)
            .env("WORKBOOK_ROOT", &self.root)
            .env("CARGO_TARGET_DIR", &self.target)
            .env_remove("WORKBOOK_HOME")
            .env_remove("JUDGE_NO_PTRACE");
        command
    }
}

/// Copies with the time of the last change: to cargo a file that is newer has changed.
fn copy_all(from: &Path, to: &Path) -> io::Result<()> {
    let about = fs::symlink_metadata(from)?;
    if about.is_symlink() {
        return std::os::unix::fs::symlink(fs::read_link(from)?, to);
    }
    if about.is_dir() {
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)? {
            let name = entry?.file_name();
            copy_all(&from.join(&name), &to.join(&name))?;
        }
        return Ok(());
    }
    fs::copy(from, to)?;
    fs::File::options()
        .append(true)
        .open(to)?
        .set_modified(about.modified()?)
}
