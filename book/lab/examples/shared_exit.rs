//! Output that waits in a buffer at the fork comes twice where the child ends by exit(3), and once with _exit(2).
//! Claims: 27.

use std::fs::File;
use std::io::Read;
use std::process;

use lab::sharing::Child;
use nix::unistd::{dup2_stdout, pipe};

/// What arrives of "once " where a process prints it before it forks, and the forked one ends by `end`.
fn printed(end: fn() -> i32) -> String {
    let (reads, writes) = pipe().expect("pipe");
    let writer = Child::start(|| {
        dup2_stdout(writes).expect("dup2");
        // ANCHOR: main
        print!("once ");
        let child = Child::start(end);
        assert_eq!(child.status(), 0);
        process::exit(0)
        // ANCHOR_END: main
    });
    let mut text = String::new();
    File::from(reads).read_to_string(&mut text).expect("read");
    assert_eq!(writer.status(), 0);
    text
}

fn main() {
    let exit = printed(|| process::exit(0));
    // `Child` ends by _exit with the status that it is given.
    let at_once = printed(|| 0);
    println!("exit:  {}", exit.trim_end());
    println!("_exit: {}", at_once.trim_end());
    assert_eq!((&*exit, &*at_once), ("once once ", "once "));
}
