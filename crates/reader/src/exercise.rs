//! The exercises, as their manifests describe them: what the book shows of them.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

/// One exercise.
#[derive(Debug, Clone)]
pub struct Exercise {
    /// The package's name: `private-alloc`.
    pub name: String,
    /// What the manifest says of it.
    pub about: About,
}

/// `[package.metadata.workbook]`, as far as the book shows it.
#[derive(Debug, Clone, Deserialize)]
pub struct About {
    /// For people.
    pub title: String,
    /// The place in the book, from 1.
    pub order: u32,
    /// The book's page, from `book/src`.
    pub page: String,
    /// In their order.
    pub stages: Vec<Stage>,
}

/// A part of an exercise.
#[derive(Debug, Clone, Deserialize)]
pub struct Stage {
    /// As verdicts call it.
    pub name: String,
    /// For people.
    pub title: String,
    /// Estimated.
    pub minutes: u32,
    /// Whether the exercise is solved without it.
    #[serde(default)]
    pub bonus: bool,
}

/// Every exercise of the clone, in the book's order.
///
/// # Errors
/// If a manifest cannot be read.
pub fn all(clone: &Path) -> Result<Vec<Exercise>> {
    let mut exercises = Vec::new();
    let folder = clone.join("exercises");
    let entries = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    for entry in entries {
        let manifest = entry?.path().join("Cargo.toml");
        if manifest.is_file() {
            let read = read(&manifest);
            exercises.push(read.with_context(|| manifest.display().to_string())?);
        }
    }
    exercises.sort_by_key(|exercise: &Exercise| exercise.about.order);
    Ok(exercises)
}

fn read(manifest: &Path) -> Result<Exercise> {
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
    let manifest: Manifest = toml::from_str(&fs::read_to_string(manifest)?)?;
    Ok(Exercise {
        name: manifest.package.name,
        about: manifest.package.metadata.workbook,
    })
}
