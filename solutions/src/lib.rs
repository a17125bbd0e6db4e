//! The reference solutions, one module per exercise; each file is also a whole `src/lib.rs` of its exercise.
