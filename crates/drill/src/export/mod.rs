//! The questions in other forms: the book's pages, and decks for Anki.

pub mod anki;
mod markdown;
pub mod package;
pub mod pages;
