//! The score: 60 points for counts, 25 for instructions, and 15 for CPU time if the machine was quiet.
//!
//! A count is met or not, and all counts are worth the same. An instruction count or a time beyond its limit earns
//! points in proportion. Points for what could not be measured are not part of the maximum.

use serde::Serialize;

use super::facts::{Fact, Facts, SMALL_STEP, Timed};

#[derive(Debug, Serialize)]
pub struct Score {
    pub points: f64,
    /// The maximum: 100 if nothing was skipped.
    pub of: f64,
    pub parts: Vec<Part>,
}

/// The counts, the instructions, or the times.
#[derive(Debug, Serialize)]
pub struct Part {
    pub name: &'static str,
    /// `None` if the part was skipped.
    pub points: Option<f64>,
    pub of: f64,
    /// Why the part was skipped, or a remark.
    pub note: Option<String>,
    pub items: Vec<Item>,
}

#[derive(Debug, Serialize)]
pub struct Item {
    pub what: &'static str,
    /// The requirement, as text.
    pub asked: String,
    /// `None` if it could not be measured.
    pub measured: Option<String>,
    pub met: Option<bool>,
    /// The share of the item's points that was earned, from 0 to 1.
    #[serde(skip)]
    share: Option<f64>,
}

/// How far glibc may differ from itself on a quiet machine.
const QUIET: std::ops::RangeInclusive<f64> = 0.95..=1.05;

/// The largest number of instructions that earns all points.
const INSTRUCTIONS: f64 = 130.0;

const UTILISATION: f64 = 0.70;

pub fn score(facts: &Facts) -> Score {
    let mut parts = vec![counts(facts), instructions(facts), times(facts)];
    for item in parts.iter_mut().flat_map(|part| &mut part.items) {
        add_value_with_cache(item, facts);
    }
    let counted = parts.iter().filter(|part| part.points.is_some());
    Score {
        points: parts.iter().filter_map(|part| part.points).sum(),
        of: counted.map(|part| part.of).sum(),
        parts,
    }
}

fn add_value_with_cache(item: &mut Item, facts: &Facts) {
    let mut with_cache = facts.with_cache.iter();
    let with_cache = with_cache.find(|(what, _)| *what == item.what);
    if let (Some(measured), Some((_, value))) = (&mut item.measured, with_cache) {
        let digits = if *value < 10.0 { 2 } else { 0 };
        *measured += &format!(" ({value:.digits$} cached)");
    }
}

fn counts(facts: &Facts) -> Part {
    let mut items = calls(facts);
    items.extend([
        at_most("faults a page, large blocks", 1.05, &facts.large_faults),
        at_most("faults a page, untouched zeros", 0.01, &facts.zeroed_faults),
        item(
            "live bytes in a byte of heap",
            &format!(">= {UTILISATION:.2}"),
            facts.utilisation.clone(),
            |share| (format!("{share:.2}"), share >= UTILISATION),
        ),
        kept(facts),
    ]);
    part("counts", 60.0, items, None)
}

fn calls(facts: &Facts) -> Vec<Item> {
    vec![
        item(
            "calls, a large pair",
            "1 mmap, 1 munmap",
            facts.large_calls.clone(),
            |[mmap, munmap, all]| {
                let text = format!("{mmap}, {munmap}, {} other", all - mmap - munmap);
                (text, [mmap, munmap, all] == [1.0, 1.0, 2.0])
            },
        ),
        item(
            "calls, a warm small pair",
            "0",
            facts.small_calls.clone(),
            |calls| (calls.to_string(), calls == 0.0),
        ),
        item(
            "calls, a doubling of a mapping",
            "1 mremap",
            facts.doubling_calls.clone(),
            |[mremap, all]| {
                let text = format!("{mremap:.2}, {:.2} other", all - mremap);
                (text, [mremap, all] == [1.0, 1.0])
            },
        ),
    ]
}

