//! Runs one test in another process, with other limits or another environment.

use std::env;
use std::process::{Command, Output};

/// Set in the process that was started again, and in its cases. The judge hides its own variables, `JUDGE_…`, from them.
const INNER: &str = "RERUN_INNER";

/// In the outer process: starts this binary again for the calling test only, as `configure` says, and returns its
/// output. In the inner process: `None`.
pub fn rerun(configure: impl FnOnce(&mut Command)) -> Option<Output> {
    if env::var_os(INNER).is_some() {
        return None;
    }
    let test = std::thread::current().name().unwrap().to_owned();
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args([&test, "--exact", "--nocapture"])
        .env(INNER, "1");
    configure(&mut command);
    Some(command.output().unwrap())
}
