//! The seccomp filters of a case: which calls stop for the tracer, and which are made to fail.

use std::collections::BTreeMap;
use std::env::consts::ARCH;

use nix::libc;
use seccompiler::{
    BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, apply_filter,
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
