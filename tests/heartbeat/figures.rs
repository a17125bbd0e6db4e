//! Prints the measured figures, each with its goal and the last measurement, and keeps a history of them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

pub struct Figures {
    history: PathBuf,
    last: BTreeMap<String, f64>,
    measured: BTreeMap<String, f64>,
}

/// A line of the history.
#[derive(Serialize, Deserialize)]
struct Measurement {
    /// Seconds since 1970.
    time: u64,
    figures: BTreeMap<String, f64>,
}

impl Figures {
    /// Reads the last measurement from the file `history`, if there is one.
    pub fn new(history: PathBuf) -> Figures {
        let lines = fs::read_to_string(&history).unwrap_or_default();
        let last = lines.lines().last();
        let last = last.and_then(|line| serde_json::from_str::<Measurement>(line).ok());
        Figures {
            history,
            last: last.map(|last| last.figures).unwrap_or_default(),
            measured: BTreeMap::new(),
        }
    }

    /// Prints a time for which there is no goal.
    pub fn time(&mut self, name: &str, time: Duration) {
        println!("  {name:<46} {:>5.0} ms", ms(time));
    }

    /// Prints a time and its ratio to `base`.
    pub fn ratio(&mut self, name: &str, time: Duration, base: Duration, goal: f64) {
        let ratio = ms(time) / ms(base);
        let compared = self.compared(name, ratio, goal);
        println!("  {name:<46} {:>5.0} ms   {compared}", ms(time));
    }

    /// Prints an amount in `unit`.
    pub fn amount(&mut self, name: &str, amount: f64, unit: &str, goal: f64) {
        let compared = self.compared(name, amount, goal);
        println!("  {name:<46} {compared} {unit}");
    }

    fn compared(&mut self, name: &str, figure: f64, goal: f64) -> String {
        self.measured.insert(name.to_owned(), figure);
        let last = self.last.get(name);
        let last = last.map_or(String::new(), |last| format!(", last time {last:.2}"));
        format!("{figure:.2} (goal {goal:.2}{last})")
    }

    /// Appends the figures to the history.
    pub fn save(self) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let measurement = Measurement {
            time: since.map_or(0, |since| since.as_secs()),
            figures: self.measured,
        };
        let line = serde_json::to_string(&measurement).expect("numbers");
        let mut options = File::options();
        let file = options.create(true).append(true).open(&self.history);
        let written = file.and_then(|mut file| writeln!(file, "{line}"));
        written.unwrap_or_else(|error| panic!("{}: {error}", self.history.display()));
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
