//! The score: 60 points for counts, 25 for instructions, and 15 for CPU time.
//!
//! A count is met or not, and all counts are worth the same. An instruction count or a time beyond its goal earns points
//! in proportion. What could not be measured, and what needs a bonus stage that is not solved, is left out: the rest of
//! the part is then worth more.

use serde::Serialize;

use super::facts::{Calls, Fact, Facts, Timed};
use course::statistics::ROUGH;

#[derive(Debug, Serialize)]
pub struct Score {
    pub points: f64,
    /// The maximum: 100 if no part was skipped.
    pub of: f64,
    pub parts: Vec<Part>,
}

/// The counts, the instructions, or the times.
#[derive(Debug, Serialize)]
pub struct Part {
    pub name: &'static str,
    /// `None` if nothing in it was measured.
    pub points: Option<f64>,
    pub of: f64,
    pub items: Vec<Item>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Item {
    /// Identifies the item in the history.
    pub key: &'static str,
    pub what: &'static str,
    /// The goal, as text.
    pub goal: String,
    /// The measured value, or why there is none, as text.
    pub measured: String,
    /// `None` if it could not be measured, or says nothing.
    pub value: Option<f64>,
    /// `None` if it is not scored.
    pub met: Option<bool>,
    /// The share of the item's points that was earned, from 0 to 1.
    #[serde(skip)]
    share: Option<f64>,
}

/// The largest number of instructions that earns all points.
const INSTRUCTIONS: f64 = 130.0;

const UTILISATION: f64 = 0.70;

/// A heap that does not join its chunks grows for a long time, and so does glibc's.
const SMALL_CALLS: f64 = 0.01;

pub fn score(facts: &Facts) -> Score {
    let parts = vec![
        part("Counts", 60.0, counts(facts)),
        part("Instructions", 25.0, vec![instructions(facts)]),
        part(
            "CPU time, as a ratio to glibc",
            15.0,
            facts.times.iter().map(time).collect(),
        ),
    ];
    let counted = parts.iter().filter(|part| part.points.is_some());
    Score {
        points: parts.iter().filter_map(|part| part.points).sum(),
        of: counted.map(|part| part.of).sum(),
        parts,
    }
}

fn part(name: &'static str, of: f64, items: Vec<Item>) -> Part {
    let shares: Vec<f64> = items.iter().filter_map(|item| item.share).collect();
    let sum: f64 = shares.iter().sum();
    Part {
        name,
        points: (!shares.is_empty()).then(|| of * sum / shares.len() as f64),
        of,
        items,
    }
}

fn counts(facts: &Facts) -> Vec<Item> {
    vec![
        calls(
            "large-calls",
            "calls for a large block",
            &[("mmap", 1.0), ("munmap", 1.0)],
            &facts.large_calls,
        ),
        item(
            "small-calls",
            "calls for a small block",
            format!("≤ {SMALL_CALLS:.2}"),
            &facts.small_calls,
            |calls| {
                let all = total(calls);
                (in_words(calls), all, all <= SMALL_CALLS)
            },
        ),
        calls(
            "doubling-calls",
            "calls for a doubling of a Vec",
            &[("mremap", 1.0)],
            &facts.doubling_calls,
        ),
        at_most(
            "large-faults",
            "page faults a page, large blocks",
            1.05,
            &facts.large_faults,
        ),
        at_most(
            "zeroed-faults",
            "page faults a page, untouched zeros",
            0.01,
            &facts.zeroed_faults,
        ),
        item(
            "utilisation",
            "share of the heap that is allocated",
            format!("≥ {:.0} %", 100.0 * UTILISATION),
            &facts.utilisation,
            |share| {
                (
                    format!("{:.0} %", 100.0 * share),
                    *share,
                    *share >= UTILISATION,
                )
            },
        ),
        kept(
            "large-kept",
            "MiB kept when large blocks are freed",
            &facts.large_kept,
        ),
        kept(
            "small-kept",
            "MiB kept when small blocks are freed",
            &facts.small_kept,
        ),
    ]
}

fn calls(
    key: &'static str,
    what: &'static str,
    goal: &[(&'static str, f64)],
    fact: &Fact<Calls>,
) -> Item {
    let goal = Calls::from_iter(goal.iter().copied());
    item(key, what, in_words(&goal), fact, |calls| {
        (in_words(calls), total(calls), *calls == goal)
    })
}

/// The sum of no floats would be -0.
fn total(calls: &Calls) -> f64 {
    calls.values().fold(0.0, |sum, calls| sum + calls)
}

/// Lists calls, such as `1 mmap, 1 munmap`.
fn in_words(calls: &Calls) -> String {
    let calls = calls.iter().map(|(name, count)| match count {
        count if count.fract() == 0.0 => format!("{count} {name}"),
        count if *count < 0.01 => format!("<0.01 {name}"),
        count => format!("{count:.2} {name}"),
    });
    let calls: Vec<_> = calls.collect();
    match calls.as_slice() {
        [] => "none".to_owned(),
        calls => calls.join(", "),
    }
}

/// The answer may keep 1 MiB more than glibc.
fn kept(key: &'static str, what: &'static str, fact: &Fact<[f64; 2]>) -> Item {
    let goal = match fact {
        Fact::Measured([_, glibc]) => format!("≤ {:.1} (glibc + 1)", glibc + 1.0),
        _ => "≤ glibc + 1".to_owned(),
    };
    item(key, what, goal, fact, |[ours, glibc]| {
        (format!("{ours:.1}"), *ours, *ours <= glibc + 1.0)
    })
}

fn instructions(facts: &Facts) -> Item {
    let fact = &facts.instructions;
    let goal = format!("≤ {INSTRUCTIONS}");
    let mut item = item("instructions", "for a small block", goal, fact, |count| {
        (format!("{count:.0}"), *count, *count <= INSTRUCTIONS)
    });
    earn_in_proportion(&mut item, INSTRUCTIONS);
    item
}

/// A ratio is not scored if it is too noisy to tell whether it misses the goal.
fn time(timed: &Timed) -> Item {
    let Timed {
        key, what, limit, ..
    } = *timed;
    let mut item = item(key, what, format!("≤ {limit:.2}"), &timed.ratio, |ratio| {
        let median = ratio.median;
        (format!("{median:.2}"), median, median <= limit)
    });
    earn_in_proportion(&mut item, limit);
    let Fact::Measured(ratio) = timed.ratio else {
        return item;
    };
    let noise = timed.noise().filter(|noise| *noise <= ROUGH);
    let is_clear = noise.is_some_and(|noise| {
        let least = ratio.median * (1.0 - noise);
        ratio.median <= limit || least > limit
    });
    if ratio.is_noise() {
        item.measured = "noise".to_owned();
        item.value = None;
    } else if !is_clear {
        item.measured += " (noisy)";
    }
    if !is_clear {
        item.met = None;
        item.share = None;
    }
    item
}

fn earn_in_proportion(item: &mut Item, goal: f64) {
    if let Some(value) = item.value {
        item.share = Some((goal / value).min(1.0));
    }
}

fn at_most(key: &'static str, what: &'static str, goal: f64, fact: &Fact<f64>) -> Item {
    item(key, what, format!("≤ {goal:.2}"), fact, |value| {
        (format!("{value:.2}"), *value, *value <= goal)
    })
}

/// `judge` returns the measured value as text and as a number, and whether it meets the goal.
fn item<T>(
    key: &'static str,
    what: &'static str,
    goal: String,
    fact: &Fact<T>,
    judge: impl FnOnce(&T) -> (String, f64, bool),
) -> Item {
    let (measured, value, met) = match fact {
        Fact::Measured(measured) => {
            let (text, value, met) = judge(measured);
            (text, Some(value), Some(met))
        }
        Fact::Failed => ("it failed".to_owned(), None, Some(false)),
        Fact::Unsolved(stage) => (format!("needs stage {stage}"), None, None),
        Fact::Skipped => ("not measured".to_owned(), None, None),
    };
    Item {
        key,
        what,
        goal,
        measured,
        value,
        met,
        share: met.map(|met| if met { 1.0 } else { 0.0 }),
    }
}

#[cfg(test)]
mod tests {
    use super::Fact::{Failed, Measured, Skipped, Unsolved};
    use super::*;
    use course::statistics::Ratio;

    /// Meets every goal exactly.
    fn perfect() -> Facts {
        Facts {
            large_calls: Measured(Calls::from([("mmap", 1.0), ("munmap", 1.0)])),
            small_calls: Measured(Calls::from([("brk", 0.01)])),
            doubling_calls: Measured(Calls::from([("mremap", 1.0)])),
            large_faults: Measured(1.05),
            zeroed_faults: Measured(0.0),
            utilisation: Measured(0.70),
            large_kept: Measured([1.0, 0.0]),
            small_kept: Measured([69.0, 68.0]),
            instructions: Measured(130.0),
            times: vec![timed(0.75, 0.75), timed(1.0, 0.2)],
        }
    }

    fn timed(limit: f64, median: f64) -> Timed {
        Timed {
            key: "small",
            what: "a time",
            limit,
            ratio: Measured(ratio(median, 0.05)),
            again: Some(1.0),
        }
    }

    fn ratio(median: f64, spread: f64) -> Ratio {
        Ratio {
            median,
            spread: Some(spread),
        }
    }

    fn points(facts: &Facts) -> (f64, f64) {
        let score = score(facts);
        (score.points, score.of)
    }

    #[test]
    fn meeting_every_goal_earns_100_points() {
        assert_eq!(points(&perfect()), (100.0, 100.0));
    }

    #[test]
    fn each_count_is_worth_an_eighth_of_60_points() {
        let missed: [fn(&mut Facts); 8] = [
            |facts| facts.large_calls = Measured(Calls::from([("mmap", 1.0), ("munmap", 1.5)])),
            |facts| facts.small_calls = Measured(Calls::from([("brk", 0.011)])),
            |facts| facts.doubling_calls = Measured(Calls::from([("mmap", 1.0)])),
            |facts| facts.large_faults = Measured(1.06),
            |facts| facts.zeroed_faults = Measured(1.0),
            |facts| facts.utilisation = Measured(0.69),
            |facts| facts.large_kept = Measured([1.1, 0.0]),
            |facts| facts.small_kept = Measured([69.1, 68.0]),
        ];
        for (number, miss) in missed.iter().enumerate() {
            let mut facts = perfect();
            miss(&mut facts);
            let (points, of) = points(&facts);
            assert_eq!(of, 100.0);
            let expected = 40.0 + 60.0 * 7.0 / 8.0;
            assert!((points - expected).abs() < 1e-9, "{number}: {points}");
        }
    }

    #[test]
    fn instructions_and_times_earn_points_in_proportion() {
        let mut facts = perfect();
        facts.instructions = Measured(260.0);
        assert_eq!(points(&facts), (87.5, 100.0));
        let mut facts = perfect();
        facts.times[0].ratio = Measured(ratio(1.5, 0.0));
        assert_eq!(points(&facts), (100.0 - 15.0 / 4.0, 100.0));
    }

    #[test]
    fn a_part_that_is_not_measured_reduces_the_maximum() {
        let mut facts = perfect();
        facts.instructions = Skipped;
        assert_eq!(points(&facts), (75.0, 75.0));
        // The other counts share the points of those that need ptrace.
        facts.large_calls = Skipped;
        facts.small_calls = Skipped;
        facts.doubling_calls = Skipped;
        assert_eq!(points(&facts), (75.0, 75.0));
        facts.utilisation = Measured(0.1);
        assert_eq!(points(&facts), (15.0 + 48.0, 75.0));
    }

    #[test]
    fn a_core_that_meets_every_goal_in_its_reach_earns_100_points() {
        let mut facts = perfect();
        facts.doubling_calls = Unsolved("resize");
        facts.zeroed_faults = Unsolved("resize");
        facts.small_kept = Unsolved("merge");
        facts.times[1].ratio = Unsolved("cache");
        assert_eq!(points(&facts), (100.0, 100.0));
        let score = score(&facts);
        let items = score.parts.iter().flat_map(|part| &part.items);
        let unsolved: Vec<_> = items.filter(|item| item.met.is_none()).collect();
        assert_eq!(unsolved.len(), 4);
        assert_eq!(unsolved[0].measured, "needs stage resize");
    }

    #[test]
    fn failed_facts_earn_nothing() {
        let mut facts = perfect();
        facts.instructions = Failed;
        facts.times[0].ratio = Failed;
        assert_eq!(points(&facts), (67.5, 100.0));
    }

    #[test]
    fn a_goal_that_is_missed_within_the_noise_is_not_scored() {
        // The ratio's spread, and glibc's ratio to itself. The goal is 0.75.
        let measured = |median, spread, again| {
            let mut facts = perfect();
            facts.times[0].ratio = Measured(ratio(median, spread));
            facts.times[0].again = again;
            score(&facts).parts[2].items[0].clone()
        };
        let noisy = measured(0.8, 0.03, Some(1.05));
        assert_eq!((noisy.measured.as_str(), noisy.met), ("0.80 (noisy)", None));
        assert_eq!(measured(0.8, 0.03, Some(0.95)).met, None);
        assert_eq!(measured(0.8, 0.03, Some(1.0)).met, Some(false));
        assert_eq!(measured(0.7, 0.03, Some(1.05)).met, Some(true));
        assert_eq!(measured(0.7, 0.03, Some(1.3)).met, None);
        assert_eq!(measured(0.7, 0.03, None).met, None);
    }

    #[test]
    fn times_that_say_nothing_reduce_the_maximum() {
        let mut facts = perfect();
        for timed in &mut facts.times {
            timed.again = None;
        }
        assert_eq!(points(&facts), (85.0, 85.0));
    }

    #[test]
    fn a_ratio_of_too_few_rounds_is_not_scored() {
        let mut facts = perfect();
        facts.times[0].ratio = Measured(Ratio {
            median: 1.5,
            spread: None,
        });
        assert_eq!(points(&facts), (100.0, 100.0));
    }

    #[test]
    fn a_ratio_whose_rounds_differ_is_neither_shown_nor_scored() {
        let mut facts = perfect();
        facts.times[0].ratio = Measured(ratio(0.35, 3.41));
        let item = score(&facts).parts[2].items[0].clone();
        assert_eq!(
            (item.measured.as_str(), item.value, item.met),
            ("noise", None, None)
        );
        assert_eq!(points(&facts), (100.0, 100.0));
    }

    #[test]
    fn calls_are_listed_by_name() {
        let calls = Calls::from([("mmap", 1.0), ("munmap", 0.25), ("brk", 0.001)]);
        assert_eq!(in_words(&calls), "<0.01 brk, 1 mmap, 0.25 munmap");
    }
}
