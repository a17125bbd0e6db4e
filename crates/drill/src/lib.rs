//! The drill: it asks the book's questions, proves the answers on this machine, and knows when to ask again.

pub mod anki;
pub mod ask;
pub mod bank;
pub mod book;
pub mod clock;
pub mod history;
pub mod lesson;
pub mod lint;
pub mod machine;
pub mod matching;
pub mod mock;
pub mod pages;
pub mod pick;
pub mod prove;
pub mod question;
pub mod schedule;
pub mod session;
pub mod show;
pub mod source;
pub mod stats;
pub mod terminal;
