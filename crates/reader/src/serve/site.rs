//! The built book, in memory. A request is looked up among the files that were built and never becomes a path.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use axum::http::HeaderValue;
use mime_guess::mime;

use crate::book;

/// One build of the book.
#[derive(Debug)]
pub struct Site {
    /// The number of the build, from 1.
    pub build: u64,
    files: BTreeMap<String, File>,
}

/// A page, or a file that a page needs.
#[derive(Debug)]
pub struct File {
    pub content_type: HeaderValue,
    bytes: Vec<u8>,
}

impl Site {
    pub fn build(book: &Path, build: u64) -> Result<Site> {
        let folder = tempfile::tempdir().context("no temporary folder can be created")?;
        book::build(book, folder.path())?;
        let mut files = BTreeMap::new();
        let mut folders = vec![folder.path().to_owned()];
        while let Some(current) = folders.pop() {
            for entry in fs::read_dir(current)? {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let name = path.strip_prefix(folder.path())?.to_string_lossy();
                let file = File {
                    content_type: content_type(&path)?,
                    bytes: fs::read(&path)?,
                };
                files.insert(format!("/{name}"), file);
            }
        }
        Ok(Site { build, files })
    }

    /// Returns the file with that path in a URL.
    pub fn file(&self, path: &str) -> Option<&File> {
        match path {
            "/" => self.files.get("/index.html"),
            path => self.files.get(path),
        }
    }
}

impl File {
    /// Returns the body to send. In a page, a `<meta>` element tells the scripts that the page is served live.
    pub fn body(&self, token: &str, build: u64) -> Vec<u8> {
        const END: &str = "</head>";
        let html = match std::str::from_utf8(&self.bytes) {
            Ok(text) if self.content_type.as_bytes().starts_with(b"text/html") => text,
            _ => return self.bytes.clone(),
        };
        let meta = format!(
            "<meta name=\"workbook-live\" data-token=\"{token}\" data-build=\"{build}\">{END}"
        );
        html.replacen(END, &meta, 1).into_bytes()
    }
}

fn content_type(path: &Path) -> Result<HeaderValue> {
    let kind = mime_guess::from_path(path).first_or_octet_stream();
    let text = match kind.type_() == mime::TEXT {
        true => format!("{kind}; charset=utf-8"),
        false => kind.to_string(),
    };
    Ok(HeaderValue::from_str(&text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_of_the_files_that_mdbook_writes() {
        for (file, expected) in [
            ("index.html", "text/html; charset=utf-8"),
            ("theme/workbook.css", "text/css; charset=utf-8"),
            ("toc.js", "text/javascript; charset=utf-8"),
            ("favicon.svg", "image/svg+xml"),
            ("fonts/open-sans.woff2", "font/woff2"),
            ("traces/shared.json", "application/json"),
            (".nojekyll", "application/octet-stream"),
        ] {
            let found = content_type(Path::new(file)).expect("a content type");
            assert_eq!(found, expected, "{file}");
        }
    }
}
