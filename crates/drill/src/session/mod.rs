//! A session asks questions, and records each grade before it asks the next question.

mod answer;
mod ask;
mod draft;
mod drill;
mod grade;
mod lesson;
mod mock;
mod review;
mod run;
mod tally;
mod write;

pub use drill::Drill;
