//! When a question comes back, and what is asked today: replays of a log under a clock that stands still.

use std::path::Path;

use course::log::{Count, Grade, Graded, Lines, Mock, Record, StageCount};
use drill::bank::Bank;
use drill::clock::{Clock, days_after, days_between};
use drill::progress::plan::{self, Plan, Scope};
use drill::progress::schedule::{Limits, Scheduler, recall};
use drill::progress::state::State;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// The learner's life: a clock and a log.
struct Life {
    bank: Bank,
    clock: Clock,
    records: Vec<Record>,
}

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

impl Life {
    /// It is ten in the morning.
    fn begin() -> Life {
        let clone = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clone");
        let now: Timestamp = "2026-11-25T10:00:00Z".parse().expect("a time");
        Life {
            bank: Bank::read(&clone).expect("a bank"),
            clock: Clock::fixed(now, TimeZone::UTC),
            records: Vec::new(),
        }
    }

    fn wait(&self, seconds: i64) {
        self.clock.advance(SignedDuration::from_secs(seconds));
    }

    fn state(&self) -> State {
        let lines = Lines {
            records: self.records.clone(),
            torn: Vec::new(),
        };
        State::replay(lines, &self.clock)
    }

    /// Grades a question as a session does. Returns the days until it comes back.
    fn grade(&mut self, question: &str, grade: u8) -> i64 {
        self.grade_within(question, grade, Limits::default())
    }

    fn grade_within(&mut self, question: &str, grade: u8, limits: Limits) -> i64 {
        let now = self.clock.now();
        let state = self.state();
        let card = state.cards.get(question);
        let due = Scheduler::new().due(card, now, limits, &self.clock)[usize::from(grade) - 1];
        self.records.push(Record::Grade(Grade {
            id: format!("{}", self.records.len()),
            at: now.as_second(),
            question: question.to_owned(),
            grade,
            sure: 2,
            right: grade > 1,
            seconds: 20,
            due: due.as_second(),
            cram: false,
        }));
        days_between(self.clock.today(), self.clock.day(due))
    }

    fn exercise(&mut self, failed: usize, solved: bool) {
        self.records.push(Record::Exercise(Graded {
            at: self.clock.now().as_second(),
            exercise: "region".to_owned(),
            solved,
            stages: vec![StageCount {
                name: "first".to_owned(),
                bonus: false,
                failure: None,
                count: Count {
                    passed: 3,
                    failed,
                    possible: 5,
                    ..Count::default()
                },
            }],
        }));
    }

    fn plan(&self, scope: &Scope) -> (Vec<&str>, Vec<&str>, Vec<&str>) {
        let plan = Plan::make(&self.bank, &self.state(), &self.clock, scope);
        let ids = |questions: Vec<&drill::bank::question::Question>| {
            let ids = questions.iter().map(|question| &*question.id);
            let ids: Vec<&str> = ids
                .map(|id| &*self.bank.get(id).expect("it is there").id)
                .collect();
            ids
        };
        (ids(plan.due), ids(plan.new), ids(plan.soon))
    }

    fn due(&self) -> Vec<&str> {
        self.plan(&Scope::default()).0
    }
}

#[test]
fn a_new_question_comes_back_after_1_2_or_8_days() {
    let days = [2, 3, 4].map(|grade| Life::begin().grade("zeros", grade));
    assert_eq!(days, [1, 2, 8]);
}

#[test]
fn what_was_not_known_comes_back_in_ten_minutes() {
    let mut life = Life::begin();
    assert_eq!(life.grade("zeros", 1), 0);
    assert_eq!(life.plan(&Scope::default()).2, ["zeros"], "soon");
    life.wait(10 * MINUTE - 1);
    assert!(life.due().is_empty());
    life.wait(1);
    assert_eq!(life.due(), ["zeros"]);
}

#[test]
fn a_question_is_due_when_its_day_begins() {
    let mut life = Life::begin();
    life.grade("zeros", 3);
    life.wait(DAY + 18 * HOUR - 1);
    assert_eq!(life.clock.local(life.clock.now()), "2026-11-27 03:59");
    assert!(life.due().is_empty());
    life.wait(1);
    assert_eq!(life.due(), ["zeros"]);
}

/// The intervals of FSRS-6 with its default parameters; another crate or version would give others.
#[test]
fn intervals_grow_with_every_good_answer() {
    let mut life = Life::begin();
    let mut intervals = Vec::new();
    for _ in 0..5 {
        let days = life.grade("zeros", 3);
        intervals.push(days);
        life.wait(days * DAY);
    }
    assert_eq!(intervals, [2, 11, 46, 163, 497]);
    let lapsed = life.grade("zeros", 1);
    assert_eq!(lapsed, 0);
    life.wait(DAY);
    assert!(life.grade("zeros", 3) < 30, "a lapse shortens it");
}

