//! An exercise's verdicts by stage, and what they add up to.

use serde::{Deserialize, Serialize};

use crate::exercise::Exercise;
use crate::grader::{Case, Verdict};

/// What became of one exercise.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Outcome {
    /// It was graded.
    Graded(Verdicts),
    /// It could not be.
    CouldNot {
        /// Its name.
        name: String,
        /// Why.
        error: String,
    },
}

/// The verdicts on one answer.
#[derive(Debug, Serialize)]
pub struct Verdicts {
    /// The exercise.
    pub name: String,
    /// For people.
    pub title: String,
    /// In the manifest's order.
    pub stages: Vec<Stage>,
    /// The sums over the stages that make the exercise.
    #[serde(flatten)]
    pub core: Count,
    /// Those over its bonus stages.
    pub bonus: Count,
}

/// The verdicts on one stage.
#[derive(Debug, Serialize)]
pub struct Stage {
    /// As in the manifest.
    pub name: String,
    /// For people.
    pub title: String,
    /// Estimated.
    pub minutes: u32,
    /// Whether the exercise is solved without it.
    pub bonus: bool,
    /// By name.
    pub cases: Vec<Case>,
}

impl Stage {
    /// The first of its cases that failed, by name.
    pub fn first_failure(&self) -> Option<&Case> {
        let mut cases = self.cases.iter();
        cases.find(|case| case.verdict == Verdict::Failed)
    }
}

/// How many cases came to what.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // The fields' names say it.
pub struct Count {
    pub passed: usize,
    pub failed: usize,
    pub skipped: usize,
    pub not_started: usize,
    /// All of them: what a skip does not change.
    pub possible: usize,
}

impl Count {
    /// Of these cases.
    pub fn of<'a>(cases: impl IntoIterator<Item = &'a Case>) -> Count {
        let mut count = Count::default();
        for case in cases {
            count.possible += 1;
            match case.verdict {
                Verdict::Passed => count.passed += 1,
                Verdict::Failed => count.failed += 1,
                Verdict::Skipped => count.skipped += 1,
                Verdict::NotStarted => count.not_started += 1,
            }
        }
        count
    }

    /// What they come to together.
    pub fn verdict(self) -> Verdict {
        match self {
            Count { failed: 1.., .. } => Verdict::Failed,
            Count {
                not_started: 1.., ..
            } => Verdict::NotStarted,
            Count { skipped: 1.., .. } => Verdict::Skipped,
            _ => Verdict::Passed,
        }
    }
}

impl std::ops::AddAssign for Count {
    fn add_assign(&mut self, other: Count) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.not_started += other.not_started;
        self.possible += other.possible;
    }
}

/// Whether the case is of that stage: `region::zeroed` of `region`.
pub fn is_of(case: &str, stage: &str) -> bool {
    case.split_once("::").is_some_and(|(of, _)| of == stage)
}

impl Verdicts {
    /// Sorts the cases into the exercise's stages.
    pub fn sort(exercise: &Exercise, mut cases: Vec<Case>) -> Verdicts {
        cases.sort_by(|one, other| one.name.cmp(&other.name));
        let mut stages = Vec::new();
        for stage in &exercise.about.stages {
            let (mine, others) = cases
                .into_iter()
                .partition(|case| is_of(&case.name, &stage.name));
            cases = others;
            stages.push(Stage {
                name: stage.name.clone(),
                title: stage.title.clone(),
                minutes: stage.minutes,
                bonus: stage.bonus,
                cases: mine,
            });
        }
        // A test of the graders sees to it that this is not needed; a case is never lost for it.
        if !cases.is_empty() {
            stages.push(Stage {
                name: "other".to_owned(),
                title: "Cases of no stage".to_owned(),
                minutes: 0,
                bonus: false,
                cases,
            });
        }
        let count = |bonus: bool| {
            let stages = stages.iter().filter(|stage| stage.bonus == bonus);
            Count::of(stages.flat_map(|stage| &stage.cases))
        };
        Verdicts {
            name: exercise.name.clone(),
            title: exercise.about.title.clone(),
            core: count(false),
            bonus: count(true),
            stages,
        }
    }
}
