//! What is built once for an exercise, and used for every submission.
//!
//! These are the dependencies, the grader with the stub, which is the judge of all submissions, and the compiler's
//! commands and incremental data for an answer. With them, an answer is compiled by two calls of rustc, without cargo.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use course::exercise::Exercise;
use course::log::Verdict;
use course::process::{self, Limits};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::submission::Submission;
use super::work::{self, Graded};
use super::{Isolation, hash, library, result};
use crate::grade::candidates::{Candidate, Workspace};
use crate::grade::compile_fail::Library;
use crate::grade::grader::is_untraced;
use crate::grade::slot::{self, Rustc};
use crate::warn;

/// An exercise for which everything is built. It stays so until this is dropped.
pub struct Prepared {
    pub exercise: Exercise,
    /// The SHA-256 of the graders, the judge, this command and the toolchain, and whether cases are not traced.
    pub graders: String,
    pub isolation: Isolation,
    /// The folder of the toolchain.
    pub toolchain: PathBuf,
    /// The workspace, in which the answer is a package.
    pub folder: PathBuf,
    pub target: PathBuf,
    /// What compiles the answer and the grader.
    pub commands: [Rustc; 2],
    pub built: Built,
    /// The symbols of the standard library.
    pub symbols: BTreeSet<String>,
    /// The cases that were skipped for the solution; `None` if there is no solution.
    skipped: Option<BTreeSet<String>>,
    lock: File,
}

/// What is recorded about the build.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Built {
    graders: String,
    /// The folder of the package.
    pub package: PathBuf,
    /// The test binary. Each submission has its own at the same path in its sandbox.
    pub program: PathBuf,
    pub library: Library,
}

/// The folder of everything that is kept for classes.
pub fn folder(root: &Path) -> PathBuf {
    root.join(".workbook/class")
}

impl Prepared {
    /// Builds what is missing or older than the graders. Other processes wait meanwhile.
    ///
    /// # Errors
    /// Returns an error if something cannot be built, or if the solution does not earn all points.
    pub fn new(exercise: &Exercise, isolation: Isolation) -> Result<Prepared> {
        let class = folder(&exercise.root);
        fs::create_dir_all(&class)
            .with_context(|| format!("{} cannot be created", class.display()))?;
        let folder = class.join(&exercise.name);
        let graders = hash_of_graders(exercise)?;
        let lock = open_lock(&class.join("lock"))?;
        if lock.try_lock_shared().is_err() {
            warn!("Waiting for another command, which prepares an exercise.");
            lock.lock_shared()?;
        }
        let skipped = folder.join(skipped_here());
        if read(&folder, &graders).is_none() || !skipped.is_file() {
            lock.unlock()?;
            if lock.try_lock().is_err() {
                warn!("Waiting for another command, which grades with what is to be built again.");
                lock.lock()?;
            }
        }
        let built = match read(&folder, &graders) {
            Some(built) => built,
            None => build(exercise, &class, &folder, &graders)?,
        };
        let mut prepared = Prepared {
            commands: slot::recorded_commands(&folder.join("recorded"), exercise)?,
            exercise: exercise.clone(),
            graders: match is_untraced() {
                true => graders + " untraced",
                false => graders,
            },
            isolation,
            toolchain: toolchain(&exercise.root)?,
            target: class.join("target"),
            symbols: read_json(&folder.join(SYMBOLS))?,
            folder,
            built,
            skipped: None,
            lock,
        };
        if !skipped.is_file() {
            result::write_json(&skipped, &prepared.grade_solution()?)?;
        }
        prepared.skipped = read_json(&skipped)?;
        // From here on, others may use it, too.
        prepared.lock.lock_shared()?;
        Ok(prepared)
    }

    /// Whether the machine skips the case for every answer, as far as that is known.
    pub fn may_be_skipped(&self, case: &str) -> bool {
        let known = self.skipped.as_ref();
        known.is_none_or(|known| known.contains(case))
    }

