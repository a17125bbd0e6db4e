//! The chart for the book: what a page of a large block costs, by the block's size.

use std::fmt::Write;

use crate::allocators::Allocator;
use crate::output::table::bytes;
use crate::report::Report;

/// The lines, those below first.
pub const SHOWN: [Allocator; 6] = [
    Allocator::Floor,
    Allocator::Pinned,
    Allocator::Ours,
    Allocator::Huge,
    Allocator::Glibc,
    Allocator::Memset,
];

const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 292.0;
/// The lines are drawn between these.
const LEFT: f64 = 40.0;
const RIGHT: f64 = 348.0;
const TOP: f64 = 28.0;
const BOTTOM: f64 = 206.0;

/// Nanoseconds at the bottom and at the top.
const LEAST: f64 = 10.0;
const MOST: f64 = 10_000.0;

/// An SVG without an empty line, to be included in a page: its colours are the book's themes'.
pub fn svg(report: &Report) -> String {
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="allocators-title allocators-desc" style="max-width: 40rem; width: 100%; font: 12px sans-serif; fill: var(--fg)">
<title id="allocators-title">CPU time for each page of a large block, by the block's size</title>
<desc id="allocators-desc">{}</desc>
<text x="4" y="14">ns a page: allocate, write to every byte, free</text>
"#,
        description(report)
    );
    axes(&mut svg, report);
    for (place, allocator) in SHOWN.into_iter().enumerate() {
        line(&mut svg, report, allocator, place);
    }
    svg + "</svg>\n"
}

fn axes(svg: &mut String, report: &Report) {
    let mut ns = LEAST;
    while ns <= MOST {
        let y = height(ns);
        draw(
            svg,
            format_args!(
                r#"<line x1="{LEFT}" x2="{RIGHT}" y1="{y:.1}" y2="{y:.1}" stroke="var(--fg)" stroke-width="0.5" opacity="0.25"/>"#
            ),
        );
        draw(
            svg,
            format_args!(
                r#"<text x="{:.1}" y="{:.1}" text-anchor="end">{ns}</text>"#,
                LEFT - 4.0,
                y + 3.5
            ),
        );
        ns *= 10.0;
    }
    for (place, size) in report.large.iter().enumerate() {
        let x = across(place, report.large.len());
        let (number, unit) = (bytes(size.bytes), BOTTOM + 14.0);
        draw(
            svg,
            format_args!(
                r#"<text x="{x:.1}" y="{unit:.1}" text-anchor="middle">{}</text>"#,
                number.replace(" KiB", "K").replace(" MiB", "M")
            ),
        );
    }
}

/// A line and its entry in the legend.
fn line(svg: &mut String, report: &Report, allocator: Allocator, place: usize) {
    let sizes = report.large.iter().enumerate();
    let points: Vec<String> = sizes
        .filter_map(|(place, size)| {
            let ns = size.ns_a_page.get(&allocator)?;
            Some(format!(
                "{:.1},{:.1}",
                across(place, report.large.len()),
                height(*ns)
            ))
        })
        .collect();
    let style = style(allocator);
    draw(
        svg,
        format_args!(
            r#"<polyline points="{}" fill="none" {style}/>"#,
            points.join(" ")
        ),
    );
    // The two grey bands look alike in the legend.
    if let (Allocator::Floor | Allocator::Memset, Some(size)) = (allocator, report.large.first())
        && let Some(ns) = size.ns_a_page.get(&allocator)
    {
        let (x, y) = (across(0, report.large.len()), height(*ns) + 16.0);
        let name = legend(allocator);
        draw(
            svg,
            format_args!(r#"<text x="{x:.1}" y="{y:.1}">{name}</text>"#),
        );
    }
    let (column, row) = (place % 2, place / 2);
    let x = 12.0 + 174.0 * column as f64;
    let y = BOTTOM + 36.0 + 18.0 * row as f64;
    draw(
        svg,
        format_args!(
            r#"<line x1="{x}" x2="{:.1}" y1="{y}" y2="{y}" {style}/>"#,
            x + 28.0
        ),
    );
    draw(
        svg,
        format_args!(
            r#"<text x="{:.1}" y="{:.1}">{}</text>"#,
            x + 34.0,
            y + 3.5,
            legend(allocator)
        ),
    );
}

fn draw(svg: &mut String, element: std::fmt::Arguments) {
    writeln!(svg, "{element}").expect("a String takes all");
}

/// Told apart without colour as well; those that lie on each other all show.
fn style(allocator: Allocator) -> &'static str {
    match allocator {
        Allocator::Floor => r#"stroke="var(--fg)" stroke-width="7" opacity="0.25""#,
        Allocator::Pinned => r#"stroke="var(--fg)" stroke-width="3" stroke-dasharray="2 6""#,
        Allocator::Huge => r#"stroke="var(--fg)" stroke-width="1.5" stroke-dasharray="8 3 2 3""#,
        Allocator::Glibc => r#"stroke="var(--fg)" stroke-width="1.5" stroke-dasharray="6 4""#,
        Allocator::Memset => r#"stroke="var(--fg)" stroke-width="5" opacity="0.25""#,
        _ => r#"stroke="var(--links)" stroke-width="1.5""#,
    }
}

fn legend(allocator: Allocator) -> &'static str {
    match allocator {
        Allocator::Floor => "mmap, write, munmap",
        Allocator::Pinned => "glibc, threshold pinned",
        Allocator::Huge => "huge pages",
        Allocator::Glibc => "glibc as shipped",
        Allocator::Memset => "only write, warm",
        _ => "ThresholdAlloc",
    }
}

/// The numbers in words, at the two ends.
fn description(report: &Report) -> String {
    let mut told = String::from("Nanoseconds of CPU time for each page.");
    for size in [report.large.first(), report.large.last()]
        .into_iter()
        .flatten()
    {
        let all = SHOWN.into_iter();
        let each = all.filter_map(|allocator| {
            let ns = size.ns_a_page.get(&allocator)?;
            Some(format!("{} {ns:.0}", legend(allocator)))
        });
        let each: Vec<_> = each.collect();
        told += &format!(" {}: {}.", bytes(size.bytes), each.join("; "));
    }
    let machine = &report.machine;
    told + &format!(" Measured with {} on {}.", machine.libc, machine.kernel)
}

fn across(place: usize, of: usize) -> f64 {
    let (left, right) = (LEFT + 8.0, RIGHT - 8.0);
    left + (right - left) * place as f64 / (of.max(2) - 1) as f64
}

/// On a logarithmic scale.
fn height(ns: f64) -> f64 {
    let share = (ns / LEAST).log10() / (MOST / LEAST).log10();
    BOTTOM - (BOTTOM - TOP) * share.clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_times_as_much_is_as_far_everywhere() {
        let step = height(10.0) - height(100.0);
        assert!(step > 0.0);
        assert!((height(100.0) - height(1_000.0) - step).abs() < 1e-9);
        assert_eq!((height(10.0), height(10_000.0)), (BOTTOM, TOP));
        assert_eq!(height(1.0), BOTTOM);
    }
}
