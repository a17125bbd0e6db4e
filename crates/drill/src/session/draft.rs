//! The unfinished code of a `write` question. It is a file, so that neither Ctrl-C nor an editor loses it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::drill::Drill;
use crate::bank::question::{Language, Question};
use crate::input::lend_terminal;

pub(super) struct Draft {
    path: PathBuf,
}

impl Draft {
    /// Returns the draft of a question, beside the log.
    pub(super) fn of(drill: &Drill, question: &Question, language: Language) -> Draft {
        let folder = drill.log.path().parent().unwrap_or(Path::new("."));
        let extension = match language {
            Language::C => "c",
            Language::Rust => "rs",
        };
        let name = format!("{}.{extension}", question.id);
        Draft {
            path: folder.join("drafts").join(name),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the code; `None` if there is none. Invalid UTF-8 is replaced.
    pub(super) fn read(&self) -> Option<String> {
        let code = fs::read(&self.path).ok()?;
        let code = String::from_utf8_lossy(&code);
        let code = code.trim_end();
        (!code.is_empty()).then(|| code.to_owned())
    }

    /// Keeps the last attempt as `NAME~`, before another one is written.
    pub(super) fn set_aside(&self) {
        // Fails if there is none.
        let _ = fs::rename(&self.path, self.backup());
    }

    fn backup(&self) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push("~");
        name.into()
    }

    /// # Errors
    /// Returns an error if the file cannot be written.
    pub(super) fn write(&self, code: &str) -> Result<()> {
        let write = || -> io::Result<()> {
            if let Some(folder) = self.path.parent() {
                fs::create_dir_all(folder)?;
            }
            fs::write(&self.path, format!("{code}\n"))
        };
        write().with_context(|| format!("{} cannot be written", self.path.display()))
    }

    /// Removes the code, which the learner has graded.
    pub(super) fn remove(&self) {
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_file(self.backup());
    }

    /// Opens the code in the learner's editor, and returns it.
    ///
    /// # Errors
    /// Returns an error if the editor fails. The code is then as the editor has left it.
    pub(super) fn edit(&self) -> Result<Option<String>> {
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let editor = set("VISUAL").or_else(|| set("EDITOR"));
        let editor = editor.unwrap_or_else(|| "vi".to_owned());
        let mut command = Command::new("sh");
        // Through the shell, because the variable may contain options.
        let command = command.args(["-c", &format!("{editor} \"$1\""), "sh"]);
        let status = lend_terminal(|| command.arg(&self.path).status());
        let status = status.context("sh cannot be started")?;
        ensure!(status.success(), "the editor {editor} failed ({status})");
        Ok(self.read())
    }
}
