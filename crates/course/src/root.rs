//! Where the workbook's clone is, and the folder of what the reader did.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

/// The clone's root: `WORKBOOK_ROOT` where that is set, otherwise where the command was built.
///
/// # Errors
/// If there is no workbook there (any more).
pub fn find() -> Result<PathBuf> {
    let built = || PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let root = env::var_os("WORKBOOK_ROOT").map_or_else(built, PathBuf::from);
    ensure!(
        root.join("exercises").is_dir(),
        "there is no workbook in {}: start it with `cargo run` in your clone",
        root.display()
    );
    Ok(root.canonicalize()?)
}

/// The folder of what the reader did, and of what is built apart: `WORKBOOK_HOME` where that is set, otherwise
/// `.workbook` in the clone.
pub fn home(root: &Path) -> PathBuf {
    let set = env::var_os("WORKBOOK_HOME");
    // What is started elsewhere is to find the same folder.
    let set = set.and_then(|home| std::path::absolute(home).ok());
    set.unwrap_or_else(|| root.join(".workbook"))
}

/// Whether the kernel may not tell of changes there: a network's file system, or a foreign one below WSL's /mnt.
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
