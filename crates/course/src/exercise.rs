//! An exercise: the description in its manifest, and the paths of its files.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

#[derive(Debug, Clone)]
pub struct Exercise {
    /// The name of the package and of its folder, such as `private-alloc`.
    pub name: String,
    /// The root of the clone.
    pub root: PathBuf,
    pub about: About,
}

/// The table `[package.metadata.workbook]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    pub title: String,
    /// The position in the book.
    pub order: u32,
    /// The path of the book's page, relative to `book/src`.
    pub page: String,
    pub objectives: Vec<String>,
    /// In the order in which they are solved.
    pub stages: Vec<Stage>,
}

/// A part of an exercise that is solved and graded separately.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// The name of its module in the grader.
    pub name: String,
    pub title: String,
    /// An estimate of how long it takes.
    pub minutes: u32,
    /// What the stage is worth in a class; by default its minutes.
    #[serde(default)]
    pub points: Option<u32>,
    /// Whether the exercise counts as solved without this stage.
    #[serde(default)]
    pub bonus: bool,
    /// Code of the stub that fails cases of the stage. While the answer has all of it, they are not started.
    #[serde(default)]
    pub begins_by_changing: Vec<String>,
    /// The cases that it fails, besides the compile-fail cases.
    #[serde(default)]
    pub fails_until_changed: Vec<String>,
}

impl Stage {
    /// What the stage is worth in a class.
    pub fn points(&self) -> u32 {
        self.points.unwrap_or(self.minutes)
    }
}

impl Exercise {
    /// Returns every exercise of the clone, in the book's order.
    ///
    /// # Errors
    /// Returns an error if a manifest cannot be read.
    pub fn all(root: &Path) -> Result<Vec<Exercise>> {
        let mut exercises = Vec::new();
        let folder = root.join("exercises");
        let entries = fs::read_dir(&folder);
        for entry in entries.with_context(|| format!("{} cannot be read", folder.display()))? {
            let folder = entry?.path();
            if folder.join("Cargo.toml").is_file() {
                exercises.push(Exercise::read(root, &folder)?);
            }
        }
        exercises.sort_by_key(|exercise| exercise.about.order);
        Ok(exercises)
    }

    /// Returns the exercise with that name.
    ///
    /// # Errors
    /// Returns an error if there is none, or if a manifest cannot be read.
    pub fn find(root: &Path, name: &str) -> Result<Exercise> {
        let all = Exercise::all(root)?;
        let names: Vec<_> = all.iter().map(|exercise| exercise.name.clone()).collect();
        let stage_of = all.iter().find(|exercise| exercise.stage(name).is_ok());
        let stage_of = stage_of.map(|exercise| exercise.name.clone());
        match all.into_iter().find(|exercise| exercise.name == name) {
            Some(exercise) => Ok(exercise),
            None if stage_of.is_some() => bail!(
                "{name} is a stage; name its exercise first, as in `{} {name}`",
                stage_of.unwrap_or_default()
            ),
            None => bail!(
                "there is no exercise {name}; the exercises are {}",
                names.join(", ")
            ),
        }
    }

    fn read(root: &Path, folder: &Path) -> Result<Exercise> {
        #[derive(Deserialize)]
        struct Manifest {
            package: Package,
        }
        #[derive(Deserialize)]
        struct Package {
            name: String,
            metadata: Metadata,
        }
        #[derive(Deserialize)]
        struct Metadata {
            workbook: About,
        }
        let path = folder.join("Cargo.toml");
        let read = || -> Result<Manifest> { Ok(toml::from_str(&fs::read_to_string(&path)?)?) };
        let manifest = read().with_context(|| format!("{} cannot be read", path.display()))?;
        Ok(Exercise {
            name: manifest.package.name,
            root: root.to_owned(),
            about: manifest.package.metadata.workbook,
        })
    }

    /// Returns the stage with that name.
    ///
    /// # Errors
    /// Returns an error if there is none.
    pub fn stage(&self, name: &str) -> Result<&Stage> {
        let stages = &self.about.stages;
        match stages.iter().find(|stage| stage.name == name) {
            Some(stage) => Ok(stage),
            None => {
                let names: Vec<_> = stages.iter().map(|stage| stage.name.as_str()).collect();
                bail!(
                    "{} has no stage {name}; its stages are {}",
                    self.name,
                    names.join(", ")
                )
            }
        }
    }

    /// The name of the library in code, such as `private_alloc`.
    pub fn library(&self) -> String {
        self.name.replace('-', "_")
    }

    pub fn folder(&self) -> PathBuf {
        self.root.join("exercises").join(&self.name)
    }

    /// The learner's file.
    pub fn answer(&self) -> PathBuf {
        self.folder().join("src/lib.rs")
    }

    /// A pristine copy of the stub, for `reset`.
    pub fn stub(&self) -> PathBuf {
        self.folder().join("stub.rs")
    }

    /// The folder of the grader's source, its snapshots and its compile-fail cases.
    pub fn grader(&self) -> PathBuf {
        self.folder().join("tests/grader")
    }

    /// The system calls that the solution makes in each watched case, as recorded by the exam.
    pub fn solution_calls(&self) -> PathBuf {
        self.folder().join("solution-calls.snap")
    }

    /// The file of the reference solution.
    pub fn solution(&self) -> PathBuf {
        let file = format!("{}.rs", self.library());
        self.root.join("solutions/src").join(file)
    }

    /// # Errors
    /// Returns an error if the reference solution is not there: a handout for students has a copy of the stub in its
    /// place.
    pub fn ensure_solution(&self) -> Result<()> {
        let read = |path: PathBuf| fs::read(&path).with_context(|| path.display().to_string());
        ensure!(
            read(self.solution())? != read(self.stub())?,
            "this copy of the workbook has no solutions: ask whoever gave it to you"
        );
        Ok(())
    }

    /// The folder of the exam's answers, `right` and `wrong`.
    pub fn answers(&self) -> PathBuf {
        self.root.join("tests/answers").join(&self.name)
    }
}