/// The answer must keep less memory than both jemalloc and mimalloc.
fn kept(facts: &Facts) -> Item {
    const WHAT: &str = "MiB kept, large and small blocks";
    let Fact::Measured([ours, jemalloc, mimalloc]) = facts.kept else {
        // The fact is not measured, so the function is never called.
        return item(WHAT, "less", facts.kept.clone(), |_| (String::new(), false));
    };
    let [large, small] = [0, 1].map(|which| f64::min(jemalloc[which], mimalloc[which]));
    let met = ours[0] < large && ours[1] < small;
    let asked = format!("< {large:.1}, < {small:.1}");
    item(WHAT, &asked, Fact::Measured(ours), |[large, small]| {
        (format!("{large:.1}, {small:.1}"), met)
    })
}

fn instructions(facts: &Facts) -> Part {
    let mut item = item(
        SMALL_STEP,
        &format!("<= {INSTRUCTIONS}"),
        facts.instructions.clone(),
        |count| (format!("{count:.1}"), count <= INSTRUCTIONS),
    );
    earn_in_proportion(&mut item, INSTRUCTIONS, &facts.instructions);
    let note = facts.no_instructions.as_ref();
    let note = note.map(|why| format!("skipped: {why}"));
    part("instructions", 25.0, vec![item], note)
}

fn times(facts: &Facts) -> Part {
    let times = facts.times.iter();
    let items = times.map(|Timed { what, limit, ratio }| {
        let mut item = at_most(what, *limit, ratio);
        earn_in_proportion(&mut item, *limit, ratio);
        item
    });
    let again = facts.again.iter().copied();
    let least = again.clone().reduce(f64::min);
    let (quiet, note) = match (least, again.reduce(f64::max)) {
        (Some(least), Some(most)) if QUIET.contains(&least) && QUIET.contains(&most) => {
            (true, format!("glibc to itself: {least:.2} to {most:.2}"))
        }
        (Some(least), Some(most)) => (
            false,
            format!(
                "thrown out: glibc to itself {least:.2} to {most:.2}, asked {} to {}",
                QUIET.start(),
                QUIET.end()
            ),
        ),
        _ => (false, "skipped: nothing was timed".to_owned()),
    };
    let mut part = part("CPU time", 15.0, items.collect(), Some(note));
    if !quiet {
        part.points = None;
    }
    part
}

fn earn_in_proportion(item: &mut Item, limit: f64, fact: &Fact<f64>) {
    if let Fact::Measured(value) = fact {
        item.share = Some((limit / value).min(1.0));
    }
}

fn at_most(what: &'static str, limit: f64, fact: &Fact<f64>) -> Item {
    item(what, &format!("<= {limit:.2}"), fact.clone(), |value| {
        (format!("{value:.2}"), value <= limit)
    })
}

/// `judge` returns the measured value as text, and whether it meets the requirement.
fn item<T>(
    what: &'static str,
    asked: &str,
    fact: Fact<T>,
    judge: impl FnOnce(T) -> (String, bool),
) -> Item {
    let (measured, met) = match fact.map(judge) {
        Fact::Measured((text, met)) => (Some(text), Some(met)),
        Fact::Failed => (Some("it failed".to_owned()), Some(false)),
        Fact::Skipped => (None, None),
    };
    Item {
        what,
        asked: asked.to_owned(),
        measured,
        met,
        share: met.map(|met| if met { 1.0 } else { 0.0 }),
    }
}

fn part(name: &'static str, of: f64, items: Vec<Item>, note: Option<String>) -> Part {
    let shares: Vec<f64> = items.iter().filter_map(|item| item.share).collect();
    let sum: f64 = shares.iter().sum();
    Part {
        name,
        points: (!shares.is_empty()).then(|| of * sum / shares.len() as f64),
        of,
        note,
        items,
    }
}

#[cfg(test)]
mod tests {
    use super::Fact::{Failed, Measured, Skipped};
    use super::*;

