//! A session asks questions, and records each grade before it asks the next question.

mod answer;
mod ask;
mod drill;
mod grade;
mod lesson;
mod mock;
mod review;
mod run;
mod tally;

pub use drill::Drill;
