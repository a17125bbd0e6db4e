//! The built book in memory: a request finds a page by its name among those that were built, and no file by its path.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::book;

/// One build of the book.
#[derive(Debug)]
pub struct Site {
    /// Counts the builds.
    pub number: u64,
    pages: BTreeMap<String, Page>,
}

/// A page, or what it needs.
#[derive(Debug)]
pub struct Page {
    /// Its content type.
    pub kind: &'static str,
    bytes: Vec<u8>,
}

impl Site {
    /// Builds the book into a folder that is gone afterwards.
    pub fn build(book: &Path, number: u64) -> Result<Site> {
        let folder = tempfile::tempdir().context("a folder for the book")?;
        book::build(book, folder.path())?;
        let mut pages = BTreeMap::new();
        let mut folders = vec![folder.path().to_owned()];
        while let Some(current) = folders.pop() {
            for entry in fs::read_dir(current)? {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let name = path.strip_prefix(folder.path())?.to_string_lossy();
                let page = Page {
                    kind: kind(&path),
                    bytes: fs::read(&path)?,
                };
                pages.insert(format!("/{name}"), page);
            }
        }
        Ok(Site { number, pages })
    }

    /// The page of that name, as it stands in a URL.
    pub fn page(&self, name: &str) -> Option<&Page> {
        match name {
            "/" => self.pages.get("/index.html"),
            name => self.pages.get(name),
        }
    }
}

impl Page {
    /// What is sent: a page says to its scripts that it is live.
    pub fn body(&self, token: &str, build: u64) -> Vec<u8> {
        const END: &str = "</head>";
        let html = match std::str::from_utf8(&self.bytes) {
            Ok(text) if self.kind.starts_with("text/html") => text,
            _ => return self.bytes.clone(),
        };
        let meta = format!(
            "<meta name=\"workbook-live\" data-token=\"{token}\" data-build=\"{build}\">{END}"
        );
        html.replacen(END, &meta, 1).into_bytes()
    }
}

fn kind(path: &Path) -> &'static str {
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("json") => "application/json",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("woff2") => "font/woff2",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}