#[test]
fn what_is_remembered_fades() {
    let mut life = Life::begin();
    life.grade("zeros", 3);
    let state = life.state();
    let card = &state.cards["zeros"];
    let on = |days| recall(card, days_after(life.clock.today(), days), &life.clock);
    assert!((on(0) - 1.0).abs() < 0.001);
    assert!((on(2) - 0.9).abs() < 0.02, "{} when it is due", on(2));
    assert!(on(30) < on(10));
}

#[test]
fn certain_but_wrong_comes_back_today_whatever_the_grade() {
    for grade in 1..=4 {
        let mut life = Life::begin();
        let limits = Limits {
            today: true,
            interview: None,
        };
        assert_eq!(life.grade_within("zeros", grade, limits), 0);
        life.wait(10 * MINUTE);
        assert_eq!(life.due(), ["zeros"]);
    }
}

#[test]
fn undo_makes_it_as_if_nothing_had_been() {
    let mut life = Life::begin();
    life.grade("zeros", 3);
    life.wait(2 * DAY);
    let before = format!("{:?}", life.state().cards);
    life.grade("zeros", 1);
    assert_ne!(format!("{:?}", life.state().cards), before);
    life.records.push(Record::Undo {
        at: life.clock.now().as_second(),
        of: "1".to_owned(),
    });
    assert_eq!(format!("{:?}", life.state().cards), before);
    assert_eq!(life.state().grades.len(), 1);
}

#[test]
fn neither_cram_nor_mock_move_the_schedule() {
    let mut life = Life::begin();
    life.grade("zeros", 3);
    let before = format!("{:?}", life.state().cards);
    life.grade("zeros", 1);
    if let Some(Record::Grade(grade)) = life.records.last_mut() {
        grade.cram = true;
    }
    life.records.push(Record::Mock(Mock {
        at: 0,
        question: "zeros".to_owned(),
        made: vec![1],
        points: 2,
        seconds: 1,
    }));
    assert_eq!(format!("{:?}", life.state().cards), before);
    assert_eq!(life.state().grades.len(), 2, "but it is known");
}

#[test]
fn so_many_new_ones_a_day() {
    let mut life = Life::begin();
    let scope = Scope {
        new: Some(3),
        ..Scope::default()
    };
    assert_eq!(
        life.plan(&scope).1,
        ["zeros", "which", "prints"],
        "easy ones first, then what is asked most"
    );
    life.grade("zeros", 4);
    assert_eq!(life.plan(&scope).1, ["which", "prints"]);
    life.grade("which", 4);
    life.grade("prints", 4);
    assert!(life.plan(&scope).1.is_empty());
    life.wait(18 * HOUR);
    assert_eq!(life.plan(&scope).1.len(), 3, "the day has begun");
    assert_eq!(life.plan(&Scope::default()).1.len(), plan::NEW_A_DAY);
}

#[test]
fn an_exercise_unlocks_its_questions_for_good() {
    let mut life = Life::begin();
    let all = Scope {
        new: Some(100),
        ..Scope::default()
    };
    let locked = |life: &Life| {
        let state = life.state();
        let plan = Plan::make(&life.bank, &state, &life.clock, &all);
        (
            plan.locked.get("region").copied(),
            plan.new.iter().any(|one| one.id == "locked"),
        )
    };
    assert_eq!(locked(&life), (Some(1), false));
    life.exercise(1, false);
    assert_eq!(locked(&life), (Some(1), false));
    life.exercise(0, true);
    assert_eq!(locked(&life), (None, true));
    life.exercise(1, false);
    assert_eq!(
        locked(&life),
        (None, true),
        "what was solved once stays unlocked"
    );
}

#[test]
fn an_exercise_that_fails_asks_for_its_questions_once_a_day() {
    let mut life = Life::begin();
    // Its page leads to the exercise; the other's does not.
    life.grade("faults", 4);
    life.grade("zeros", 4);
    life.wait(DAY);
    assert!(life.due().is_empty());
    life.exercise(2, false);
    assert_eq!(life.due(), ["faults"]);
    let new = life.plan(&Scope::default()).1;
    assert!(new[0] != "which", "its new ones come first, too: {new:?}");
    assert_eq!(
        life.bank
            .get(new[0])
            .expect("it is there")
            .exercise
            .as_deref(),
        Some("region")
    );
    let state = life.state();
    let plan = Plan::make(&life.bank, &state, &life.clock, &Scope::default());
    assert!(
        plan.forward["region"] > 1,
        "and that is told: {:?}",
        plan.forward
    );
    life.grade("faults", 3);
    assert!(life.due().is_empty());
    life.exercise(2, false);
    assert!(life.due().is_empty(), "not twice on a day");
    life.wait(DAY);
    life.exercise(2, false);
    assert_eq!(life.due(), ["faults"]);
    life.exercise(0, true);
    assert!(life.due().is_empty(), "it passes now");
}