    /// The judge: the grader with the stub.
    pub fn judge(&self) -> PathBuf {
        self.folder.join(JUDGE)
    }

    /// Grades the solution, which must earn all points, and returns the cases that are skipped here. Returns `None` if
    /// there is no solution.
    fn grade_solution(&self) -> Result<Option<BTreeSet<String>>> {
        let solution = self.exercise.solution();
        if self.isolation == Isolation::Container || self.exercise.ensure_solution().is_err() {
            return Ok(None);
        }
        let submission = Submission::read(&solution)?;
        let verdicts = match work::grade(self, &submission, SOLUTIONS_TIME)? {
            Graded::Verdicts(verdicts) => verdicts,
            Graded::Rejected { note, compiler } => {
                bail!("the solution cannot be graded: {note}\n{compiler}")
            }
        };
        let mut skipped = BTreeSet::new();
        for case in verdicts.stages.iter().flat_map(|stage| &stage.cases) {
            match case.verdict {
                Verdict::Passed => {}
                Verdict::Skipped => {
                    skipped.insert(case.name.clone());
                }
                _ => bail!(
                    "the solution does not pass {}, so no answer can be graded here: {}",
                    case.name,
                    case.sentence.as_deref().unwrap_or_default()
                ),
            }
        }
        Ok(Some(skipped))
    }
}

/// What the cases of the solution may take all together.
const SOLUTIONS_TIME: Duration = Duration::from_secs(60 * 60);

/// The record of a finished build.
const BUILT: &str = "built.json";
const JUDGE: &str = "judge";
const SYMBOLS: &str = "symbols.json";

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read_to_string(path);
    let text = text.with_context(|| format!("{} cannot be read", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is damaged: remove it", path.display()))
}

fn read(folder: &Path, graders: &str) -> Option<Built> {
    let text = fs::read_to_string(folder.join(BUILT)).ok()?;
    let built: Built = serde_json::from_str(&text).ok()?;
    (built.graders == graders).then_some(built)
}

fn open_lock(path: &Path) -> Result<File> {
    let mut options = File::options();
    options.create(true).truncate(false).write(true);
    let file = options.open(path);
    file.with_context(|| format!("{} cannot be opened", path.display()))
}

fn build(exercise: &Exercise, class: &Path, folder: &Path, graders: &str) -> Result<Built> {
    warn!(
        "Preparing {}: the first time, this takes a minute or two.",
        exercise.name
    );
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let flag = name_symbols_by_chance(class)?;
    let stub = exercise.stub();
    let first = Candidate {
        exercise,
        name: "class".to_owned(),
        source: fs::read_to_string(&stub).with_context(|| stub.display().to_string())?,
    };
    let target = class.join("target");
    let workspace = Workspace::write_to(&exercise.root, folder.to_owned(), target, &first)?;
    let recorded = folder.join("recorded");
    let grader = slot::record(&workspace, &first, &recorded, true)?;
    let commands = slot::recorded_commands(&recorded, exercise)?;
    ensure!(
        commands.iter().all(|command| command.has(&flag)),
        "cargo does not use the flags in {}: unset RUSTFLAGS and CARGO_ENCODED_RUSTFLAGS, and remove \
         `target.….rustflags` from your cargo configuration",
        class.join(".cargo/config.toml").display()
    );
    let judge = folder.join(JUDGE);
    fs::copy(&grader.binary, &judge)
        .with_context(|| format!("{} cannot be written", judge.display()))?;
    let built = Built {
        graders: graders.to_owned(),
        package: grader.package,
        program: grader.binary,
        library: grader.library.context("the answer is a library")?,
    };
    let symbols = library::symbols(&standard_library(&exercise.root)?)?;
    result::write_json(&folder.join(SYMBOLS), &symbols)?;
    result::write_json(&folder.join(BUILT), &built)?;
    Ok(built)
}

/// Gives the symbols of all that is built in this folder other names than in every other clone: each has a hash of the
/// compiler's `metadata`. By its name, an answer could call a function of the judge, such as the one that returns the secret
/// of a case.
///
/// Returns the compiler's flag, which is random.
fn name_symbols_by_chance(class: &Path) -> Result<String> {
    const BEGIN: &str = "[build]\nrustflags = [\"";
    const END: &str = "\"]\n";
    let config = class.join(".cargo/config.toml");
    if let Ok(text) = fs::read_to_string(&config)
        && let Some(flag) = text
            .strip_prefix(BEGIN)
            .and_then(|text| text.strip_suffix(END))
    {
        return Ok(flag.to_owned());
    }
    let mut number = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut number)?;
    let flag = format!("-Cmetadata={:032x}", u128::from_ne_bytes(number));
    result::write(&config, &format!("{BEGIN}{flag}{END}"))?;
    Ok(flag)
}

