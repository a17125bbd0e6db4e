//! Calls that the judge makes to fail, or holds, to see what the answer does then.
//!
//! A case with a plan runs once as it is, and the judge counts the calls that the answer makes inside the window that
//! `refuse` or `meanwhile` opens. Then it runs once more for each of these calls, with an effect on that call alone, and
//! once for each name with all calls of that name failing.
//! SQLite is tested in the same way: <https://www.sqlite.org/testing.html>, "I/O error testing".

use std::collections::BTreeMap;

use nix::errno::Errno;

/// The environment variable that names the injection of a run: `Run::to_variable`.
pub const INJECT: &str = "JUDGE_INJECT";
/// Its value for a run in which nothing is injected or counted.
pub const PLAIN: &str = "plain";

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
    /// Whether all later calls with this name fail as well.
    pub lasting: bool,
}

/// A call that was made to fail, as the body of `refusals` sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The name of its manual page.
    pub call: &'static str,
    pub errno: Errno,
    /// The number of calls with this name in the window before this one.
    pub index: usize,
    /// Whether all later calls with this name fail as well.
    pub lasting: bool,
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
    /// The value of `INJECT`.
    pub fn to_variable(self) -> String {
        match self {
            Run::Plain => PLAIN.to_owned(),
            Run::Count => "count".to_owned(),
            Run::Inject(Injection {
                call,
                effect,
                index,
                lasting,
            }) => match effect {
                Effect::Fail(errno) => format!("{call} {index} {} {lasting}", errno as i32),
                Effect::Hold => format!("{call} {index} hold {lasting}"),
            },
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
        lasting: fields.next() == Some("true"),
    })
}

/// The injections for a case whose window contains these numbers of calls. First the first call of each name fails alone,
/// then that one and all later ones, then each later one alone, up to a limit on the number of runs.
pub fn injections(
    plan: &[(&'static str, Effect)],
    counts: &BTreeMap<String, usize>,
) -> Vec<Injection> {
    let at = |index, lasting| {
        let named = move |(call, effect): &(&'static str, Effect)| Injection {
            call,
            effect: *effect,
            index,
            lasting,
        };
        let occurs = move |injection: &Injection| {
            counts
                .get(injection.call)
                .is_some_and(|count| index < *count)
        };
        plan.iter().map(named).filter(occurs)
    };
    let most = counts.values().copied().max().unwrap_or(0);
    at(0, false)
        .chain(at(0, true).filter(Injection::can_last))
        .chain((1..most).flat_map(|index| at(index, false)))
        .take(MOST_RUNS)
        .collect()
}

impl Injection {
    /// Whether the call may fail like this again and again. An interrupted call may be repeated until it is not.
    fn can_last(&self) -> bool {
        match self.effect {
            Effect::Fail(errno) => ![Errno::EINTR, Errno::ETIMEDOUT].contains(&errno),
            Effect::Hold => false,
        }
    }

    /// Whether this is to happen to the call with this name and index.
    pub fn hits(&self, call: &str, index: usize) -> bool {
        self.call == call && (index == self.index || self.lasting && index > self.index)
    }

    /// The refusal that the body of `refusals` sees.
    pub fn refusal(self) -> Option<Refusal> {
        match self.effect {
            Effect::Fail(errno) => Some(Refusal {
                call: self.call,
                errno,
                index: self.index,
                lasting: self.lasting,
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
    fn an_injection_survives_the_environment() {
        for injection in injections(&PLAN, &counted(&[("munmap", 2), ("fork", 1)])) {
            let value = Run::Inject(injection).to_variable();
            assert_eq!(from_variable(&value, &PLAN), Some(injection));
        }
        assert_eq!(from_variable("count", &PLAN), None);
        assert_eq!(from_variable("brk 0 12", &PLAN), None);
    }
}
