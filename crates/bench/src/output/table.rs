//! Prints the report as text, at most 80 columns wide.

use anstream::println;
use anstyle::{AnsiColor, Style};

use super::{IN_CHART, kib_or_mib};
use crate::report::Report;
use crate::report::rows::Row;
use crate::report::score::{Item, Part};
use crate::run::Count;

const STRONG: Style = Style::new().bold();
const FAINT: Style = Style::new().dimmed();
const WIDTH: usize = 80;

pub fn print(report: &Report) {
    let machine = &report.machine;
    println!("{}", styled(STRONG, &title(report)));
    paragraph(&format!(
        "{}, {}, {} CPUs, huge pages: {}. Each measurement runs in a separate process.",
        machine.libc, machine.kernel, machine.cpus, machine.huge_pages
    ));
    heading("Counts");
    columns(report, &COUNTS);
    paragraph(LEGEND);
    heading(&format!(
        "CPU time, ratio to glibc as shipped ({} rounds, ± half interquartile range)",
        report.rounds
    ));
    columns(report, &TIMES);
    paragraph(&large_blocks(report));
    let score = &report.score;
    heading(&format!("Score: {:.1} of {:.0}", score.points, score.of));
    score.parts.iter().for_each(part);
    remarks(report);
}

/// Explains the columns of [`COUNTS`].
const LEGEND: &str = "calls: system calls for a large pair (1 MiB), a small pair, a doubling of a Vec. faults: for \
                      each page of a large block; for each page of untouched zeroed memory. used: live bytes for each \
                      byte of the heap (other allocators: of resident memory). peak, kept: MiB resident while small blocks \
                      are live; after 256 blocks of 1 MiB, or all small blocks, were freed. instr.: instructions of \
                      the allocator for a small pair.";

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
    /// In two lines.
    heading: [&'static str; 2],
    width: usize,
    cell: fn(&Row) -> Option<String>,
}

const fn column(
    heading: [&'static str; 2],
    width: usize,
    cell: fn(&Row) -> Option<String>,
) -> Column {
    Column {
        heading,
        width,
        cell,
    }
}

const COUNTS: [Column; 10] = [
    column(["calls:", "large"], 7, |row| calls(row, "large")),
    column(["", "small"], 6, |row| calls(row, "small")),
    column(["", "double"], 7, |row| calls(row, "vec")),
    column(["faults:", "large"], 8, |row| faults(row, "large")),
    column(["", "zeroed"], 7, |row| faults(row, "untouched")),
    column(["", "used"], 6, |row| {
        Some(format!("{:.2}", row.utilisation()?))
    }),
    column(["", "peak"], 5, |row| Some(format!("{:.0}", row.peak()?))),
    column(["kept:", "large"], 7, |row| Some(short(row.kept()?[0]))),
    column(["", "small"], 6, |row| Some(short(row.kept()?[1]))),
    column(["", "instr."], 7, |row| {
        Some(format!("{:.0}", row.instructions?))
    }),
];

const TIMES: [Column; 6] = [
    column(["small", "churn"], 11, |row| time(row, "small")),
    column(["mixed", "sizes"], 11, |row| time(row, "mixed")),
    column(["large", "blocks"], 11, |row| time(row, "large")),
    column(["Vec to", "256 MiB"], 11, |row| time(row, "vec")),
    column(["sparse", "zeroed"], 11, |row| time(row, "sparse")),
    column(["two", "threads"], 11, |row| time(row, "threads")),
];

fn calls(row: &Row, workload: &str) -> Option<String> {
    Some(short(row.count(workload)?.calls_per_step(None)?))
}

fn faults(row: &Row, workload: &str) -> Option<String> {
    row.count(workload).map(Count::faults_per_page).map(short)
}

fn time(row: &Row, workload: &str) -> Option<String> {
    let ratio = row.times.get(workload)?;
    let digits = if ratio.median < 9.995 { 2 } else { 1 };
    let spread = (100.0 * ratio.spread).round();
    Some(format!("{:.digits$} ±{spread}%", ratio.median))
}

/// Formats a count with at most two decimals. Only 0 is shown as 0.
fn short(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        value if value < 0.005 => "<0.01".to_owned(),
        value if value < 10.0 => format!("{value:.2}"),
        value => format!("{value:.0}"),
    }
}

/// The width of the first column, which has the names.
const NAME: usize = 12;

fn columns(report: &Report, columns: &[Column]) {
    for heading in [0, 1] {
        let cells = columns.iter();
        let cells = cells.map(|column| format!("{:>1$}", column.heading[heading], column.width));
        let line = " ".repeat(NAME) + &cells.collect::<String>();
        println!("{}", styled(FAINT, line.trim_end()));
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
        format!("{}: {}", kib_or_mib(size.bytes), times.join(", "))
    });
    let sizes: Vec<_> = sizes.collect();
    format!("Large blocks, ns of CPU time a page: {}.", sizes.join("; "))
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
        for columns in [COUNTS.as_slice(), &TIMES] {
            let widths: usize = columns.iter().map(|column| column.width).sum();
            assert!(NAME + widths <= WIDTH, "{widths}");
        }
    }

    #[test]
    fn a_small_number_is_not_shown_as_zero() {
        assert_eq!(short(0.0), "0");
        assert_eq!(short(0.000_1), "<0.01");
        assert_eq!(short(1.0), "1.00");
        assert_eq!(short(296.4), "296");
    }
}
