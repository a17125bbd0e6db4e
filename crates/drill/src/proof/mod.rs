//! Proves an answer on this machine: runs a program of the lab, or compiles a written answer, and compares.

pub mod machine;
mod prover;
mod result;
mod written;

pub use prover::Prover;
pub use result::Proof;
pub use written::check_written;
