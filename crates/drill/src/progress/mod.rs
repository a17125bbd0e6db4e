//! What the learner knows, and what to ask next.

mod interleave;
pub mod plan;
pub mod schedule;
pub mod state;
pub mod stats;
