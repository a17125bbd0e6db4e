//! What a student has submitted: one file, or a folder with `src/lib.rs` or `lib.rs`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use nix::libc;

use super::hash;
use crate::grade::visible::visible;

/// The most bytes that an answer may have.
const BYTES: u64 = 1 << 20;

/// The most files and folders that an answer may have.
const FILES: usize = 1000;

/// The most bytes of a path in an answer. The kernel's limit, of 4 KiB, includes the folder to which it is written.
const PATH: usize = 1000;

/// The sources of an answer: the text of each file by its path in `src`.
#[derive(Debug)]
pub struct Submission(BTreeMap<PathBuf, String>);

impl Submission {
    /// Reads a submission. Symbolic links are not followed.
    ///
    /// # Errors
    /// Returns an error, with a sentence for the student, if it is no answer.
    pub fn read(path: &Path) -> Result<Submission> {
        let about = fs::symlink_metadata(path).context("there is no submission")?;
        let mut files = BTreeMap::new();
        if about.is_dir() {
            let folder = folder_of_sources(path)?;
            read_all(&folder, &folder, &mut files)?;
        } else {
            files.insert("lib.rs".into(), read_file(path, "the submission", BYTES)?);
        }
        Ok(Submission(files))
    }

    /// Writes the sources to the folder `to`.
    ///
    /// # Errors
    /// Returns an error if a file cannot be written.
    pub fn write(&self, to: &Path) -> Result<()> {
        for (path, text) in &self.0 {
            let path = to.join(path);
            let folder = path.parent().unwrap_or(to);
            fs::create_dir_all(folder)
                .and_then(|()| fs::write(&path, text))
                .with_context(|| format!("{} cannot be written", shown(&path)))?;
        }
        Ok(())
    }

    /// A word in the sources that few answers need, and with which one could interfere with its grading.
    pub fn unusual(&self) -> Option<&'static str> {
        const UNUSUAL: [&str; 11] = [
            "link_section",
            "link_name",
            "arch::",
            "JUDGE_",
            "env::var",
            "/environ",
            "/syscall",
            "self/mem",
            "PROT_EXEC",
            "sigaction",
            "static environ",
        ];
        let is_part = |word: &&str| self.0.values().any(|text| text.contains(word));
        UNUSUAL.into_iter().find(is_part)
    }

    /// The SHA-256 of the only file, or of all files with their names.
    ///
    /// # Errors
    /// Returns an error if it cannot be computed.
    pub fn hash(&self) -> Result<String> {
        let lib = self.0.get(Path::new("lib.rs"));
        if let (Some(text), 1) = (lib, self.0.len()) {
            return hash::of(text.as_bytes());
        }
        let files = self.0.iter().map(|(path, text)| (path, text.as_bytes()));
        hash::of_files(files)
    }
}

/// The student's name: that of the file without `.rs`, or of the folder.
///
/// # Errors
/// Returns an error if the path has no name, or one that is not UTF-8.
pub fn student(path: &Path) -> Result<String> {
    let path = std::path::absolute(path)?;
    let is_file = path.extension().is_some_and(|ending| ending == "rs");
    let name = match path.file_name() {
        Some(name) if name == "lib.rs" => path.parent().and_then(Path::file_name),
        Some(_) if is_file => path.file_stem(),
        name => name,
    };
    let name = name.and_then(|name| name.to_str());
    let name = name.with_context(|| format!("{} has no name in UTF-8", shown(&path)))?;
    Ok(name.to_owned())
}

fn folder_of_sources(folder: &Path) -> Result<PathBuf> {
    let source = folder.join("src");
    let is_folder =
        |path: &Path| fs::symlink_metadata(path).is_ok_and(|about| about.file_type().is_dir());
    // A symbolic link is refused later, with its own sentence.
    let exists = |path: PathBuf| fs::symlink_metadata(&path).is_ok() && !is_folder(&path);
    if is_folder(&source) && exists(source.join("lib.rs")) {
        return Ok(source);
    }
    ensure!(
        exists(folder.join("lib.rs")),
        "the submission has no src/lib.rs and no lib.rs"
    );
    Ok(folder.to_owned())
}

/// Reads the `.rs` files below `folder`.
fn read_all(root: &Path, folder: &Path, files: &mut BTreeMap<PathBuf, String>) -> Result<()> {
    let (mut seen, mut left) = (0, BYTES);
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let cannot_be_read = || format!("{} cannot be read", shown(&folder));
        for entry in fs::read_dir(&folder).with_context(cannot_be_read)? {
            let path = entry.with_context(cannot_be_read)?.path();
            seen += 1;
            ensure!(
                seen <= FILES,
                "the submission has more than {FILES} files and folders"
            );
            let name = path.strip_prefix(root).unwrap_or(&path).to_owned();
            let shown = shown(&name);
            ensure!(
                name.as_os_str().len() <= PATH,
                "the path {shown} has more than {PATH} bytes; nest fewer folders"
            );
            let about = fs::symlink_metadata(&path);
            let about = about.with_context(|| format!("{shown} cannot be read"))?;
            let kind = about.file_type();
            if kind.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let text = read_file(&path, &shown, left)?;
                left -= text.len() as u64;
                files.insert(name, text);
            } else {
                ensure!(
                    !kind.is_symlink(),
                    "{shown} is a symbolic link; submit the file itself"
                );
            }
        }
    }
    Ok(())
}

/// The path for a sentence, which cannot control a terminal, without the middle if it is long.
pub fn shown(path: &Path) -> String {
    const MOST: usize = 200;
    let path = visible(&path.display().to_string()).replace('\n', "\\n");
    let (begin, end) = (
        path.floor_char_boundary(MOST / 2),
        path.ceil_char_boundary(path.len().saturating_sub(MOST / 2)),
    );
    match path.len() > MOST {
        true => format!("{}…{}", &path[..begin], &path[end..]),
        false => path,
    }
}

