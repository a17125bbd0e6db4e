//! The report for people: tables of at most 80 columns.

use anstream::println;
use anstyle::{AnsiColor, Style};

use crate::report::score::{Item, Part};
use crate::report::{Count, Report, Row, mib};

const STRONG: Style = Style::new().bold();
const FAINT: Style = Style::new().dimmed();
const WIDTH: usize = 80;

/// Prints all of it.
pub fn print(report: &Report) {
    let machine = &report.machine;
    println!("{}", styled(STRONG, &title(report)));
    paragraph(&format!(
        "{}, {}, {} CPUs, huge pages: {}. Each measurement in a process of its own.",
        machine.libc, machine.kernel, machine.cpus, machine.huge_pages
    ));

    heading("Counts");
    columns(report, &COUNTS);
    paragraph(
        "calls: system calls a large pair (1 MiB), a small pair, a doubling of a Vec. faults: for each page of a \
         large block; for each page of zeroed memory that nobody touches. used: live bytes in a byte of the heap \
         (others than ours: of what is resident). peak, kept: MiB resident with small blocks live; right after 256 \
         blocks of 1 MiB, or all small ones, were freed. instr.: the allocator's own instructions for a small pair.",
    );

    heading(&format!(
        "CPU time, ratio to glibc as shipped ({} rounds, ± half the quartiles' distance)",
        report.rounds
    ));
    columns(report, &TIMES);
    paragraph(&large_blocks(report));

    let score = &report.score;
    heading(&format!("Score: {:.1} of {:.0}", score.points, score.of));
    score.parts.iter().for_each(part);

    if !report.behind.is_empty() {
        heading("Where it is behind the best of them, and why");
        report.behind.iter().for_each(|told| paragraph(told));
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

fn title(report: &Report) -> String {
    let whose = match report.subject {
        "yours" => "Your",
        _ => "The solution's",
    };
    let lacks = match report.lacks.is_empty() {
        true => String::new(),
        false => format!(", without {}", report.lacks.join(", ")),
    };
    format!("{whose} ThresholdAlloc{lacks}, beside other allocators")
}

/// A column: its heading in two lines, its width, and what it shows of a row.
type Column = (
    &'static str,
    &'static str,
    usize,
    fn(&Row) -> Option<String>,
);

const COUNTS: [Column; 10] = [
    ("calls:", "large", 7, |row| calls(row, "large")),
    ("", "small", 6, |row| calls(row, "small")),
    ("", "double", 7, |row| calls(row, "vec")),
    ("faults:", "large", 8, |row| faults(row, "large")),
    ("", "zeroed", 7, |row| faults(row, "untouched")),
    ("", "used", 6, |row| {
        let held = row.count("heap")?.measure.held.as_ref()?;
        Some(format!("{:.2}", held.live as f64 / held.heap as f64))
    }),
    ("", "peak", 5, |row| {
        let held = row.count("heap")?.measure.held.as_ref()?;
        Some(format!("{:.0}", mib(held.peak)))
    }),
    ("kept:", "large", 7, |row| kept(row, 0)),
    ("", "small", 6, |row| kept(row, 1)),
    ("", "instr.", 7, |row| {
        Some(format!("{:.0}", row.instructions?))
    }),
];

const TIMES: [Column; 6] = [
    ("small", "churn", 11, |row| time(row, "small")),
    ("mixed", "sizes", 11, |row| time(row, "mixed")),
    ("large", "blocks", 11, |row| time(row, "large")),
    ("Vec to", "256 MiB", 11, |row| time(row, "vec")),
    ("sparse", "zeroed", 11, |row| time(row, "sparse")),
    ("two", "threads", 11, |row| time(row, "threads")),
];

fn calls(row: &Row, workload: &str) -> Option<String> {
    Some(short(row.count(workload)?.calls_a_step(None)?))
}

fn faults(row: &Row, workload: &str) -> Option<String> {
    Some(short(row.count(workload).map(Count::faults_a_page)?))
}

fn kept(row: &Row, which: usize) -> Option<String> {
    Some(short(row.kept()?[which]))
}

fn time(row: &Row, workload: &str) -> Option<String> {
    let ratio = row.times.get(workload)?;
    let digits = if ratio.median < 9.995 { 2 } else { 1 };
    let spread = (100.0 * ratio.spread).round();
    Some(format!("{:.digits$} ±{spread}%", ratio.median))
}

/// Enough digits, and no more.
fn short(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        value if value < 0.005 => "<0.01".to_owned(),
        value if value < 10.0 => format!("{value:.2}"),
        value => format!("{value:.0}"),
    }
}

const NAME: usize = 12;

fn columns(report: &Report, columns: &[Column]) {
    for heading in [0, 1] {
        let mut line = " ".repeat(NAME);
        for (first, second, width, _) in columns {
            line += &format!("{:>width$}", [first, second][heading]);
        }
        println!("{}", styled(FAINT, line.trim_end()));
    }
    for row in &report.rows {
        let cells = columns.iter().map(|(_, _, _, cell)| cell(row));
        let cells: Vec<_> = cells.collect();
        if cells.iter().all(Option::is_none) {
            continue;
        }
        let mut line = format!("{:<NAME$}", row.name);
        for (cell, (_, _, width, _)) in cells.into_iter().zip(columns) {
            line += &format!("{:>width$}", cell.unwrap_or_else(|| "–".to_owned()));
        }
        match row.allocator.is_subject() {
            true => println!("{}", styled(STRONG, &line)),
            false => println!("{line}"),
        }
    }
}

/// What a page of a large block costs, at the two ends.
fn large_blocks(report: &Report) -> String {
    let mut told = String::from("Large blocks, ns of CPU time a page:");
    for size in [report.large.first(), report.large.last()]
        .into_iter()
        .flatten()
    {
        told += &format!(" {}:", bytes(size.bytes));
        let all = size.ns_a_page.iter();
        let wanted = all.filter(|(allocator, _)| crate::output::chart::SHOWN.contains(allocator));
        let each: Vec<_> = wanted
            .map(|(allocator, ns)| format!("{} {ns:.0}", allocator.name()))
            .collect();
        told += &format!(" {};", each.join(", "));
    }
    told.pop();
    told + "."
}

/// `128 KiB`.
pub fn bytes(bytes: usize) -> String {
    match bytes >> 20 {
        0 => format!("{} KiB", bytes >> 10),
        mib => format!("{mib} MiB"),
    }
}

fn part(part: &Part) {
    let points = match part.points {
        Some(points) => format!("{points:.1} of {:.0}", part.of),
        None => format!("– of {:.0}", part.of),
    };
    match &part.note {
        Some(note) => println!("{} {points}  {}", part.name, styled(FAINT, note)),
        None => println!("{} {points}", part.name),
    }
    part.items.iter().for_each(item);
}

fn item(item: &Item) {
    let (sign, color) = match item.met {
        Some(true) => ("✓", AnsiColor::Green),
        Some(false) => ("✗", AnsiColor::Red),
        None => ("–", AnsiColor::Yellow),
    };
    let measured = item.measured.as_deref().unwrap_or("not measured");
    println!(
        "  {} {:<36} {:<18} {measured}",
        styled(color.on_default(), sign),
        item.what,
        item.asked
    );
}

fn heading(text: &str) {
    println!("\n{}", styled(STRONG, text));
}

fn paragraph(text: &str) {
    for line in wrapped(text, WIDTH) {
        println!("{line}");
    }
}

fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is always one");
        if line.is_empty() {
            *line = word.to_owned();
        } else if line.chars().count() + 1 + word.chars().count() <= width {
            *line += &format!(" {word}");
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

fn styled(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_paragraph_is_wrapped_at_words() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("±±± ±±±", 7), ["±±± ±±±"]);
    }

    #[test]
    fn the_columns_fit() {
        for columns in [COUNTS.as_slice(), &TIMES] {
            let widths: usize = columns.iter().map(|(_, _, width, _)| width).sum();
            assert!(NAME + widths <= WIDTH, "{widths}");
        }
    }

    #[test]
    fn a_small_number_is_not_nothing() {
        assert_eq!(short(0.0), "0");
        assert_eq!(short(0.000_1), "<0.01");
        assert_eq!(short(1.0), "1.00");
        assert_eq!(short(296.4), "296");
    }
}
