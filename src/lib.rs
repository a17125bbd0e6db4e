//! What the `workbook` command is made of. It starts cargo and the graders as processes, and links no answer.

pub mod bench;
pub mod candidates;
pub mod cargo;
pub mod doctor;
pub mod drill;
pub mod exercise;
pub mod grade;
pub mod grader;
pub mod hint;
pub mod list;
pub mod progress;
pub mod read;
mod report;
pub mod reset;
pub mod root;
mod show;
pub mod solution;
pub mod state;
mod stub;
pub mod verdicts;
pub mod watch;
pub mod words;
