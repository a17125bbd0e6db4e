//! Calls that the judge makes to fail, or holds, to see what the answer does then.
//!
//! A case with a plan runs once as it is, and the judge counts the calls that the answer makes inside the window that
//! `refuse` or `meanwhile` opens. Then it runs once more for each of these calls, with an effect on that call alone.
//! SQLite is tested in the same way: <https://www.sqlite.org/testing.html>, "I/O error testing".

use std::collections::BTreeMap;

use nix::errno::Errno;

/// The environment variable that names the injection of a run: `Run::to_variable`.
pub const INJECT: &str = "JUDGE_INJECT";

/// The most runs of a case, besides the first one.
const MOST_RUNS: usize = 12;

/// What happens to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It is not executed, and returns this error.
    Fail(Errno),
    /// Its thread stops at its entry until `meanwhile` has run its second closure.
    Hold,
}

/// One call that fails or is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Injection {
    /// The name of its manual page.
    pub call: &'static str,
    pub effect: Effect,
    /// The number of calls with this name in the window before this one.
    pub index: usize,
}

/// A call that was made to fail, as the body of `refusals` sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The name of its manual page.
    pub call: &'static str,
    pub errno: Errno,
    /// The number of calls with this name in the window before this one.
    pub index: usize,
}

/// One run of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run {
    /// Nothing is injected, and nothing is counted.
    Plain,
    /// Nothing is injected. The calls in the window are counted.
    Count,
    Inject(Injection),
}

impl Run {
    /// The value of `INJECT`; `None` for a plain run.
    pub fn to_variable(self) -> Option<String> {
        match self {
            Run::Plain => None,
            Run::Count => Some("count".to_owned()),
            Run::Inject(Injection {
                call,
                effect,
                index,
            }) => Some(match effect {
                Effect::Fail(errno) => format!("{call} {index} {}", errno as i32),
                Effect::Hold => format!("{call} {index} hold"),
            }),
        }
    }

    /// The injection of this run.
    pub fn injection(self) -> Option<Injection> {
        match self {
            Run::Inject(injection) => Some(injection),
            Run::Plain | Run::Count => None,
        }
    }
}

/// The injection in a value of `INJECT`, if the call is in the plan.
pub fn from_variable(value: &str, plan: &[(&'static str, Effect)]) -> Option<Injection> {
    let mut fields = value.split(' ');
    let (call, index, effect) = (fields.next()?, fields.next()?, fields.next()?);
    let (call, _) = plan.iter().find(|(known, _)| *known == call)?;
    Some(Injection {
        call,
        effect: match effect {
            "hold" => Effect::Hold,
            errno => Effect::Fail(Errno::from_raw(errno.parse().ok()?)),
        },
        index: index.parse().ok()?,
    })
}

/// The injections for a case whose window contains these numbers of calls. The first call of each name comes first, so
/// that a limit on the number of runs leaves none out.
pub fn injections(
    plan: &[(&'static str, Effect)],
    counts: &BTreeMap<String, usize>,
) -> Vec<Injection> {
    let most = counts.values().copied().max().unwrap_or(0);
    (0..most)
        .flat_map(|index| {
            plan.iter()
                .map(move |(call, effect)| (index, *call, *effect))
        })
        .filter(|(index, call, _)| counts.get(*call).is_some_and(|count| index < count))
        .map(|(index, call, effect)| Injection {
            call,
            effect,
            index,
        })
        .take(MOST_RUNS)
        .collect()
}

impl Injection {
    /// The refusal that the body of `refusals` sees.
    pub fn refusal(self) -> Option<Refusal> {
        match self.effect {
            Effect::Fail(errno) => Some(Refusal {
                call: self.call,
                errno,
                index: self.index,
            }),
            Effect::Hold => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: [(&str, Effect); 3] = [
        ("mmap", Effect::Fail(Errno::ENOMEM)),
        ("munmap", Effect::Fail(Errno::ENOMEM)),
        ("fork", Effect::Hold),
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
            .map(|injection| (injection.call, injection.index))
            .collect();
        assert_eq!(injected, [("mmap", 0), ("munmap", 0), ("mmap", 1)]);
        let many = counted(&[("mmap", 100), ("munmap", 1)]);
        assert_eq!(injections(&PLAN, &many).len(), MOST_RUNS);
    }

    #[test]
    fn an_injection_survives_the_environment() {
        for injection in injections(&PLAN, &counted(&[("munmap", 2), ("fork", 1)])) {
            let value = Run::Inject(injection).to_variable().unwrap();
            assert_eq!(from_variable(&value, &PLAN), Some(injection));
        }
        assert_eq!(from_variable("count", &PLAN), None);
        assert_eq!(from_variable("brk 0 12", &PLAN), None);
    }
}