    /// Meets every requirement exactly.
    fn perfect() -> Facts {
        Facts {
            large_calls: Measured([1.0, 1.0, 2.0]),
            small_calls: Measured(0.0),
            doubling_calls: Measured([1.0, 1.0]),
            large_faults: Measured(1.05),
            zeroed_faults: Measured(0.0),
            utilisation: Measured(0.70),
            kept: Measured([[0.0, 1.0], [61.0, 2.0], [296.0, 3.0]]),
            instructions: Measured(130.0),
            times: vec![timed(0.75, 0.75), timed(1.0, 0.2)],
            no_instructions: None,
            with_cache: Vec::new(),
            again: vec![0.95, 1.05],
        }
    }

    fn timed(limit: f64, ratio: f64) -> Timed {
        Timed {
            what: "a time",
            limit,
            ratio: Measured(ratio),
        }
    }

    fn points(facts: &Facts) -> (f64, f64) {
        let score = score(facts);
        (score.points, score.of)
    }

    #[test]
    fn meeting_every_requirement_earns_100_points() {
        assert_eq!(points(&perfect()), (100.0, 100.0));
    }

    #[test]
    fn each_count_is_worth_a_seventh_of_60_points() {
        let missed: [fn(&mut Facts); 7] = [
            |facts| facts.large_calls = Measured([1.0, 1.0, 3.0]),
            |facts| facts.small_calls = Measured(0.001),
            |facts| facts.doubling_calls = Measured([0.9, 1.0]),
            |facts| facts.large_faults = Measured(1.06),
            |facts| facts.zeroed_faults = Measured(1.0),
            |facts| facts.utilisation = Measured(0.69),
            |facts| facts.kept = Measured([[0.0, 2.5], [61.0, 2.0], [296.0, 3.0]]),
        ];
        for (number, miss) in missed.iter().enumerate() {
            let mut facts = perfect();
            miss(&mut facts);
            let (points, of) = points(&facts);
            assert_eq!(of, 100.0);
            let expected = 40.0 + 60.0 * 6.0 / 7.0;
            assert!((points - expected).abs() < 1e-9, "{number}: {points}");
        }
    }

    #[test]
    fn instructions_and_times_earn_points_in_proportion() {
        let mut facts = perfect();
        facts.instructions = Measured(260.0);
        assert_eq!(points(&facts), (87.5, 100.0));
        let mut facts = perfect();
        facts.times[0].ratio = Measured(1.5);
        assert_eq!(points(&facts), (100.0 - 15.0 / 4.0, 100.0));
    }

    #[test]
    fn skipped_facts_reduce_the_maximum() {
        let mut facts = perfect();
        facts.instructions = Skipped;
        facts.no_instructions = Some("valgrind is not installed".to_owned());
        assert_eq!(points(&facts), (75.0, 75.0));
        // The other counts share the points of those that need ptrace.
        facts.large_calls = Skipped;
        facts.small_calls = Skipped;
        facts.doubling_calls = Skipped;
        assert_eq!(points(&facts), (75.0, 75.0));
        facts.utilisation = Measured(0.1);
        assert_eq!(points(&facts), (15.0 + 45.0, 75.0));
    }

    #[test]
    fn failed_facts_earn_nothing() {
        let mut facts = perfect();
        facts.instructions = Failed;
        facts.times[0].ratio = Failed;
        assert_eq!(points(&facts), (67.5, 100.0));
    }

    #[test]
    fn values_with_the_cache_are_shown_and_not_scored() {
        let mut facts = perfect();
        facts.instructions = Measured(260.0);
        facts.with_cache = vec![(SMALL_STEP, 100.0)];
        assert_eq!(points(&facts), (87.5, 100.0));
        let text = score(&facts).parts[1].items[0].measured.clone();
        assert_eq!(text.as_deref(), Some("260.0 (100 cached)"));
    }

    #[test]
    fn times_of_a_noisy_machine_are_not_scored() {
        for noisy in [vec![1.0, 0.94], vec![1.06], vec![]] {
            let mut facts = perfect();
            facts.again = noisy;
            assert_eq!(points(&facts), (85.0, 85.0));
        }
    }
}
