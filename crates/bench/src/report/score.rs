//! The score: 60 points for counts, 25 for instructions, 15 for CPU time where the machine was quiet enough to tell.
//!
//! A count is met or not, in equal shares. Instructions and times earn their share in proportion where they are behind.
//! What could not be measured is not among the points that can be had.

use serde::Serialize;

/// What is asked, measured and earned.
#[derive(Debug, Serialize)]
pub struct Score {
    pub points: f64,
    /// That could be had: 100, if nothing was skipped.
    pub of: f64,
    pub parts: Vec<Part>,
}

/// Counts, instructions, or times.
#[derive(Debug, Serialize)]
pub struct Part {
    pub name: &'static str,
    /// None if it was skipped.
    pub points: Option<f64>,
    pub of: f64,
    /// Why it was skipped, or what else is to be said of it.
    pub note: Option<String>,
    pub items: Vec<Item>,
}

/// One thing that is asked.
#[derive(Debug, Serialize)]
pub struct Item {
    pub what: &'static str,
    pub asked: String,
    /// None if it could not be measured.
    pub measured: Option<String>,
    pub met: Option<bool>,
    /// From 0 to 1.
    #[serde(skip)]
    share: Option<f64>,
}

/// Something that is scored.
#[derive(Debug, Clone, Default)]
pub enum Fact<T> {
    Seen(T),
    /// The answer did not come to its end: that earns nothing.
    Failed,
    /// It could not be measured here: that costs nothing.
    #[default]
    Skipped,
}

impl<T> Fact<T> {
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Fact<U> {
        match self {
            Fact::Seen(seen) => Fact::Seen(f(seen)),
            Fact::Failed => Fact::Failed,
            Fact::Skipped => Fact::Skipped,
        }
    }
}