/// Reads a regular file of at most `most` bytes. Opening a FIFO, or a device, does not wait.
fn read_file(path: &Path, shown: &str, most: u64) -> Result<String> {
    let mut options = File::options();
    options
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY);
    let file = match options.open(path) {
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            bail!("{shown} is a symbolic link; submit the file itself")
        }
        file => file.with_context(|| format!("{shown} cannot be read"))?,
    };
    let cannot_be_read = || format!("{shown} cannot be read");
    ensure!(
        file.metadata().with_context(cannot_be_read)?.is_file(),
        "{shown} is not a regular file; submit a file with Rust code"
    );
    let mut bytes = Vec::new();
    let mut limited = file.take(most + 1);
    limited
        .read_to_end(&mut bytes)
        .with_context(cannot_be_read)?;
    ensure!(
        bytes.len() as u64 <= most,
        "the submission is too large: it may have at most {} KiB",
        BYTES >> 10
    );
    String::from_utf8(bytes).ok().with_context(|| {
        format!("{shown} is not UTF-8 text; submit the source file, not an archive or a document")
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn refused(path: &Path) -> String {
        let error = Submission::read(path).expect_err("it is no answer");
        error.to_string()
    }

    #[test]
    fn a_file_and_a_folder_are_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        fs::write(root.join("alice.rs"), "fn a() {}\n").expect("a file");
        let file = Submission::read(&root.join("alice.rs")).expect("an answer");
        let of_text = hash::of(b"fn a() {}\n").expect("a hash");
        assert_eq!(file.hash().expect("a hash"), of_text);
        fs::create_dir_all(root.join("bob/src/deep")).expect("folders");
        for path in [
            "src/lib.rs",
            "src/deep/more.rs",
            "src/notes.txt",
            "build.rs",
        ] {
            fs::write(root.join("bob").join(path), path).expect("a file");
        }
        let folder = Submission::read(&root.join("bob")).expect("an answer");
        let names: Vec<_> = folder.0.keys().map(|path| path.to_str()).collect();
        assert_eq!(names, [Some("deep/more.rs"), Some("lib.rs")]);
        assert_eq!(student(&root.join("alice.rs")).expect("a name"), "alice");
        assert_eq!(student(&root.join("bob")).expect("a name"), "bob");
        assert_eq!(student(&root.join("bob/lib.rs")).expect("a name"), "bob");
    }

    #[test]
    fn what_is_no_answer_is_refused_with_a_sentence() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        let link = root.join("link.rs");
        symlink("/etc/hostname", &link).expect("a link");
        assert!(refused(&link).contains("is a symbolic link"));
        for name in ["linked", "circle", "empty", "large", "fifo"] {
            fs::create_dir(root.join(name)).expect("a folder");
        }
        symlink("/etc/hostname", root.join("linked/lib.rs")).expect("a link");
        assert!(refused(&root.join("linked")).contains("lib.rs is a symbolic link"));
        fs::write(root.join("circle/lib.rs"), "").expect("a file");
        symlink(".", root.join("circle/again")).expect("a link");
        assert!(refused(&root.join("circle")).contains("again is a symbolic link"));
        assert!(refused(&root.join("empty")).contains("has no src/lib.rs"));
        assert!(refused(&root.join("missing.rs")).contains("there is no submission"));
        fs::write(root.join("large/lib.rs"), vec![b' '; 1 << 20]).expect("a file");
        assert!(Submission::read(&root.join("large")).is_ok());
        fs::write(root.join("large/more.rs"), " ").expect("a file");
        assert!(refused(&root.join("large")).contains("may have at most 1024 KiB"));
        fs::write(root.join("bytes.rs"), [0xff, 0xfe]).expect("a file");
        assert!(refused(&root.join("bytes.rs")).contains("UTF-8"));
        let fifo = root.join("fifo/lib.rs");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
        assert!(refused(&root.join("fifo")).contains("not a regular file"));
    }

    /// Such as a folder that an archive has unpacked into itself. Its paths are longer than the kernel's limit.
    #[test]
    fn folders_that_are_too_deep_are_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("deep");
        fs::create_dir(&root).expect("a folder");
        fs::write(root.join("lib.rs"), "").expect("a file");
        let mut parent = File::open(&root).expect("a folder");
        let name = "d".repeat(250);
        for _ in 0..20 {
            let mode = nix::sys::stat::Mode::S_IRWXU;
            nix::sys::stat::mkdirat(&parent, name.as_str(), mode).expect("a folder");
            let flags = nix::fcntl::OFlag::O_DIRECTORY;
            let child = nix::fcntl::openat(&parent, name.as_str(), flags, mode);
            parent = child.expect("a folder").into();
        }
        let sentence = refused(&root);
        assert!(sentence.starts_with("the path ddd"), "{sentence}");
        assert!(sentence.len() < 400, "{sentence}");
        let removed = std::process::Command::new("rm")
            .arg("-rf")
            .arg(&root)
            .status();
        assert!(removed.expect("rm starts").success());
    }

    #[test]
    fn an_error_names_the_path() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        let answer = Submission(BTreeMap::from([("a/lib.rs".into(), String::new())]));
        fs::write(root.join("a"), "").expect("a file");
        let error = answer
            .write(root)
            .expect_err("there is a file in place of a folder");
        let place = root.join("a/lib.rs");
        let expected = format!("{} cannot be written: ", place.display());
        assert!(format!("{error:#}").starts_with(&expected), "{error:#}");
    }
}
