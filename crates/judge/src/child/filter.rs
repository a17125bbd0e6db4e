//! The seccomp filters of a case: which calls stop for the tracer, and which are made to fail.

use std::collections::BTreeMap;
use std::env::consts::ARCH;

use nix::libc;
use seccompiler::{
    BackendError, BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp,
    SeccompCondition, SeccompFilter, SeccompRule, apply_filter,
};

use crate::protocol::MARK;
use crate::record::call::{FORKS, NOT_RECORDED, NOTED, WATCHED};

/// Makes the watched calls and the marks stop for the tracer, in this thread and in all that it starts; with `injects`
/// also the other calls that can be made to fail.
pub fn install(injects: bool) -> Result<(), Error> {
    let mut numbers = [WATCHED, NOTED].concat();
    if injects {
        numbers.extend([FORKS, NOT_RECORDED].concat());
    }
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = numbers
        .into_iter()
        .map(|number| (number, Vec::new()))
        .collect();
    rules.insert(libc::SYS_prctl, vec![argument_is(0, MARK)?]);
    apply(rules, SeccompAction::Trace(0))
}

/// Makes `madvise` with any of `advice` fail with EINVAL, as on a kernel that does not have them.
pub fn refuse_advice(advice: &[i32]) -> Result<(), Error> {
    let rules = advice
        .iter()
        .map(|advice| argument_is(2, *advice as u64))
        .collect::<Result<_, _>>()?;
    apply(
        BTreeMap::from([(libc::SYS_madvise, rules)]),
        SeccompAction::Errno(libc::EINVAL as u32),
    )
}

/// Makes a signal 0, which only asks whether a process exists, fail with EPERM, as for a process of another user.
pub fn refuse_checks_for_processes() -> Result<(), Error> {
    let rules = BTreeMap::from([
        (libc::SYS_kill, vec![argument_is(1, 0)?]),
        (libc::SYS_tkill, vec![argument_is(1, 0)?]),
        (libc::SYS_tgkill, vec![argument_is(2, 0)?]),
        (libc::SYS_pidfd_send_signal, vec![argument_is(1, 0)?]),
    ]);
    apply(rules, SeccompAction::Errno(libc::EPERM as u32))
}

/// The number of filters that `end_timed_waits` installs.
pub const TIMED_WAITS: usize = 3;

/// Makes each wait with a time limit end as if the time were over. Installs `TIMED_WAITS` filters.
pub fn end_timed_waits() -> Result<(), Error> {
    const FUTEX_LOCK_PI2: i32 = 13; // not in libc's crate
    let operations = [
        libc::FUTEX_WAIT,
        libc::FUTEX_WAIT_BITSET,
        libc::FUTEX_LOCK_PI,
        FUTEX_LOCK_PI2,
    ];
    let timed_futex = |operation: &i32| {
        let masked = SeccompCmpOp::MaskedEq(libc::FUTEX_CMD_MASK as u32 as u64);
        let waits = SeccompCondition::new(1, SeccompCmpArgLen::Dword, masked, *operation as u64)?;
        Ok(SeccompRule::new(vec![waits, is_not_null(3)?])?)
    };
    let has_limit = |index| SeccompRule::new(vec![is_not_null(index)?]);
    let futexes: Result<Vec<_>, Error> = operations.iter().map(timed_futex).collect();
    let rules = BTreeMap::from([
        (libc::SYS_futex, futexes?),
        (libc::SYS_futex_waitv, vec![has_limit(3)?]),
        (libc::SYS_mq_timedsend, vec![has_limit(4)?]),
        (libc::SYS_mq_timedreceive, vec![has_limit(4)?]),
    ]);
    apply(rules, SeccompAction::Errno(libc::ETIMEDOUT as u32))?;
    let rules = BTreeMap::from([
        (libc::SYS_semtimedop, vec![has_limit(3)?]),
        (libc::SYS_rt_sigtimedwait, vec![has_limit(2)?]),
    ]);
    apply(rules, SeccompAction::Errno(libc::EAGAIN as u32))?;
    // Milliseconds; a negative number is no limit.
    let has_milliseconds = |index| {
        let compare = |operation, value| {
            SeccompCondition::new(index, SeccompCmpArgLen::Dword, operation, value)
        };
        let positive = compare(SeccompCmpOp::Gt, 0)?;
        let finite = compare(SeccompCmpOp::Le, i32::MAX as u64)?;
        SeccompRule::new(vec![positive, finite])
    };
    #[cfg_attr(not(target_arch = "x86_64"), expect(unused_mut))]
    let mut rules = BTreeMap::from([
        (libc::SYS_nanosleep, Vec::new()),
        (libc::SYS_clock_nanosleep, Vec::new()),
        (libc::SYS_ppoll, vec![has_limit(2)?]),
        (libc::SYS_pselect6, vec![has_limit(4)?]),
        (libc::SYS_epoll_pwait, vec![has_milliseconds(3)?]),
        (libc::SYS_epoll_pwait2, vec![has_limit(3)?]),
    ]);
    #[cfg(target_arch = "x86_64")]
    rules.extend([
        (libc::SYS_poll, vec![has_milliseconds(2)?]),
        (libc::SYS_select, vec![has_limit(4)?]),
        (libc::SYS_epoll_wait, vec![has_milliseconds(3)?]),
    ]);
    // A call that fails with error 0 succeeds, and returns 0.
    apply(rules, SeccompAction::Errno(0))
}

fn is_not_null(index: u8) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(index, SeccompCmpArgLen::Qword, SeccompCmpOp::Ne, 0)
}

/// Compares only the low half of the argument. Both values are C `int`s, and a caller may leave anything in the high
/// half.
fn argument_is(index: u8, value: u64) -> Result<SeccompRule, Error> {
    let condition = SeccompCondition::new(index, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)?;
    Ok(SeccompRule::new(vec![condition])?)
}

fn apply(rules: BTreeMap<i64, Vec<SeccompRule>>, on_match: SeccompAction) -> Result<(), Error> {
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, on_match, ARCH.try_into()?)?;
    let program: BpfProgram = filter.try_into()?;
    apply_filter(&program)
}
