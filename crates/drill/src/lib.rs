//! The drill: asks the book's questions, proves the answers on this machine, and schedules when to ask again.

pub mod bank;
pub mod clock;
pub mod export;
pub mod input;
pub mod matching;
pub mod progress;
pub mod proof;
pub mod session;
pub mod terminal;
