//! What every part of the workbook knows of a clone: its root, its exercises, the progress log, how to call cargo, and
//! how to run a process.

pub mod cargo;
pub mod exercise;
pub mod log;
pub mod process;
pub mod root;
