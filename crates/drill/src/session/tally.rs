//! What was done in a session, for the summary at its end.

use std::collections::BTreeMap;
use std::io;

use course::log::Grade;

use crate::bank::Bank;
use crate::terminal::Terminal;

#[derive(Default)]
pub(super) struct Tally {
    /// The grades that were not undone, in order.
    grades: Vec<Grade>,
    proved: usize,
}

impl Tally {
    pub(super) fn count(&self) -> usize {
        self.grades.len()
    }

    pub(super) fn add_proof(&mut self, proved: bool) {
        self.proved += usize::from(proved);
    }

    pub(super) fn add_grade(&mut self, grade: Grade) {
        self.grades.push(grade);
    }

    pub(super) fn last_grade(&self) -> Option<&Grade> {
        self.grades.last()
    }

    pub(super) fn remove_last_grade(&mut self) {
        self.grades.pop();
    }

    pub(super) fn print(&self, bank: &Bank, terminal: &mut Terminal) -> io::Result<()> {
        let right = self.grades.iter().filter(|grade| grade.right).count();
        let certain_but_wrong = self.grades.iter();
        let certain_but_wrong = certain_but_wrong.filter(|one| !one.right && one.sure == 3);
        terminal.line("")?;
        terminal.strong(&format!(
            "Done {}: {right} right, {} proved, {} certain but wrong.",
            self.grades.len(),
            self.proved,
            certain_but_wrong.count()
        ))?;
        for (topic, grades) in self.by_topic(bank) {
            let right = grades.iter().filter(|grade| grade.right).count();
            if right * 2 <= grades.len() {
                let link = link(&grades, bank);
                terminal.text(&format!("Weak: {topic} {right}/{}{link}", grades.len()))?;
            }
        }
        Ok(())
    }

    fn by_topic<'a>(&'a self, bank: &'a Bank) -> BTreeMap<&'a str, Vec<&'a Grade>> {
        let mut topics: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for grade in &self.grades {
            if let Some(question) = bank.get(&grade.question) {
                topics.entry(&*question.topic).or_default().push(grade);
            }
        }
        topics
    }
}

/// Returns the page and the exercise of the last wrong answer.
fn link(grades: &[&Grade], bank: &Bank) -> String {
    let wrong = grades.iter().rfind(|grade| !grade.right);
    let Some(question) = wrong.and_then(|grade| bank.get(&grade.question)) else {
        return String::new();
    };
    let page = format!(": book/src/{}", question.page);
    match &question.exercise {
        Some(exercise) => format!("{page}, exercise {exercise}"),
        None => page,
    }
}
