//! Finds the clone that a command works on, and the folder of the learner's own data.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

/// Returns the root of the clone that the current directory lies in. `WORKBOOK_ROOT`, if set, names a directory to
/// start from instead.
///
/// The root is never compiled in, so a copied or renamed clone works on itself.
///
/// # Errors
/// Returns an error if no parent directory is a clone, or if the clone has another version than this program.
pub fn find() -> Result<PathBuf> {
    let start = match env::var_os("WORKBOOK_ROOT") {
        Some(root) => PathBuf::from(root),
        None => env::current_dir().context("the current directory cannot be read")?,
    };
    let start = start
        .canonicalize()
        .with_context(|| format!("{} cannot be opened", start.display()))?;
    for folder in start.ancestors() {
        if let Some(version) = version_of(folder)? {
            ensure_same_version(folder, &version)?;
            return Ok(folder.to_owned());
        }
    }
    bail!(
        "{} is not inside a clone of the workbook: change to your clone, or set WORKBOOK_ROOT to its path",
        start.display()
    )
}

/// Returns the version that the clone's manifest states, or `None` if `folder` is not the root of a clone.
fn version_of(folder: &Path) -> Result<Option<String>> {
    #[derive(Deserialize)]
    struct Manifest {
        workspace: Option<Workspace>,
    }
    #[derive(Deserialize)]
    struct Workspace {
        package: Option<Package>,
    }
    #[derive(Deserialize)]
    struct Package {
        version: String,
    }
    let path = folder.join("Cargo.toml");
    if !folder.join("exercises").is_dir() || !path.is_file() {
        return Ok(None);
    }
    let text = fs::read_to_string(&path);
    let text = text.with_context(|| format!("{} cannot be read", path.display()))?;
    let manifest: Manifest =
        toml::from_str(&text).with_context(|| format!("{} is not valid", path.display()))?;
    let package = manifest.workspace.and_then(|workspace| workspace.package);
    Ok(package.map(|package| package.version))
}

/// Build metadata (`+…`) is ignored: the tests give their copies of the clone a different version.
fn ensure_same_version(clone: &Path, version: &str) -> Result<()> {
    let release = |version: &str| version.split('+').next().map(str::to_owned);
    let own = env!("CARGO_PKG_VERSION");
    ensure!(
        release(version) == release(own),
        "this program is version {own}, but the clone in {} is version {version}: run `cargo run` there",
        clone.display()
    );
    Ok(())
}

/// Returns the folder of the learner's own data: the log, kept files, and the separate target directory.
/// `WORKBOOK_HOME` names it; by default it is `.workbook` in the clone.
pub fn home(root: &Path) -> PathBuf {
    let set = env::var_os("WORKBOOK_HOME");
    // Absolute, so that a child process with another current directory finds the same folder.
    let set = set.and_then(|home| std::path::absolute(home).ok());
    set.unwrap_or_else(|| root.join(".workbook"))
}

/// Returns whether inotify may miss changes below `path`: on a network file system, or on a Windows drive under WSL.
pub fn is_on_a_network(path: &Path) -> bool {
    use nix::sys::statfs;
    const V9FS: i64 = 0x0102_1997;
    const CIFS: i64 = 0xff53_4d42;
    const SMB2: i64 = 0xfe53_4d42;
    let Ok(about) = statfs::statfs(path) else {
        return false;
    };
    let kind = about.filesystem_type().0;
    [V9FS, CIFS, SMB2, statfs::NFS_SUPER_MAGIC.0].contains(&kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_is_refused() {
        let clone = Path::new("/clone");
        let own = env!("CARGO_PKG_VERSION");
        assert!(ensure_same_version(clone, own).is_ok());
        assert!(ensure_same_version(clone, &format!("{own}+copy")).is_ok());
        let error = ensure_same_version(clone, "99.0.0").expect_err("another version");
        assert!(error.to_string().contains("version 99.0.0"), "{error}");
    }

    #[test]
    fn a_folder_without_exercises_is_not_a_clone() {
        let folder = tempfile::tempdir().expect("a folder");
        let manifest = "[workspace.package]\nversion = \"1.2.3\"\n";
        fs::write(folder.path().join("Cargo.toml"), manifest).expect("a manifest");
        assert_eq!(version_of(folder.path()).expect("readable"), None);
        fs::create_dir(folder.path().join("exercises")).expect("a folder");
        let version = version_of(folder.path()).expect("readable");
        assert_eq!(version.as_deref(), Some("1.2.3"));
    }
}
