//! Calls that the judge makes to fail, to see what the answer does then.
//!
//! A case with a plan runs once as it is, and the judge counts the calls that the answer makes inside the window that
//! `refuse` opens. Then it runs once more for each of these calls, with that call made to fail, and once for each name
//! with all calls of that name failing.
//! SQLite is tested in the same way: <https://www.sqlite.org/testing.html>, "I/O error testing".

use std::collections::BTreeMap;

use nix::errno::Errno;

/// The environment variable that names the injection of a run: `Run::to_variable`.
pub const INJECT: &str = "JUDGE_INJECT";
/// Its value for a run in which nothing is injected or counted.
pub const PLAIN: &str = "plain";

/// The most runs of a case, besides the first one.
const MOST_RUNS: usize = 12;

/// How many calls in a row are interrupted if the interruption lasts. Code that repeats a call without a limit gets
/// through; code that counts gives up.
pub const INTERRUPTIONS: usize = 1000;

/// Calls, by the names of their manual pages, and the errors with which they fail.
pub type Plan<'a> = &'a [(&'static str, Errno)];

/// A call that is made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The name of its manual page.
    pub call: &'static str,
    pub errno: Errno,
    /// The number of calls with this name in the window before this one.
    pub index: usize,
    /// Whether all later calls with this name fail as well; for EINTR, whether `INTERRUPTIONS` calls do.
    pub lasting: bool,
}

/// One run of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run {
    /// Nothing is injected, and nothing is counted.
    Plain,
    /// Nothing is injected. The calls in the window are counted.
    Count,
    Inject(Refusal),
}

impl Run {
    /// The value of `INJECT`.
    pub fn to_variable(self) -> String {
        match self {
            Run::Plain => PLAIN.to_owned(),
            Run::Count => "count".to_owned(),
            Run::Inject(Refusal {
                call,
                errno,
                index,
                lasting,
            }) => format!("{call} {index} {} {lasting}", errno as i32),
        }
    }

    /// The injection of this run.
    pub fn injection(self) -> Option<Refusal> {
        match self {
            Run::Inject(injection) => Some(injection),
            Run::Plain | Run::Count => None,
        }
    }
}

/// The injection in a value of `INJECT`, if the call is in the plan.
pub fn from_variable(value: &str, plan: Plan) -> Option<Refusal> {
    let mut fields = value.split(' ');
    let (call, index, errno) = (fields.next()?, fields.next()?, fields.next()?);
    let (call, _) = plan.iter().find(|(known, _)| *known == call)?;
    Some(Refusal {
        call,
        errno: Errno::from_raw(errno.parse().ok()?),
        index: index.parse().ok()?,
        lasting: fields.next() == Some("true"),
    })
}

/// The injections for a case whose window contains these numbers of calls. First the first call of each name fails alone,
/// then that one and all later ones, then each later one alone, up to a limit on the number of runs.
pub fn injections(plan: Plan, counts: &BTreeMap<String, usize>) -> Vec<Refusal> {
    let at = |index, lasting| {
        let named = move |(call, errno): &(&'static str, Errno)| Refusal {
            call,
            errno: *errno,
            index,
            lasting,
        };
        let occurs = move |injection: &Refusal| {
            counts
                .get(injection.call)
                .is_some_and(|count| index < *count)
        };
        plan.iter().map(named).filter(occurs)
    };
    let most = counts.values().copied().max().unwrap_or(0);
    at(0, false)
        .chain(at(0, true).filter(Refusal::can_last))
        .chain((1..most).flat_map(|index| at(index, false)))
        .take(MOST_RUNS)
        .collect()
}

impl Refusal {
    /// Whether the call may fail like this again and again. A call that has timed out may be repeated until it has not,
    /// and names may be tried until one is free.
    fn can_last(&self) -> bool {
        ![Errno::ETIMEDOUT, Errno::EEXIST].contains(&self.errno)
    }

    /// Whether this is to happen to the call with this name and index.
    pub fn hits(&self, call: &str, index: usize) -> bool {
        let last = match (self.lasting, self.errno) {
            (false, _) => self.index,
            (true, Errno::EINTR) => self.index + INTERRUPTIONS - 1,
            (true, _) => usize::MAX,
        };
        self.call == call && (self.index..=last).contains(&index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: [(&str, Errno); 3] = [
        ("mmap", Errno::ENOMEM),
        ("munmap", Errno::ENOMEM),
        ("fork", Errno::EAGAIN),
    ];

    fn counted(counts: &[(&str, usize)]) -> BTreeMap<String, usize> {
        let counts = counts.iter();
        counts
            .map(|(call, count)| ((*call).to_owned(), *count))
            .collect()
    }

    #[test]
    fn each_counted_call_is_injected_once() {
        let counts = counted(&[("mmap", 2), ("munmap", 1), ("brk", 1)]);
        let injected: Vec<_> = injections(&PLAN, &counts)
            .iter()
            .map(|injection| (injection.call, injection.index, injection.lasting))
            .collect();
        let expected = [
            ("mmap", 0, false),
            ("munmap", 0, false),
            ("mmap", 0, true),
            ("munmap", 0, true),
            ("mmap", 1, false),
        ];
        assert_eq!(injected, expected);
        let many = counted(&[("mmap", 100), ("munmap", 1)]);
        assert_eq!(injections(&PLAN, &many).len(), MOST_RUNS);
    }

    #[test]
    fn interruptions_end() {
        let counts = counted(&[("wait4", 1)]);
        let [once, lasting] = injections(&[("wait4", Errno::EINTR)], &counts)[..] else {
            panic!("one call, interrupted once and again and again");
        };
        assert!(once.hits("wait4", 0) && !once.hits("wait4", 1));
        assert!(lasting.hits("wait4", INTERRUPTIONS - 1));
        assert!(!lasting.hits("wait4", INTERRUPTIONS));
    }

    #[test]
    fn an_injection_survives_the_environment() {
        for injection in injections(&PLAN, &counted(&[("munmap", 2), ("fork", 1)])) {
            let value = Run::Inject(injection).to_variable();
            assert_eq!(from_variable(&value, &PLAN), Some(injection));
        }
        assert_eq!(from_variable("count", &PLAN), None);
        assert_eq!(from_variable("brk 0 12", &PLAN), None);
    }
}
