//! Waits for threads and processes that are about to end, so that "still running" does not depend on luck.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use crate::procfs;

/// How long a task may sleep, and how much processor time it may use, before it is no longer awaited.
const PATIENCE: Duration = Duration::from_millis(100);
/// The same in wall time. On a busy machine a task may wait for a processor, or for its tracer, for most of it. It is
/// less than a case's time limit.
const LONGEST: Duration = Duration::from_secs(2);
const STEP: Duration = Duration::from_millis(1);

/// Waits until `running` returns no task any more. Returns the tasks that are left when patience is exhausted.
pub fn await_end(running: impl FnMut() -> Vec<i32>) -> Vec<i32> {
    await_end_within(LONGEST, running)
}

fn await_end_within(longest: Duration, mut running: impl FnMut() -> Vec<i32>) -> Vec<i32> {
    let begun = Instant::now();
    let mut waited = Duration::ZERO;
    let mut known: BTreeMap<i32, Duration> = BTreeMap::new();
    loop {
        let tasks = running();
        let is_over = waited >= PATIENCE || begun.elapsed() >= longest;
        if tasks.is_empty() || is_over {
            return tasks;
        }
        let is_first = known.is_empty();
        let mut sleep = true;
        for &tid in &tasks {
            sleep &= procfs::is_idle(tid);
            let ran = procfs::ran(tid);
            match known.insert(tid, ran) {
                Some(before) => waited += ran.saturating_sub(before),
                // Tasks that start others are not about to end.
                None if !is_first => waited += STEP,
                None => {}
            }
        }
        if sleep {
            waited += STEP;
        }
        thread::sleep(STEP);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use nix::libc;
    use nix::unistd::gettid;

    use super::*;

    /// Lets this thread run on one processor only, the same one for each caller.
    fn share_a_processor() {
        const LEN: usize = size_of::<libc::cpu_set_t>();
        // SAFETY: all zeros are the empty set.
        let mut usable: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        let mut one = usable;
        // SAFETY: the set has this length.
        unsafe { libc::sched_getaffinity(0, LEN, &raw mut usable) };
        // SAFETY: the number is below the set's length in bits.
        let is_usable = |cpu: &usize| unsafe { libc::CPU_ISSET(*cpu, &usable) };
        let first = (0..8 * LEN).find(is_usable).expect("a processor");
        // SAFETY: as above.
        unsafe { libc::CPU_SET(first, &mut one) };
        // SAFETY: the set has this length.
        unsafe { libc::sched_setaffinity(0, LEN, &raw const one) };
    }

    #[test]
    fn a_task_that_gets_no_processor_is_awaited() {
        const BUSY: Duration = Duration::from_millis(500);
        let busy = thread::spawn(|| {
            share_a_processor();
            let begun = Instant::now();
            while begun.elapsed() < BUSY {}
        });
        let (sender, receiver) = mpsc::channel();
        let awaited = thread::spawn(move || {
            share_a_processor();
            let param = libc::sched_param { sched_priority: 0 };
            // SAFETY: `param` outlives the call.
            unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const param) };
            sender.send(gettid().as_raw()).unwrap();
            // The other thread is preferred for as long as it runs.
            while procfs::ran(gettid().as_raw()) < PATIENCE / 5 {}
        });
        let tid = receiver.recv().unwrap();
        let tasks = || (!awaited.is_finished()).then_some(tid);
        let left = await_end_within(60 * LONGEST, || tasks().into_iter().collect());
        assert!(left.is_empty());
        busy.join().unwrap();
    }

    #[test]
    fn a_task_that_sleeps_or_runs_on_is_not_awaited_for_long() {
        for task in [(|| thread::sleep(STEP)) as fn(), || {}] {
            let (sender, receiver) = mpsc::channel();
            let (stop, stopped) = mpsc::channel::<()>();
            let runs_on = thread::spawn(move || {
                sender.send(gettid().as_raw()).unwrap();
                while stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
                    task();
                }
            });
            let tid = receiver.recv().unwrap();
            assert_eq!(await_end(|| vec![tid]), [tid]);
            drop(stop);
            runs_on.join().unwrap();
        }
    }

    #[test]
    fn a_kernel_that_does_not_list_children_ends_the_wait() {
        assert_eq!(await_end(|| vec![0]), [0]);
    }
}
