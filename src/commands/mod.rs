//! The commands: one file each.

pub mod bench;
pub mod class;
pub mod doctor;
pub mod drill;
pub mod grade;
pub mod handout;
pub mod hint;
pub mod list;
pub mod new;
pub mod programs;
pub mod read;
pub mod reset;
pub mod solution;
