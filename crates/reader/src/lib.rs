//! Builds and serves the book: its elements, live verdicts, and programs run on the reader's own kernel.

pub mod book;
pub mod elements;
pub mod exercise;
pub mod listings;
pub mod preprocess;
pub mod serve;
