//! Grades `warm-up`. Each stage is a module, and each test is a case.

mod flag;

judge::answer!();
