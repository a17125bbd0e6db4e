//! Prints the report as text, at most 80 columns wide.

use anstream::println;
use anstyle::{AnsiColor, Style};

use super::{IN_CHART, kib_or_mib};
use crate::history::Run;
use crate::report::Report;
use crate::report::rows::Row;
use crate::report::score::{Item, Part, Score};
use crate::run::Count;

const STRONG: Style = Style::new().bold();
const FAINT: Style = Style::new().dimmed();
const WIDTH: usize = 80;

/// Prints the report, and the last runs if there are at least two. The last of them is this run.
pub fn print(report: &Report, runs: &[Run]) {
    let machine = &report.machine;
    println!("{}", styled(STRONG, &title(report)));
    paragraph(&format!(
        "{}, {}, {} CPUs with a load of {:.1}, huge pages: {}. Each measurement runs in a separate process.",
        machine.libc, machine.kernel, machine.cpus, machine.load, machine.huge_pages
    ));
    if machine.load > machine.cpus as f64 {
        paragraph("The machine is busy, so the times are less precise.");
    }
    heading("System calls, page faults and instructions");
    columns(report, &WORK);
    heading("Memory");
    columns(report, &MEMORY);
    heading(&format!(
        "CPU time as a ratio to glibc, and (MiB kept when all is freed); rounds: {}",
        report.rounds
    ));
    columns(report, &TIMES);
    paragraph(LEGEND);
    paragraph(&large_blocks(report));
    let score = &report.score;
    heading(&format!(
        "Goals: {:.1} of {:.0} points",
        score.points, score.of
    ));
    score.parts.iter().for_each(part);
    paragraph(&notes(score));
    remarks(report);
    last_runs(report, runs);
}

/// Explains [`TIMES`].
const LEGEND: &str = "–: not measured. ~: imprecise, because the rounds differ by more than 5 %, or there are fewer than \
                      three. noise: they differ by more than 25 %. glibc again: how far equal times differ by chance. \
                      glibc pinned: with a fixed threshold of 128 KiB, like the one with which ThresholdAlloc starts; \
                      glibc as shipped raises it, and keeps the memory.";

fn title(report: &Report) -> String {
    let whose = match report.subject {
        "yours" => "Your",
        _ => "The solution's",
    };
    let lacks = match report.lacks.0.as_slice() {
        [] => String::new(),
        stages => format!(", without {}", stages.join(", ")),
    };
    format!("{whose} ThresholdAlloc{lacks}, and other allocators")
}

