//! Output buffered before fork appears twice if the child ends with exit(3), and once if it ends with _exit(2).
//!
//! Claims: 27.

use std::fs::File;
use std::io::Read;
use std::process;

use lab::sharing::Child;
use nix::unistd::{dup2_stdout, pipe};

/// Runs a process that prints "once " and forks a child, which ends with `end`. Returns the output of both.
fn printed(end: fn() -> i32) -> String {
    let (reads, writes) = pipe().expect("pipe");
    let writer = Child::start(|| {
        dup2_stdout(writes).expect("dup2");
        // ANCHOR: main
        print!("once ");
        let child = Child::start(end);
        assert_eq!(child.exit_code(), 0);
        process::exit(0)
        // ANCHOR_END: main
    });
    let mut text = String::new();
    File::from(reads).read_to_string(&mut text).expect("read");
    assert_eq!(writer.exit_code(), 0);
    text
}

fn main() {
    let exit = printed(|| process::exit(0));
    // `Child` passes the result of its closure to _exit.
    let by_underscore_exit = printed(|| 0);
    println!("exit:  {}", exit.trim_end());
    println!("_exit: {}", by_underscore_exit.trim_end());
    assert_eq!((&*exit, &*by_underscore_exit), ("once once ", "once "));
}
