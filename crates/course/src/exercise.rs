//! An exercise: its folder's manifest says what it is, and its name finds everything else.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// One exercise, as its `Cargo.toml` describes it.
#[derive(Debug, Clone)]
pub struct Exercise {
    /// The package's name, and the folder's: `private-alloc`.
    pub name: String,
    /// Where the clone is.
    pub root: PathBuf,
    /// What the manifest says of it.
    pub about: About,
}

/// `[package.metadata.workbook]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// For people.
    pub title: String,
    /// The place in the book, from 1.
    pub order: u32,
    /// The book's page, from `book/src`.
    pub page: String,
    /// What a learner can do afterwards.
    pub objectives: Vec<String>,
    /// In their order.
    pub stages: Vec<Stage>,
}

/// A part of an exercise that is solved and graded on its own.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// The module of its cases in the grader.
    pub name: String,
    /// For people.
    pub title: String,
    /// Estimated.
    pub minutes: u32,
    /// Whether the exercise is solved without it.
    #[serde(default)]
    pub bonus: bool,
}

impl Exercise {
    /// Every exercise, in the book's order.
    ///
    /// # Errors
    /// If a manifest cannot be read.
    pub fn all(root: &Path) -> Result<Vec<Exercise>> {
        let mut exercises = Vec::new();
        for entry in fs::read_dir(root.join("exercises"))? {
            let folder = entry?.path();
            if folder.join("Cargo.toml").is_file() {
                exercises.push(Exercise::read(root, &folder)?);
            }
        }
        exercises.sort_by_key(|exercise| exercise.about.order);
        Ok(exercises)
    }

    /// The exercise of that name.
    ///
    /// # Errors
    /// If there is none, or its manifest cannot be read.
    pub fn find(root: &Path, name: &str) -> Result<Exercise> {
        let all = Exercise::all(root)?;
        let names: Vec<_> = all.iter().map(|exercise| exercise.name.clone()).collect();
        match all.into_iter().find(|exercise| exercise.name == name) {
            Some(exercise) => Ok(exercise),
            None => bail!("there is no exercise {name}: there is {}", names.join(", ")),
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

    /// The crate, with the learner's `src/lib.rs`.
    pub fn folder(&self) -> PathBuf {
        self.root.join("exercises").join(&self.name)
    }

    /// The learner's file.
    pub fn answer(&self) -> PathBuf {
        self.folder().join("src/lib.rs")
    }

    /// What grades it.
    pub fn tests(&self) -> PathBuf {
        self.root.join("tests").join(&self.name)
    }

    /// The name that the code knows it by: `private_alloc`.
    pub fn library(&self) -> String {
        self.name.replace('-', "_")
    }

    /// The reference solution's file.
    pub fn solution(&self) -> PathBuf {
        let file = format!("{}.rs", self.library());
        self.root.join("solutions/src").join(file)
    }

    /// The stage of that name.
    ///
    /// # Errors
    /// If there is none.
    pub fn stage(&self, name: &str) -> Result<&Stage> {
        let stages = &self.about.stages;
        match stages.iter().find(|stage| stage.name == name) {
            Some(stage) => Ok(stage),
            None => {
                let names: Vec<_> = stages.iter().map(|stage| stage.name.as_str()).collect();
                bail!(
                    "{} has no stage {name}: its stages are {}",
                    self.name,
                    names.join(", ")
                )
            }
        }
    }
}
