//! The questions in other forms: the book's pages, and a deck for Anki.

pub mod anki;
mod markdown;
pub mod pages;
