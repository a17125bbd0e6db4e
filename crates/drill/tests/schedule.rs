//! When a question comes back, and what is asked today. Each test replays a log under a stopped clock.

use std::collections::BTreeSet;
use std::path::Path;

use course::log::{Count, Grade, Graded, Lines, Mock, Record, StageCount};
use drill::bank::Bank;
use drill::bank::question::Question;
use drill::clock::{Clock, days_after, days_between};
use drill::progress::plan::{self, Plan, Scope};
use drill::progress::schedule::{Limits, Scheduler, recall};
use drill::progress::state::State;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

struct Learner {
    bank: Bank,
    clock: Clock,
    records: Vec<Record>,
}

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

impl Learner {
    fn new() -> Learner {
        Learner::in_clone(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clone"))
    }

    fn in_clone(clone: &Path) -> Learner {
        let now: Timestamp = "2026-11-25T10:00:00Z".parse().expect("a time");
        Learner {
            bank: Bank::read(clone).expect("a bank"),
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
            ..Lines::default()
        };
        State::replay(lines, &self.clock)
    }

    /// Grades a question like a session, and returns the days until it comes back.
    fn grade(&mut self, question: &str, grade: u8) -> i64 {
        self.grade_within(question, grade, Limits::default())
    }

    fn grade_within(&mut self, question: &str, grade: u8, limits: Limits) -> i64 {
        let now = self.clock.now();
        let state = self.state();
        let card = state.cards.get(question);
        let due = Scheduler::default().due(card, now, limits, &self.clock)[usize::from(grade) - 1];
        self.records.push(Record::Grade(Grade {
            id: format!("{}", self.records.len()),
            at: now.as_second(),
            question: question.to_owned(),
            grade,
            sure: 2,
            right: grade > 1,
            partly: false,
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
        let plan = Plan::new(&self.bank, &self.state(), &self.clock, scope);
        let ids = |questions: Vec<&Question>| {
            let ids = questions.iter().map(|question| &*question.id);
            let ids: Vec<&str> = ids
                .map(|id| &*self.bank.get(id).expect("the question exists").id)
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
    let days = [2, 3, 4].map(|grade| Learner::new().grade("zeros", grade));
    assert_eq!(days, [1, 2, 8]);
}

#[test]
fn an_unknown_question_comes_back_in_ten_minutes() {
    let mut learner = Learner::new();
    assert_eq!(learner.grade("zeros", 1), 0);
    assert_eq!(learner.plan(&Scope::default()).2, ["zeros"], "soon");
    learner.wait(10 * MINUTE - 1);
    assert!(learner.due().is_empty());
    learner.wait(1);
    assert_eq!(learner.due(), ["zeros"]);
}

#[test]
fn a_question_is_due_when_its_day_begins() {
    let mut learner = Learner::new();
    learner.grade("zeros", 3);
    learner.wait(DAY + 18 * HOUR - 1);
    assert_eq!(learner.clock.local(learner.clock.now()), "2026-11-27 03:59");
    assert!(learner.due().is_empty());
    learner.wait(1);
    assert_eq!(learner.due(), ["zeros"]);
}

/// The intervals of FSRS-6 with its default parameters. Another crate or version may have others.
#[test]
fn intervals_grow_with_good_answers() {
    let mut learner = Learner::new();
    let mut intervals = Vec::new();
    for _ in 0..5 {
        let days = learner.grade("zeros", 3);
        intervals.push(days);
        learner.wait(days * DAY);
    }
    assert_eq!(intervals, [2, 11, 46, 163, 497]);
    let lapsed = learner.grade("zeros", 1);
    assert_eq!(lapsed, 0);
    learner.wait(DAY);
    assert!(learner.grade("zeros", 3) < 30, "a lapse shortens it");
}

#[test]
fn recall_decreases_with_time() {
    let mut learner = Learner::new();
    learner.grade("zeros", 3);
    let state = learner.state();
    let card = &state.cards["zeros"];
    let on = |days| {
        recall(
            card,
            days_after(learner.clock.today(), days),
            &learner.clock,
        )
    };
    assert!((on(0) - 1.0).abs() < 0.001);
    assert!((on(2) - 0.9).abs() < 0.02, "{} when it is due", on(2));
    assert!(on(30) < on(10));
}

#[test]
fn a_certain_but_wrong_answer_comes_back_today() {
    for grade in 1..=4 {
        let mut learner = Learner::new();
        let limits = Limits {
            today: true,
            interview: None,
        };
        assert_eq!(learner.grade_within("zeros", grade, limits), 0);
        learner.wait(10 * MINUTE);
        assert_eq!(learner.due(), ["zeros"]);
    }
}

#[test]
fn undo_restores_the_state() {
    let mut learner = Learner::new();
    learner.grade("zeros", 3);
    learner.wait(2 * DAY);
    let before = format!("{:?}", learner.state().cards);
    learner.grade("zeros", 1);
    assert_ne!(format!("{:?}", learner.state().cards), before);
    learner.records.push(Record::Undo {
        at: learner.clock.now().as_second(),
        of: "1".to_owned(),
    });
    assert_eq!(format!("{:?}", learner.state().cards), before);
    assert_eq!(learner.state().grades.len(), 1);
}

#[test]
fn cram_and_mock_leave_the_schedule_unchanged() {
    let mut learner = Learner::new();
    learner.grade("zeros", 3);
    let before = format!("{:?}", learner.state().cards);
    learner.grade("zeros", 1);
    if let Some(Record::Grade(grade)) = learner.records.last_mut() {
        grade.cram = true;
    }
    learner.records.push(Record::Mock(Mock {
        at: 0,
        question: "zeros".to_owned(),
        made: vec![1],
        points: 2,
        seconds: 1,
    }));
    assert_eq!(format!("{:?}", learner.state().cards), before);
    assert_eq!(
        learner.state().grades.len(),
        2,
        "the grade is still counted"
    );
}

#[test]
fn the_number_of_new_questions_a_day_is_limited() {
    let mut learner = Learner::new();
    let scope = Scope {
        new: Some(3),
        ..Scope::default()
    };
    assert_eq!(
        learner.plan(&scope).1,
        ["zeros", "which", "prints"],
        "easy ones first, then what is asked most"
    );
    learner.grade("zeros", 4);
    assert_eq!(learner.plan(&scope).1, ["which", "prints"]);
    learner.grade("which", 4);
    learner.grade("prints", 4);
    assert!(learner.plan(&scope).1.is_empty());
    learner.wait(18 * HOUR);
    assert_eq!(learner.plan(&scope).1.len(), 3, "a new day has begun");
    assert_eq!(learner.plan(&Scope::default()).1.len(), plan::NEW_A_DAY);
}

#[test]
fn a_solved_exercise_unlocks_its_questions_for_good() {
    let mut learner = Learner::new();
    let all = Scope {
        new: Some(100),
        ..Scope::default()
    };
    let locked = |learner: &Learner| {
        let state = learner.state();
        let plan = Plan::new(&learner.bank, &state, &learner.clock, &all);
        (
            plan.locked.get("region").copied(),
            plan.new.iter().any(|one| one.id == "locked"),
        )
    };
    assert_eq!(locked(&learner), (Some(1), false));
    learner.exercise(1, false);
    assert_eq!(locked(&learner), (Some(1), false));
    learner.exercise(0, true);
    assert_eq!(locked(&learner), (None, true));
    learner.exercise(1, false);
    assert_eq!(
        locked(&learner),
        (None, true),
        "a later failure locks nothing"
    );
}

#[test]
fn a_failed_exercise_brings_its_questions_forward_once_a_day() {
    let mut learner = Learner::new();
    // The page of `faults` links to the exercise; the page of `zeros` does not.
    learner.grade("faults", 4);
    learner.grade("zeros", 4);
    learner.wait(DAY);
    assert!(learner.due().is_empty());
    learner.exercise(2, false);
    assert_eq!(learner.due(), ["faults"]);
    let new = learner.plan(&Scope::default()).1;
    assert!(
        new[0] != "which",
        "new questions come forward, too: {new:?}"
    );
    assert_eq!(
        learner
            .bank
            .get(new[0])
            .expect("the question exists")
            .exercise
            .as_deref(),
        Some("region")
    );
    let state = learner.state();
    let plan = Plan::new(&learner.bank, &state, &learner.clock, &Scope::default());
    assert!(plan.forward["region"] > 1, "{:?}", plan.forward);
    learner.grade("faults", 3);
    assert!(learner.due().is_empty());
    learner.exercise(2, false);
    assert!(learner.due().is_empty(), "only once a day");
    learner.wait(DAY);
    learner.exercise(2, false);
    assert_eq!(learner.due(), ["faults"]);
    learner.exercise(0, true);
    assert!(learner.due().is_empty(), "the exercise passes now");
}

#[test]
fn a_case_that_was_not_started_is_not_a_failure() {
    let mut learner = Learner::new();
    learner.grade("faults", 4);
    learner.wait(DAY);
    learner.exercise(0, false);
    assert!(learner.due().is_empty());
}

#[test]
fn before_an_interview_new_questions_are_spread_and_unlocked() {
    let mut learner = Learner::new();
    let scope = Scope {
        interview: Some("2026-11-29".parse().expect("a date")),
        ..Scope::default()
    };
    let all = learner
        .bank
        .questions
        .iter()
        .filter(|question| !question.is_mock())
        .count();
    assert_eq!(all, 12);
    let interview = |learner: &Learner| {
        let state = learner.state();
        let plan = Plan::new(&learner.bank, &state, &learner.clock, &scope);
        assert!(plan.locked.is_empty());
        let interview = plan.interview.expect("an interview");
        (interview.days, interview.new_a_day, plan.new.len())
    };
    assert_eq!(interview(&learner), (4, 3, 3));
    let most_asked = learner.plan(&scope).1[..2].to_vec();
    assert_eq!(most_asked, ["zeros", "faults"]);
    learner.grade("zeros", 3);
    assert_eq!(
        interview(&learner),
        (4, 3, 2),
        "one question of today is done"
    );
    learner.wait(DAY);
    assert_eq!(
        interview(&learner),
        (3, 4, 4),
        "the remaining ones are spread again"
    );
    learner.wait(2 * DAY);
    assert_eq!(interview(&learner), (1, 11, 11));
    learner.wait(DAY);
    assert_eq!(interview(&learner), (0, 11, 11));
    assert!(scope.check(&learner.clock).is_ok());
    learner.wait(DAY);
    assert!(scope.check(&learner.clock).is_err());
}

#[test]
fn questions_come_back_before_the_interview() {
    let mut learner = Learner::new();
    let limits = Limits {
        today: false,
        interview: Some("2026-11-29".parse().expect("a date")),
    };
    assert_eq!(
        learner.grade_within("zeros", 4, limits),
        3,
        "on the day before"
    );
    assert_eq!(
        learner.grade_within("which", 3, limits),
        2,
        "a shorter interval is kept"
    );
}

#[test]
fn predicted_recall_counts_seen_questions() {
    let mut learner = Learner::new();
    let scope = Scope {
        interview: Some("2026-12-05".parse().expect("a date")),
        ..Scope::default()
    };
    let predicted = |learner: &Learner| {
        let state = learner.state();
        let plan = Plan::new(&learner.bank, &state, &learner.clock, &scope);
        plan.interview.expect("an interview").recall
    };
    assert_eq!(predicted(&learner), None);
    learner.grade("zeros", 1);
    let bad = predicted(&learner).expect("one question was seen");
    learner.grade("which", 4);
    let better = predicted(&learner).expect("two questions were seen");
    assert!(bad < better && better < 1.0, "{bad} {better}");
}

/// The ids of the questions to cram, at most `most`.
fn crammed(learner: &Learner, most: usize) -> Vec<String> {
    let state = learner.state();
    let scope = Scope::default();
    let crammed = plan::cram(&learner.bank, &state, &learner.clock, &scope, most);
    crammed.iter().map(|one| one.id.clone()).collect()
}

#[test]
fn cram_begins_with_the_weakest_and_most_asked_questions() {
    let mut learner = Learner::new();
    learner.grade("zeros", 4);
    let crammed = crammed(&learner, 100);
    assert_eq!(
        crammed[..2],
        ["faults", "which"],
        "most asked, and never seen"
    );
    let others = crammed.len() - 1;
    let weakest = self::crammed(&learner, others);
    let contains = |ids: &[String], id: &str| ids.iter().any(|one| one == id);
    assert!(!contains(&weakest, "zeros"), "known, although most asked");
    assert!(contains(&crammed, "locked"));
    assert!(!contains(&crammed, "talk"), "mock questions are left out");
}

#[test]
fn cram_repeats_wrong_answers_before_right_ones() {
    let mut learner = Learner::new();
    for (question, grade) in [("faults", 3), ("zeros", 1)] {
        learner.grade(question, grade);
        if let Some(Record::Grade(grade)) = learner.records.last_mut() {
            grade.cram = true;
        }
    }
    let tonight = crammed(&learner, 100);
    assert_eq!(tonight[0], "zeros", "the answer was wrong");
    assert_eq!(tonight.last().map(String::as_str), Some("faults"));
    learner.wait(DAY);
    assert_eq!(
        crammed(&learner, 100)[..2],
        ["zeros", "faults"],
        "an answer of yesterday does not count as known"
    );
}

#[test]
fn a_scope_limits_topic_and_level() {
    let learner = Learner::new();
    let scope = Scope {
        topics: vec!["private".to_owned()],
        level: Some(2),
        ..Scope::default()
    };
    assert_eq!(learner.plan(&scope).1, ["faults", "leak", "steps"]);
    let nowhere = Scope {
        topics: vec!["nowhere".to_owned()],
        ..Scope::default()
    };
    assert!(nowhere.check(&learner.clock).is_err());
}

/// A week with the book's own questions. Every other answer is wrong, so that many questions are due.
fn topics_of_a_week() -> Vec<String> {
    let root = course::root::find().expect("a clone");
    let mut learner = Learner::in_clone(&root);
    let mut topics: Vec<String> = Vec::new();
    let mut due = 0;
    for _ in 0..7 {
        for _ in 0..20 {
            let state = learner.state();
            let plan = Plan::new(&learner.bank, &state, &learner.clock, &Scope::default());
            let part = [&plan.due, &plan.new]
                .into_iter()
                .find(|part| !part.is_empty());
            let (Some(part), Some(first)) = (part, plan.first()) else {
                break;
            };
            due += plan.due.len().min(1);
            let last = topics.last();
            let is_same = |question: &&&Question| Some(&question.topic) == last;
            let same = part.iter().filter(is_same).count();
            assert!(
                Some(&first.topic) != last || same == part.len(),
                "{} twice, although others are left",
                first.topic
            );
            let grade = if topics.len().is_multiple_of(2) { 3 } else { 1 };
            let (id, topic) = (first.id.clone(), first.topic.clone());
            topics.push(topic);
            learner.grade(&id, grade);
            learner.wait(MINUTE);
        }
        learner.wait(DAY);
    }
    assert!(due > 20, "only {due} questions were due");
    topics
}

#[test]
fn topics_alternate() {
    let topics = topics_of_a_week();
    assert!(topics.len() > 50, "{topics:?}");
    let first_day: BTreeSet<_> = topics[..plan::NEW_A_DAY].iter().collect();
    assert!(first_day.len() > 4, "{first_day:?}");
    assert_eq!(topics, topics_of_a_week(), "the order is always the same");
}

#[test]
fn cram_and_mock_alternate_topics() {
    let root = course::root::find().expect("a clone");
    let learner = Learner::in_clone(&root);
    let (bank, state, scope) = (&learner.bank, learner.state(), Scope::default());
    let cram = plan::cram(bank, &state, &learner.clock, &scope, 20);
    let mock = plan::mock(bank, &state, &scope, 5);
    for questions in [cram, mock] {
        let mut pairs = questions.windows(2);
        let same = pairs.find(|pair| pair[0].topic == pair[1].topic);
        let ids = same.map(|pair| [&pair[0].id, &pair[1].id]);
        assert_eq!(ids, None, "two questions on one topic in a row");
    }
}
