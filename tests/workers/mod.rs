//! Builds the graders of many answers to an exercise.

use std::sync::Mutex;
use std::thread;

use anyhow::Result;
use course::exercise::Exercise;
use workbook::grade::candidates::Candidate;
use workbook::grade::grader::Grader;
use workbook::grade::slot::Slot;

/// Calls `grade` for each answer with its grader, or with the compiler's errors. The workers take the answers in turn,
/// each with one package into which it puts one answer after the other. `first` is the answer that cargo builds: the
/// solution, of which the others are changes. `source` returns the text of an answer's `src/lib.rs`.
///
/// There is one worker more than there are processors, because some answers wait for a time limit.
///
/// # Errors
/// Returns an error if an answer cannot be built for another reason than its errors, and the first error of `grade`.
pub fn grade_each<T: Sync>(
    exercise: &Exercise,
    first: &str,
    answers: &[T],
    source: impl Fn(&T) -> String + Sync,
    grade: impl Fn(&T, Result<Grader, String>) -> Result<()> + Sync,
) -> Result<()> {
    let waiting = Mutex::new(answers.iter());
    let work = |worker: &str| -> Result<()> {
        let first = Candidate {
            exercise,
            name: worker.to_owned(),
            source: first.to_owned(),
        };
        let slot = Slot::new(&exercise.root, worker, &first)?;
        loop {
            let next = waiting.lock().unwrap().next();
            let Some(answer) = next else {
                return Ok(());
            };
            grade(answer, slot.compile(&source(answer))?)?;
        }
    };
    thread::scope(|scope| {
        let work = &work;
        let workers = thread::available_parallelism().map_or(2, |processors| processors.get() + 1);
        let workers = (1..=workers).map(|n| scope.spawn(move || work(&format!("worker-{n}"))));
        let workers: Vec<_> = workers.collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().expect("a worker does not panic"))
    })
}