/// What is scored.
#[derive(Debug, Default, Clone)]
pub struct Facts {
    /// A large pair's `mmap`, `munmap`, and all its calls.
    pub large_calls: Fact<[f64; 3]>,
    /// A warm small pair's calls.
    pub small_calls: Fact<f64>,
    /// A doubling's `mremap`, and all its calls.
    pub doubling_calls: Fact<[f64; 2]>,
    /// Faults for each page of a large block.
    pub large_faults: Fact<f64>,
    /// Faults for each page of untouched zeroed memory.
    pub zeroed_faults: Fact<f64>,
    /// Live bytes for each byte of the heap.
    pub utilisation: Fact<f64>,
    /// MiB kept after everything was freed, large and small blocks: ours, jemalloc's, mimalloc's.
    pub kept: Fact<[[f64; 2]; 3]>,
    /// Instructions for a small pair.
    pub instructions: Fact<f64>,
    /// If they were not counted: why.
    pub no_instructions: Option<String>,
    /// What the thread cache makes of an item: told beside it, and not scored.
    pub with_cache: Vec<(&'static str, f64)>,
    /// What is timed: its name, the ratio that is asked, and the one that was measured.
    pub times: Vec<(&'static str, f64, Fact<f64>)>,
    /// The ratios of an allocator to itself.
    pub again: Vec<f64>,
}

/// In the A/A row a time is to be equal to itself, up to this.
const EQUAL: std::ops::RangeInclusive<f64> = 0.95..=1.05;

const INSTRUCTIONS: f64 = 130.0;

/// The names of items that the thread cache changes.
pub const SMALL_PAIR: &str = "instructions, a warm small pair";
pub const SMALL_CHURN: &str = "small churn, to glibc";

pub fn score(facts: &Facts) -> Score {
    let mut parts = vec![counts(facts), instructions(facts), times(facts)];
    for item in parts.iter_mut().flat_map(|part| &mut part.items) {
        let mut with_cache = facts.with_cache.iter();
        let with_cache = with_cache.find(|(what, _)| *what == item.what);
        if let (Some(measured), Some((_, value))) = (&mut item.measured, with_cache) {
            let digits = if *value < 10.0 { 2 } else { 0 };
            *measured += &format!(" ({value:.digits$} cached)");
        }
    }
    let had = parts.iter().filter(|part| part.points.is_some());
    Score {
        points: parts.iter().filter_map(|part| part.points).sum(),
        of: had.map(|part| part.of).sum(),
        parts,
    }
}

fn counts(facts: &Facts) -> Part {
    let (kept, asked) = match facts.kept {
        Fact::Seen([ours, [large, small], [others_large, others_small]]) => {
            // Less than both of the peers.
            let least = [large.min(others_large), small.min(others_small)];
            let met = ours[0] < least[0] && ours[1] < least[1];
            let asked = format!("< {:.1}, < {:.1}", least[0], least[1]);
            (Fact::Seen((ours, met)), asked)
        }
        Fact::Failed => (Fact::Failed, "less".to_owned()),
        Fact::Skipped => (Fact::Skipped, "less".to_owned()),
    };
    let items = vec![
        item(
            "calls, a large pair",
            "1 mmap, 1 munmap",
            facts.large_calls.clone(),
            |[mmap, munmap, all]| {
                let told = format!("{mmap}, {munmap}, {} other", all - mmap - munmap);
                (told, [mmap, munmap, all] == [1.0, 1.0, 2.0])
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
                let told = format!("{mremap:.2}, {:.2} other", all - mremap);
                (told, [mremap, all] == [1.0, 1.0])
            },
        ),
        at_most("faults a page, large blocks", 1.05, &facts.large_faults),
        at_most("faults a page, untouched zeros", 0.01, &facts.zeroed_faults),
        item(
            "live bytes in a byte of heap",
            ">= 0.70",
            facts.utilisation.clone(),
            |share| (format!("{share:.2}"), share >= 0.70),
        ),
        item(
            "MiB kept, large and small blocks",
            &asked,
            kept,
            |([large, small], met)| (format!("{large:.1}, {small:.1}"), met),
        ),
    ];
    part("counts", 60.0, items, None)
}

fn instructions(facts: &Facts) -> Part {
    let mut item = item(
        SMALL_PAIR,
        &format!("<= {INSTRUCTIONS}"),
        facts.instructions.clone(),
        |seen| (format!("{seen:.1}"), seen <= INSTRUCTIONS),
    );
    earn_in_proportion(&mut item, INSTRUCTIONS, &facts.instructions);
    let note = facts.no_instructions.as_ref();
    let note = note.map(|why| format!("skipped: {why}"));
    part("instructions", 25.0, vec![item], note)
}

fn times(facts: &Facts) -> Part {
    let times = facts.times.iter();
    let items = times.map(|(what, asked, ratio)| {
        let mut item = at_most(what, *asked, ratio);
        earn_in_proportion(&mut item, *asked, ratio);
        item
    });
    let (least, most) = facts
        .again
        .iter()
        .fold((f64::INFINITY, 0.0_f64), |(least, most), &ratio| {
            (least.min(ratio), most.max(ratio))
        });
    let quiet = !facts.again.is_empty() && EQUAL.contains(&least) && EQUAL.contains(&most);
    let note = match facts.again.is_empty() {
        true => "skipped: nothing was timed".to_owned(),
        false if quiet => format!("glibc to itself: {least:.2} to {most:.2}"),
        false => format!(
            "thrown out: glibc to itself {least:.2} to {most:.2}, asked {} to {}",
            EQUAL.start(),
            EQUAL.end()
        ),
    };
    let mut part = part("CPU time", 15.0, items.collect(), Some(note));
    if !quiet {
        part.points = None;
    }
    part
}

fn earn_in_proportion(item: &mut Item, asked: f64, fact: &Fact<f64>) {
    if let Fact::Seen(seen) = fact {
        item.share = Some((asked / seen).min(1.0));
    }
}

fn at_most(what: &'static str, asked: f64, fact: &Fact<f64>) -> Item {
    item(what, &format!("<= {asked:.2}"), fact.clone(), |seen| {
        (format!("{seen:.2}"), seen <= asked)
    })
}

fn item<T>(
    what: &'static str,
    asked: &str,
    fact: Fact<T>,
    judge: impl FnOnce(T) -> (String, bool),
) -> Item {
    let (measured, met) = match fact.map(judge) {
        Fact::Seen((told, met)) => (Some(told), Some(met)),
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
    let all: f64 = shares.iter().sum();
    Part {
        name,
        points: (!shares.is_empty()).then(|| of * all / shares.len() as f64),
        of,
        note,
        items,
    }
}

#[cfg(test)]
mod tests {
    use super::Fact::{Failed, Seen, Skipped};
    use super::*;

    /// All that is asked.
    fn whole() -> Facts {
        Facts {
            large_calls: Seen([1.0, 1.0, 2.0]),
            small_calls: Seen(0.0),
            doubling_calls: Seen([1.0, 1.0]),
            large_faults: Seen(1.05),
            zeroed_faults: Seen(0.0),
            utilisation: Seen(0.70),
            kept: Seen([[0.0, 1.0], [61.0, 2.0], [296.0, 3.0]]),
            instructions: Seen(130.0),
            times: vec![("one", 0.75, Seen(0.75)), ("other", 1.0, Seen(0.2))],
            no_instructions: None,
            with_cache: Vec::new(),
            again: vec![0.95, 1.05],
        }
    }

    fn points(facts: &Facts) -> (f64, f64) {
        let score = score(facts);
        (score.points, score.of)
    }

    #[test]
    fn what_is_asked_is_a_hundred_points() {
        assert_eq!(points(&whole()), (100.0, 100.0));
    }

    #[test]
    fn each_count_is_a_seventh_of_sixty() {
        let missed: [fn(&mut Facts); 7] = [
            |facts| facts.large_calls = Seen([1.0, 1.0, 3.0]),
            |facts| facts.small_calls = Seen(0.001),
            |facts| facts.doubling_calls = Seen([0.9, 1.0]),
            |facts| facts.large_faults = Seen(1.06),
            |facts| facts.zeroed_faults = Seen(1.0),
            |facts| facts.utilisation = Seen(0.69),
            |facts| facts.kept = Seen([[0.0, 2.5], [61.0, 2.0], [296.0, 3.0]]),
        ];
        for (number, miss) in missed.iter().enumerate() {
            let mut facts = whole();
            miss(&mut facts);
            let (points, of) = points(&facts);
            assert_eq!(of, 100.0);
            let expected = 40.0 + 60.0 * 6.0 / 7.0;
            assert!((points - expected).abs() < 1e-9, "{number}: {points}");
        }
    }

    #[test]
    fn instructions_and_times_earn_in_proportion() {
        let mut facts = whole();
        facts.instructions = Seen(260.0);
        assert_eq!(points(&facts), (87.5, 100.0));
        let mut facts = whole();
        facts.times[0].2 = Seen(1.5);
        assert_eq!(points(&facts), (100.0 - 15.0 / 4.0, 100.0));
    }

    #[test]
    fn what_was_not_measured_cannot_be_had() {
        let mut facts = whole();
        facts.instructions = Skipped;
        facts.no_instructions = Some("valgrind is not installed".to_owned());
        assert_eq!(points(&facts), (75.0, 75.0));
        // Without ptrace the other counts share the points.
        facts.large_calls = Skipped;
        facts.small_calls = Skipped;
        facts.doubling_calls = Skipped;
        assert_eq!(points(&facts), (75.0, 75.0));
        facts.utilisation = Seen(0.1);
        assert_eq!(points(&facts), (15.0 + 45.0, 75.0));
    }

    #[test]
    fn what_failed_earns_nothing() {
        let mut facts = whole();
        facts.instructions = Failed;
        facts.times[0].2 = Failed;
        assert_eq!(points(&facts), (67.5, 100.0));
    }

    #[test]
    fn the_cache_is_told_and_not_scored() {
        let mut facts = whole();
        facts.instructions = Seen(260.0);
        facts.with_cache = vec![(SMALL_PAIR, 100.0)];
        assert_eq!(points(&facts), (87.5, 100.0));
        let told = score(&facts).parts[1].items[0].measured.clone();
        assert_eq!(told.as_deref(), Some("260.0 (100 cached)"));
    }

    #[test]
    fn a_noisy_machine_throws_the_times_out() {
        for noisy in [vec![1.0, 0.94], vec![1.06], vec![]] {
            let mut facts = whole();
            facts.again = noisy;
            assert_eq!(points(&facts), (85.0, 85.0));
        }
    }
}