#[test]
fn a_case_that_was_not_started_is_no_failure() {
    let mut life = Life::begin();
    life.grade("faults", 4);
    life.wait(DAY);
    life.exercise(0, false);
    assert!(life.due().is_empty());
}

#[test]
fn an_interview_paces_what_is_new_and_ignores_locks() {
    let mut life = Life::begin();
    let scope = Scope {
        interview: Some("2026-11-29".parse().expect("a date")),
        ..Scope::default()
    };
    let all = life
        .bank
        .questions
        .iter()
        .filter(|question| !question.is_mock())
        .count();
    assert_eq!(all, 12);
    let interview = |life: &Life| {
        let state = life.state();
        let plan = Plan::make(&life.bank, &state, &life.clock, &scope);
        assert!(plan.locked.is_empty());
        let interview = plan.interview.expect("an interview");
        (interview.days, interview.new_a_day, plan.new.len())
    };
    assert_eq!(interview(&life), (4, 3, 3));
    let most_asked = life.plan(&scope).1[..2].to_vec();
    assert_eq!(most_asked, ["zeros", "faults"]);
    life.grade("zeros", 3);
    assert_eq!(interview(&life), (4, 3, 2), "one of today's is done");
    life.wait(DAY);
    assert_eq!(interview(&life), (3, 4, 4), "what was left is spread again");
    life.wait(2 * DAY);
    assert_eq!(interview(&life), (1, 11, 11));
    life.wait(DAY);
    assert_eq!(interview(&life), (0, 11, 11));
    assert!(scope.check(&life.clock).is_ok());
    life.wait(DAY);
    assert!(scope.check(&life.clock).is_err());
}

#[test]
fn before_an_interview_everything_comes_back_in_time() {
    let mut life = Life::begin();
    let limits = Limits {
        today: false,
        interview: Some("2026-11-29".parse().expect("a date")),
    };
    assert_eq!(
        life.grade_within("zeros", 4, limits),
        3,
        "on the day before"
    );
    assert_eq!(
        life.grade_within("which", 3, limits),
        2,
        "sooner stays sooner"
    );
}

#[test]
fn recall_on_the_day_is_of_what_was_seen() {
    let mut life = Life::begin();
    let scope = Scope {
        interview: Some("2026-12-05".parse().expect("a date")),
        ..Scope::default()
    };
    let predicted = |life: &Life| {
        let state = life.state();
        let plan = Plan::make(&life.bank, &state, &life.clock, &scope);
        plan.interview.expect("an interview").recall
    };
    assert_eq!(predicted(&life), None);
    life.grade("zeros", 1);
    let bad = predicted(&life).expect("one was seen");
    life.grade("which", 4);
    let better = predicted(&life).expect("two were seen");
    assert!(bad < better && better < 1.0, "{bad} {better}");
}

#[test]
fn cram_begins_with_the_weakest_and_most_asked() {
    let mut life = Life::begin();
    life.grade("zeros", 4);
    let state = life.state();
    let crammed = plan::cram(&life.bank, &state, &life.clock, &Scope::default());
    let crammed: Vec<_> = crammed.iter().map(|question| &*question.id).collect();
    assert_eq!(
        crammed[..2],
        ["faults", "which"],
        "asked 3 and 2, never seen"
    );
    assert_eq!(crammed.last(), Some(&"zeros"), "asked most, and known");
    assert!(crammed.contains(&"locked"));
    assert!(!crammed.contains(&"talk"), "no mock question");
}

#[test]
fn cram_goes_on_where_it_ended_and_comes_back_to_what_was_wrong() {
    let mut life = Life::begin();
    for (question, grade) in [("faults", 3), ("zeros", 1)] {
        life.grade(question, grade);
        if let Some(Record::Grade(grade)) = life.records.last_mut() {
            grade.cram = true;
        }
    }
    let crammed = |life: &Life| {
        let state = life.state();
        let crammed = plan::cram(&life.bank, &state, &life.clock, &Scope::default());
        crammed.iter().map(|one| one.id.clone()).collect::<Vec<_>>()
    };
    let tonight = crammed(&life);
    assert_eq!(tonight[0], "zeros", "it was wrong");
    assert_eq!(tonight.last().map(String::as_str), Some("faults"));
    life.wait(DAY);
    assert_eq!(
        crammed(&life)[..2],
        ["zeros", "faults"],
        "nothing is known of it"
    );
}

#[test]
fn a_scope_is_kept() {
    let life = Life::begin();
    let scope = Scope {
        topics: vec!["private".to_owned()],
        level: Some(2),
        ..Scope::default()
    };
    assert_eq!(life.plan(&scope).1, ["faults", "leak", "steps"]);
    let nowhere = Scope {
        topics: vec!["nowhere".to_owned()],
        ..Scope::default()
    };
    assert!(nowhere.check(&life.clock).is_err());
}
