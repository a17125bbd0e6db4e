//! A judge that is stopped for a while, for example by Ctrl-Z.

use std::env;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use judge::{Limits, observe};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

#[test]
fn time_in_which_the_judge_is_stopped_does_not_count() {
    const AGAIN: &str = "IS_STOPPED";
    if env::var_os(AGAIN).is_some() {
        let limits = Limits {
            wall: Duration::from_secs(3),
            ..Limits::default()
        };
        let outcome = observe(limits, || sleep(Duration::from_millis(1500)));
        assert_eq!(outcome.sentence(), None);
        return;
    }
    let program = env::current_exe().expect("the test program");
    let mut judge = Command::new(program)
        .env(AGAIN, "1")
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    let pid = Pid::from_raw(judge.id() as i32);
    // Its case begins within this time, or after the pause.
    sleep(Duration::from_millis(700));
    kill(pid, Signal::SIGSTOP).expect("it has not been waited for");
    sleep(Duration::from_secs(4));
    kill(pid, Signal::SIGCONT).expect("it has not been waited for");
    assert!(judge.wait().expect("a child").success());
}
