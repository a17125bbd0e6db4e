//! The allocator: the learner's with the feature `learner`, otherwise the solution's.

#[cfg(not(feature = "learner"))]
use solutions::threshold_alloc as answer;
#[cfg(feature = "learner")]
use threshold_alloc as answer;

pub use answer::{Config, ThresholdAlloc};
