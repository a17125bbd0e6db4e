//! Compiles and grades many answers to an exercise.

use std::sync::Mutex;
use std::thread;

use anyhow::Result;
use course::exercise::Exercise;
use workbook::grade::candidates::Candidate;
use workbook::grade::slot::Slot;

/// Workers that grade the answers to one exercise, each with one package into which it puts one answer after the other.
///
/// There is one worker more than there are processors, because some answers wait for a time limit.
pub struct Workers {
    pub slots: Vec<Slot>,
}

impl Workers {
    /// Compiles `first` in each package: the solution, of which the other answers are changes.
    ///
    /// # Errors
    /// Returns an error if `first` does not build.
    pub fn new(exercise: &Exercise, first: &str) -> Result<Workers> {
        let build = |worker: usize| {
            let name = format!("worker-{worker}");
            let first = Candidate {
                exercise,
                name: name.clone(),
                source: first.to_owned(),
            };
            Slot::new(&exercise.root, &name, &first)
        };
        let workers = thread::available_parallelism().map_or(2, |processors| processors.get() + 1);
        // One after the other, because each cargo waits for the lock of the target directory.
        let slots = (1..=workers).map(build).collect::<Result<_>>()?;
        Ok(Workers { slots })
    }

    /// Calls `grade` for each answer. The workers take the answers in turn.
    ///
    /// # Errors
    /// Returns the first error of `grade`.
    pub fn grade_each<T: Sync>(
        &self,
        answers: &[T],
        grade: impl Fn(&T, &Slot) -> Result<()> + Sync,
    ) -> Result<()> {
        let waiting = Mutex::new(answers.iter());
        let work = |slot: &Slot| -> Result<()> {
            loop {
                let next = waiting.lock().unwrap().next();
                let Some(answer) = next else {
                    return Ok(());
                };
                grade(answer, slot)?;
            }
        };
        thread::scope(|scope| {
            let work = &work;
            let threads = self.slots.iter().map(|slot| scope.spawn(|| work(slot)));
            let threads: Vec<_> = threads.collect();
            threads
                .into_iter()
                .try_for_each(|worker| worker.join().expect("a worker does not panic"))
        })
    }
}