/// The files of the standard library, with which an answer is linked. Its symbols have the same names everywhere.
fn standard_library(root: &Path) -> Result<Vec<PathBuf>> {
    let folder = rustc(root, &["--print", "target-libdir"])?;
    let entries = fs::read_dir(folder.trim_end()).with_context(|| folder.clone())?;
    let mut libraries = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "rlib") {
            libraries.push(path);
        }
    }
    Ok(libraries)
}

/// The file with the cases that were skipped for the solution. The nodes of a cluster share a clone, and may have
/// different kernels.
fn skipped_here() -> String {
    let untraced = if is_untraced() { "-untraced" } else { "" };
    format!("skipped-{}{untraced}.json", kernel())
}

/// The release of the kernel.
pub fn kernel() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.trim_end().to_owned()
}

/// The folder of the toolchain that builds the clone.
fn toolchain(root: &Path) -> Result<PathBuf> {
    Ok(rustc(root, &["--print", "sysroot"])?.trim_end().into())
}

fn rustc(root: &Path, arguments: &[&str]) -> Result<String> {
    const LIMITS: Limits = Limits::time(Duration::from_secs(60));
    let mut command = Command::new("rustc");
    command.args(arguments).current_dir(root);
    let ran = process::run(&mut command, LIMITS).context("rustc cannot be started")?;
    ensure!(
        ran.success(),
        "rustc {}: {}",
        ran.describe(),
        ran.stderr.trim()
    );
    Ok(ran.stdout)
}

/// The SHA-256 of everything on which a verdict depends, apart from the answer and the machine.
fn hash_of_graders(exercise: &Exercise) -> Result<String> {
    let root = &exercise.root;
    let mut paths = Vec::new();
    for part in ["Cargo.toml", "Cargo.lock", ".cargo/config.toml"] {
        paths.push(root.join(part));
    }
    let parts = ["crates/judge", "crates/course", "src/grade", "src/class"];
    let mut folders: Vec<PathBuf> = parts.iter().map(|part| root.join(part)).collect();
    folders.push(exercise.folder());
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
        for entry in entries {
            let path = entry?.path();
            // The answer is not part of the grader.
            if path == exercise.folder().join("src") {
                continue;
            }
            let endings = ["rs", "toml", "snap", "stderr"];
            let ending = path.extension().and_then(|ending| ending.to_str());
            if path.is_dir() {
                folders.push(path);
            } else if ending.is_some_and(|ending| endings.contains(&ending)) {
                paths.push(path);
            }
        }
    }
    paths.sort();
    let mut files = vec![(
        PathBuf::from("rustc"),
        rustc(root, &["--version", "--verbose"])?.into_bytes(),
    )];
    for path in paths {
        let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
        files.push((path.strip_prefix(root)?.to_owned(), bytes));
    }
    hash::of_files(files.iter().map(|(path, bytes)| (path, bytes.as_slice())))
}
