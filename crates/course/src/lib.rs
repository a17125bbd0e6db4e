//! What all programs of the workbook share: finding the clone, its exercises, the progress log, running cargo and other
//! processes, and medians.

pub mod cargo;
pub mod exercise;
pub mod log;
pub mod patience;
pub mod process;
pub mod root;
pub mod statistics;
