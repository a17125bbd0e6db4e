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
        let count = |is: fn(&Grade) -> bool| self.grades.iter().filter(|one| is(one)).count();
        terminal.line("")?;
        terminal.strong(&format!(
            "Done {}: {} right, {} partly right, {} wrong. {} proved. {} certain but wrong.",
            self.grades.len(),
            count(|grade| grade.right),
            count(|grade| grade.partly),
            count(|grade| !grade.right && !grade.partly),
            self.proved,
            count(|grade| !grade.right && !grade.partly && grade.sure == 3)
        ))?;
        for (topic, grades) in self.by_topic(bank) {
            let right = grades.iter().filter(|grade| grade.right).count();
            if right * 2 <= grades.len() {
                let link = link(&grades, bank);
                let of = grades.len();
                terminal.text(&format!("Weak: {topic}, {right} of {of} right. {link}"))?;
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
    let page = format!("Read book/src/{}", question.page);
    match &question.exercise {
        Some(exercise) => format!("{page}, and practise with exercises/{exercise}."),
        None => format!("{page}."),
    }
}