struct Column {
    /// In three lines.
    heading: [&'static str; 3],
    width: usize,
    cell: fn(&Row) -> Option<String>,
}

const fn column(
    heading: [&'static str; 3],
    width: usize,
    cell: fn(&Row) -> Option<String>,
) -> Column {
    Column {
        heading,
        width,
        cell,
    }
}

const WORK: [Column; 6] = [
    column(["calls for", "a large", "block"], 11, |row| {
        calls(row, "large")
    }),
    column(["calls for", "a small", "block"], 11, |row| {
        calls(row, "small")
    }),
    column(["calls for", "a Vec's", "doubling"], 11, |row| {
        calls(row, "vec")
    }),
    column(["faults a", "page, large", "blocks"], 12, |row| {
        faults(row, "large")
    }),
    column(["faults a", "page, zeros", "not touched"], 12, |row| {
        faults(row, "untouched")
    }),
    column(["instr. for", "a small", "block"], 11, |row| {
        Some(format!("{:.0}", row.instructions?))
    }),
];

const MEMORY: [Column; 4] = [
    column(["share of heap", "in use, small", "blocks"], 16, |row| {
        Some(format!("{:.0} %", 100.0 * row.utilisation()?))
    }),
    column(["MiB resident", "while they", "are allocated"], 17, |row| {
        Some(format!("{:.0}", row.peak()?))
    }),
    column(["MiB kept", "when they", "are freed"], 17, |row| {
        Some(short(row.kept_after("heap")?))
    }),
    column(
        ["MiB kept when", "blocks of 1 MiB", "are freed"],
        17,
        |row| Some(short(row.kept_after("blocks")?)),
    ),
];

const TIMES: [Column; 6] = [
    column(["", "small", "churn"], 11, |row| time(row, "small")),
    column(["", "mixed", "sizes"], 11, |row| time(row, "mixed")),
    column(["", "large", "blocks"], 11, |row| time(row, "large")),
    column(["", "a Vec", "that grows"], 12, |row| time(row, "vec")),
    column(["", "sparse", "zeros"], 11, |row| time(row, "sparse")),
    column(["", "two", "threads"], 11, |row| time(row, "threads")),
];

fn calls(row: &Row, workload: &str) -> Option<String> {
    Some(short(row.count(workload)?.calls_per_step()?))
}

fn faults(row: &Row, workload: &str) -> Option<String> {
    row.count(workload).map(Count::faults_per_page).map(short)
}

fn time(row: &Row, workload: &str) -> Option<String> {
    let ratio = row.times.get(workload)?;
    let kept = row.kept.get(workload)?;
    if ratio.is_noise() {
        return Some(format!("noise ({kept:.0})"));
    }
    let sign = if ratio.is_precise() { "" } else { "~" };
    let digits = if ratio.median < 9.995 { 2 } else { 0 };
    Some(format!("{sign}{:.digits$} ({kept:.0})", ratio.median))
}

/// Formats a count with at most two decimals. Only 0 is shown as 0.
fn short(value: f64) -> String {
    match value {
        value if value.fract() == 0.0 => format!("{value}"),
        value if value < 0.005 => "<0.01".to_owned(),
        value if value < 10.0 => format!("{value:.2}"),
        value => format!("{value:.0}"),
    }
}

/// The width of the first column, which has the names.
const NAME: usize = 12;

fn columns(report: &Report, columns: &[Column]) {
    for line in 0..3 {
        let cells = columns.iter();
        let cells = cells.map(|column| format!("{:>1$}", column.heading[line], column.width));
        let line = " ".repeat(NAME) + &cells.collect::<String>();
        if !line.trim().is_empty() {
            println!("{}", styled(FAINT, line.trim_end()));
        }
    }
    for row in &report.rows {
        let cells: Vec<_> = columns.iter().map(|column| (column.cell)(row)).collect();
        if cells.iter().all(Option::is_none) {
            continue;
        }
        let cells = cells.into_iter().zip(columns).map(|(cell, column)| {
            let cell = cell.unwrap_or_else(|| "–".to_owned());
            format!("{cell:>0$}", column.width)
        });
        let line = format!("{:<NAME$}{}", row.name, cells.collect::<String>());
        match row.allocator.is_subject() {
            true => println!("{}", styled(STRONG, &line)),
            false => println!("{line}"),
        }
    }
}

/// Describes the times of the smallest and the largest blocks.
fn large_blocks(report: &Report) -> String {
    let ends = report.large.first().into_iter().chain(report.large.last());
    let sizes = ends.map(|size| {
        let all = size.ns_a_page.iter();
        let shown = all.filter(|(allocator, _)| IN_CHART.contains(allocator));
        let times = shown.map(|(allocator, ns)| format!("{} {ns:.0}", allocator.name()));
        let times: Vec<_> = times.collect();
        format!("of {}: {}", kib_or_mib(size.bytes), times.join(", "))
    });
    let sizes: Vec<_> = sizes.collect();
    format!(
        "CPU time in ns for each page of a large block that is allocated, filled and freed, {}.",
        sizes.join("; ")
    )
}

fn part(part: &Part) {
    let points = match part.points {
        Some(points) => format!("{points:.1} of {:.0} points", part.of),
        None => "not scored".to_owned(),
    };
    println!("{}: {points}", part.name);
    part.items.iter().for_each(item);
}

fn item(item: &Item) {
    let (sign, color) = match item.met {
        Some(true) => ("✓", AnsiColor::Green),
        Some(false) => ("✗", AnsiColor::Red),
        None => ("–", AnsiColor::Yellow),
    };
    println!(
        "  {} {:<36} {:<19} {}",
        styled(color.on_default(), sign),
        item.what,
        item.goal,
        item.measured
    );
}

/// Explains the words that stand for a missing value.
fn notes(score: &Score) -> String {
    let shown = |end: &str| {
        let mut items = score.parts.iter().flat_map(|part| &part.items);
        items.any(|item| item.measured.ends_with(end))
    };
    let mut notes = String::from(
        "Without its lock: less what an uncontended lock at each call takes. A goal with – is not part of the score.",
    );
    if shown("(noisy)") {
        notes += " (noisy): too imprecise to tell, or there were fewer than three rounds.";
    }
    if shown("noise") {
        notes += " noise: the rounds differ by more than 25 %.";
    }
    notes
}

fn remarks(report: &Report) {
    if !report.behind.is_empty() {
        heading("Where another allocator is faster, and why");
        report.behind.iter().for_each(|text| paragraph(text));
    }
    for skipped in &report.skipped {
        paragraph(&format!("Skipped: {}: {}.", skipped.what, skipped.why));
    }
    for failed in &report.failed {
        let name = failed.allocator.name().trim();
        paragraph(&format!(
            "{name} failed at {}: {}",
            failed.workload, failed.why
        ));
    }
}

/// The columns of the last runs: two lines of heading, the width, and the key of the score's item.
const LAST: [([&str; 2], usize, &str); 7] = [
    (["instruc-", "tions"], 9, "instructions"),
    (["small,", "no lock"], 9, "small-unlocked"),
    (["small,", "cached"], 8, "small-cached"),
    (["large,", "floor"], 8, "large"),
    (["grown", "Vec"], 7, "vec"),
    (["sparse", "zeros"], 8, "sparse"),
    (["threads,", "cached"], 9, "threads-cached"),
];

fn last_runs(report: &Report, runs: &[Run]) {
    let [earlier @ .., this] = runs else { return };
    if earlier.is_empty() {
        return;
    }
    heading(match report.subject {
        "yours" => "Your last runs",
        _ => "The last runs with the solution",
    });
    for line in 0..2 {
        let points = ["", "points"][line];
        let cells = LAST
            .iter()
            .map(|(heading, width, _)| format!("{:>width$}", heading[line]));
        let line = format!("{:16}{points:>8}{}", "", cells.collect::<String>());
        println!("{}", styled(FAINT, line.trim_end()));
    }
    for run in runs {
        let when = match this.at - run.at {
            0 => "this run".to_owned(),
            seconds => ago(seconds),
        };
        let when = if run.quick { when + ", quick" } else { when };
        let points = format!("{:.0}/{:.0}", run.points, run.of);
        let cells = LAST.iter().map(|(_, width, key)| {
            let value = run.values.get(*key).map(|value| match *value {
                value if value < 9.995 => format!("{value:.2}"),
                value => format!("{value:.0}"),
            });
            format!("{:>width$}", value.unwrap_or_else(|| "–".to_owned()))
        });
        println!("{when:16}{points:>8}{}", cells.collect::<String>());
    }
}

/// Formats how long ago something was.
fn ago(seconds: i64) -> String {
    match seconds {
        ..3_600 => format!("{} min ago", seconds / 60),
        3_600..172_800 => format!("{} h ago", seconds / 3_600),
        _ => format!("{} d ago", seconds / 86_400),
    }
}

fn heading(text: &str) {
    println!("\n{}", styled(STRONG, text));
}

fn paragraph(text: &str) {
    println!("{}", textwrap::fill(text, WIDTH));
}

fn styled(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_fit_the_width() {
        for columns in [WORK.as_slice(), &MEMORY, &TIMES] {
            let widths: usize = columns.iter().map(|column| column.width).sum();
            assert!(NAME + widths <= WIDTH, "{widths}");
            for column in columns {
                let longest = column.heading.iter().map(|line| line.len()).max();
                assert!(longest < Some(column.width), "{:?}", column.heading);
            }
        }
    }

    #[test]
    fn a_small_number_is_not_shown_as_zero() {
        assert_eq!(short(0.0), "0");
        assert_eq!(short(0.000_1), "<0.01");
        assert_eq!(short(1.0), "1");
        assert_eq!(short(1.5), "1.50");
        assert_eq!(short(296.4), "296");
    }

    #[test]
    fn an_age_is_rounded_down() {
        let shown = [59, 7_199, 90_000, 172_800].map(ago);
        assert_eq!(shown, ["0 min ago", "1 h ago", "25 h ago", "2 d ago"]);
    }
}
