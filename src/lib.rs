//! What the `workbook` command is made of. It starts cargo and the graders as processes, and links no answer.

pub mod candidates;
pub mod cargo;
pub mod exercise;
pub mod grade;
pub mod grader;
pub mod hint;
pub mod list;
pub mod root;
mod show;
mod verdicts;
mod words;
