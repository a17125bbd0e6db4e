//! The points that an answer earns in a class.
//!
//! A stage is worth the points in the exercise's manifest, by default its minutes. It earns them in proportion to its
//! passed cases, out of all of its cases that could be graded. A skipped case neither earns nor costs anything, because
//! the machine cannot grade it. A stage with no other cases earns nothing, and is not part of what is possible.

use course::exercise::Exercise;
use course::log::Count;
use serde::{Deserialize, Serialize};

use crate::grade::verdicts::Verdicts;

/// The points of one stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageScore {
    pub name: String,
    pub title: String,
    pub bonus: bool,
    pub points: f64,
    /// What a right answer earns on this machine.
    pub possible: f64,
    pub passed: usize,
    /// All cases, the skipped ones included.
    pub cases: usize,
    /// Cases that this machine cannot grade.
    pub skipped: usize,
}

/// The points of an answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// The sum over the stages that are not bonus stages.
    pub points: f64,
    pub possible: f64,
    pub bonus: f64,
    pub bonus_possible: f64,
    pub skipped: usize,
    pub stages: Vec<StageScore>,
}

impl Score {
    pub fn of(exercise: &Exercise, verdicts: &Verdicts) -> Score {
        let counts = verdicts.stages.iter().filter_map(|stage| {
            let described = exercise.stage(&stage.name).ok()?;
            let worth = described.points();
            Some(score(
                &stage.name,
                &stage.title,
                stage.bonus,
                worth,
                stage.count(),
            ))
        });
        Score::sum(counts.collect())
    }

    /// The score of an answer that earns nothing.
    pub fn nothing(exercise: &Exercise) -> Score {
        let mut sum = Score::default();
        for stage in &exercise.about.stages {
            *sum.possible_of(stage.bonus) += f64::from(stage.points());
        }
        sum
    }

    fn sum(stages: Vec<StageScore>) -> Score {
        let mut sum = Score::default();
        for stage in &stages {
            *sum.possible_of(stage.bonus) += stage.possible;
            match stage.bonus {
                true => sum.bonus += stage.points,
                false => sum.points += stage.points,
            }
            sum.skipped += stage.skipped;
        }
        // The stages' points are rounded already. This removes what adding floating-point numbers leaves.
        sum.points = rounded(sum.points);
        sum.bonus = rounded(sum.bonus);
        Score { stages, ..sum }
    }

    fn possible_of(&mut self, bonus: bool) -> &mut f64 {
        match bonus {
            true => &mut self.bonus_possible,
            false => &mut self.possible,
        }
    }
}

fn score(name: &str, title: &str, bonus: bool, worth: u32, count: Count) -> StageScore {
    let graded = count.possible - count.skipped;
    let possible = if graded > 0 { f64::from(worth) } else { 0.0 };
    StageScore {
        name: name.to_owned(),
        title: title.to_owned(),
        bonus,
        points: rounded(possible * count.passed as f64 / graded.max(1) as f64),
        possible,
        passed: count.passed,
        cases: count.possible,
        skipped: count.skipped,
    }
}

/// Rounds to hundredths of a point.
fn rounded(points: f64) -> f64 {
    (points * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stage of 20 points with so many cases that passed, failed and were skipped.
    fn stage(bonus: bool, [passed, failed, skipped]: [usize; 3]) -> StageScore {
        let count = Count {
            passed,
            failed,
            skipped,
            not_started: 0,
            possible: passed + failed + skipped,
        };
        score("stage", "Stage", bonus, 20, count)
    }

    fn points(counts: [usize; 3]) -> (f64, f64) {
        let stage = stage(false, counts);
        (stage.points, stage.possible)
    }

    #[test]
    fn a_stage_earns_the_part_of_its_points_that_passed() {
        assert_eq!(points([4, 0, 0]), (20.0, 20.0));
        assert_eq!(points([3, 1, 0]), (15.0, 20.0));
        assert_eq!(points([1, 2, 0]), (6.67, 20.0));
        assert_eq!(points([0, 4, 0]), (0.0, 20.0));
    }

    #[test]
    fn skipped_cases_neither_earn_nor_cost() {
        assert_eq!(points([4, 0, 3]), (20.0, 20.0));
        assert_eq!(points([1, 1, 2]), (10.0, 20.0));
        assert_eq!(points([0, 1, 2]), (0.0, 20.0));
    }

    #[test]
    fn a_stage_that_is_skipped_is_not_possible() {
        assert_eq!(points([0, 0, 2]), (0.0, 0.0));
        assert_eq!(points([0, 0, 0]), (0.0, 0.0));
    }

    #[test]
    fn bonus_stages_are_summed_separately() {
        let stages = [
            stage(false, [1, 2, 0]),
            stage(false, [1, 2, 1]),
            stage(false, [0, 0, 2]),
            stage(true, [1, 0, 0]),
            stage(true, [0, 1, 0]),
        ];
        let sum = Score::sum(stages.to_vec());
        assert_eq!((sum.points, sum.possible), (13.34, 40.0));
        assert_eq!((sum.bonus, sum.bonus_possible), (20.0, 40.0));
        assert_eq!(sum.skipped, 3);
    }

    #[test]
    fn an_answer_that_cannot_be_graded_could_have_earned_every_stage() {
        let root = course::root::find().expect("the tests run in a clone");
        let exercise = Exercise::find(&root, "threshold-alloc").expect("an exercise");
        let nothing = Score::nothing(&exercise);
        let worth = |bonus: bool| -> u32 {
            let stages = exercise.about.stages.iter();
            let stages = stages.filter(|stage| stage.bonus == bonus);
            stages.map(|stage| stage.points()).sum()
        };
        assert_eq!(nothing.possible, f64::from(worth(false)));
        assert_eq!(nothing.bonus_possible, f64::from(worth(true)));
        assert_eq!(nothing.points, 0.0);
    }
}
