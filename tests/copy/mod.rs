//! A copy of the clone, whose answers may be overwritten. It builds into the clone's target directory, where the
//! dependencies are built already. It is not inside that directory, because trybuild would print other paths.
//!
//! Its packages have another version. Cargo derives the names of build results from a package's name, version and path
//! in the workspace, so with the same version a copy would overwrite the clone's graders.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

pub struct Copy {
    pub root: PathBuf,
    /// The target directory that it shares with the clone.
    pub target: PathBuf,
}

impl Copy {
    /// Makes the copy with that name, and replaces an older one.
    pub fn make(name: &str) -> Copy {
        Copy::with_version_of(name, name)
    }

    /// Makes the copy with that name, and with the version of another copy.
    pub fn with_version_of(name: &str, version_of: &str) -> Copy {
        let clone = course::root::find().expect("a clone");
        let root = clone.join(".workbook").join(name);
        if root.exists() {
            fs::remove_dir_all(&root).expect("the old copy can be removed");
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
            "crates",
        ] {
            copy_all(&clone.join(part), &root.join(part)).expect("the clone can be copied");
        }
        let copy = Copy::adopt(root, version_of);
        // The clone's files may be answers already.
        copy.reset();
        copy
    }

    /// Makes the stub of each exercise its answer.
    pub fn reset(&self) {
        for exercise in course::exercise::Exercise::all(&self.root).expect("exercises") {
            fs::copy(exercise.stub(), exercise.answer()).expect("a stub");
        }
    }

    /// Uses a folder in the clone that is a copy already, and gives it another version.
    pub fn adopt(root: PathBuf, version: &str) -> Copy {
        for manifest in ["Cargo.toml", "crates/Cargo.toml"] {
            let manifest = root.join(manifest);
            let text = fs::read_to_string(&manifest).expect("a manifest");
            let own = concat!("version = \"", env!("CARGO_PKG_VERSION"));
            let changed = text.replacen(own, &format!("{own}+{version}"), 1);
            assert_ne!(changed, text, "the workspace has no {own}\"");
            fs::write(&manifest, changed).expect("the copy can be changed");
        }
        let clone = course::root::find().expect("a clone");
        let target = course::cargo::target(&clone).expect("cargo knows its target directory");
        Copy { root, target }
    }

    /// The reference solution of private-alloc.
    pub fn solution(&self) -> String {
        self.solution_of("private-alloc")
    }

    /// The reference solution of that exercise.
    pub fn solution_of(&self, exercise: &str) -> String {
        let file = format!("solutions/src/{}.rs", exercise.replace('-', "_"));
        fs::read_to_string(self.root.join(file)).expect("a solution")
    }

    /// Makes `text` the answer to private-alloc.
    pub fn answer(&self, text: &str) {
        self.answer_to("private-alloc", text);
    }

    /// Makes `text` the answer to that exercise.
    pub fn answer_to(&self, exercise: &str, text: &str) {
        let path = self.root.join(format!("exercises/{exercise}/src/lib.rs"));
        fs::write(path, text).expect("the answer can be written");
    }

    /// A command that runs the program in the copy.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(&self.root)
            .env("CARGO_TARGET_DIR", &self.target)
            .env_remove("WORKBOOK_ROOT")
            .env_remove("WORKBOOK_HOME")
            .env_remove("JUDGE_NO_PTRACE");
        command
    }
}

/// Copies files with their modification times, by which cargo decides what to build.
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
