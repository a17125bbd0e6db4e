//! The parts of the `workbook` command. It starts cargo and the graders as processes, and links no answer.

pub mod class;
pub mod commands;
pub mod grade;
mod progress;
pub mod terminal;
pub mod watch;
