//! Draws the chart in the book: CPU time for each page of a large block, by the size of the block.

use std::fmt::{Arguments, Write};

use super::{IN_CHART, kib_or_mib};
use crate::allocators::Allocator;
use crate::report::Report;

const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 292.0;

/// The edges of the plot.
const LEFT: f64 = 40.0;
const RIGHT: f64 = 348.0;
const TOP: f64 = 28.0;
const BOTTOM: f64 = 206.0;

/// Nanoseconds at the bottom and at the top.
const LEAST: f64 = 10.0;
const MOST: f64 = 10_000.0;

/// Returns an SVG that can be included in a page, so it has no empty line. Its colours are those of the page. Opened by
/// itself, it has the viewer's light or dark ones, or blue on white in a viewer that supports neither.
pub fn svg(report: &Report) -> String {
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="allocators-title allocators-desc" style="color-scheme: light dark; max-width: 40rem; width: 100%; font: 12px sans-serif; fill: currentColor">
<title id="allocators-title">CPU time for each page of a large block, by the block's size</title>
<desc id="allocators-desc">{}</desc>
<rect width="{WIDTH}" height="{HEIGHT}" fill="white" style="fill: var(--bg, Canvas)"/>
<text x="4" y="14">ns of CPU time a page, by block size: allocate, fill, free</text>
"#,
        description(report)
    );
    axes(&mut svg, report);
    for (index, allocator) in IN_CHART.into_iter().enumerate() {
        curve(&mut svg, report, allocator);
        legend(&mut svg, allocator, index);
    }
    svg + "</svg>\n"
}

fn axes(svg: &mut String, report: &Report) {
    let mut ns = LEAST;
    while ns <= MOST {
        let (y, x, baseline) = (y(ns), LEFT - 4.0, y(ns) + 3.5);
        draw(
            svg,
            format_args!(
                r#"<line x1="{LEFT}" x2="{RIGHT}" y1="{y:.1}" y2="{y:.1}" stroke="currentColor" stroke-width="0.5" opacity="0.25"/>"#
            ),
        );
        draw(
            svg,
            format_args!(r#"<text x="{x:.1}" y="{baseline:.1}" text-anchor="end">{ns}</text>"#),
        );
        ns *= 10.0;
    }
    for (index, size) in report.large.iter().enumerate() {
        let (x, y) = (x(index, report.large.len()), BOTTOM + 14.0);
        let text = kib_or_mib(size.bytes);
        let text = text.replace(" KiB", "K").replace(" MiB", "M");
        draw(
            svg,
            format_args!(r#"<text x="{x:.1}" y="{y:.1}" text-anchor="middle">{text}</text>"#),
        );
    }
}

fn curve(svg: &mut String, report: &Report, allocator: Allocator) {
    let sizes = report.large.iter().enumerate();
    let points = sizes.filter_map(|(index, size)| {
        let ns = size.ns_a_page.get(&allocator)?;
        Some((x(index, report.large.len()), y(*ns)))
    });
    let points: Vec<_> = points.collect();
    let path: Vec<_> = points
        .iter()
        .map(|(x, y)| format!("{x:.1},{y:.1}"))
        .collect();
    let (path, style) = (path.join(" "), style(allocator));
    // A line of one point would not be visible: `--quick` measures few sizes, and only the largest have huge pages.
    if let [(x, y)] = points[..] {
        draw(
            svg,
            format_args!(r#"<circle cx="{x:.1}" cy="{y:.1}" r="3"/>"#),
        );
        let (x, y, label) = (x - 8.0, y + 3.5, label(allocator));
        draw(
            svg,
            format_args!(r#"<text x="{x:.1}" y="{y:.1}" text-anchor="end">{label}</text>"#),
        );
        return;
    }
    draw(
        svg,
        format_args!(r#"<polyline points="{path}" fill="none" {style}/>"#),
    );
    // The two wide grey curves look alike in the legend, so they also have a label.
    if let (Allocator::Floor | Allocator::Memset, Some((x, y))) = (allocator, points.first()) {
        let (y, label) = (y + 16.0, label(allocator));
        draw(
            svg,
            format_args!(r#"<text x="{x:.1}" y="{y:.1}">{label}</text>"#),
        );
    }
}

/// Draws an entry of the legend, which has two columns.
fn legend(svg: &mut String, allocator: Allocator, index: usize) {
    let x = 12.0 + 174.0 * (index % 2) as f64;
    let y = BOTTOM + 36.0 + 18.0 * (index / 2) as f64;
    let (end, style) = (x + 28.0, style(allocator));
    draw(
        svg,
        format_args!(r#"<line x1="{x}" x2="{end:.1}" y1="{y}" y2="{y}" {style}/>"#),
    );
    let (x, y, label) = (x + 34.0, y + 3.5, label(allocator));
    draw(
        svg,
        format_args!(r#"<text x="{x:.1}" y="{y:.1}">{label}</text>"#),
    );
}

fn draw(svg: &mut String, element: Arguments) {
    writeln!(svg, "{element}").expect("writing to a String succeeds");
}

/// The curves differ without colour as well, and those that coincide remain visible.
fn style(allocator: Allocator) -> &'static str {
    match allocator {
        Allocator::Floor => r#"stroke="currentColor" stroke-width="7" opacity="0.25""#,
        Allocator::Pinned => r#"stroke="currentColor" stroke-width="3" stroke-dasharray="2 6""#,
        Allocator::Huge => r#"stroke="currentColor" stroke-width="1.5" stroke-dasharray="8 3 2 3""#,
        Allocator::Glibc => r#"stroke="currentColor" stroke-width="1.5" stroke-dasharray="6 4""#,
        Allocator::Memset => r#"stroke="currentColor" stroke-width="5" opacity="0.25""#,
        // Viewers that do not support CSS variables use the attribute.
        _ => r#"stroke="royalblue" style="stroke: var(--links, LinkText)" stroke-width="1.5""#,
    }
}

fn label(allocator: Allocator) -> &'static str {
    match allocator {
        Allocator::Floor => "mmap, write, munmap",
        Allocator::Pinned => "glibc, threshold pinned",
        Allocator::Huge => "huge pages",
        Allocator::Glibc => "glibc as shipped",
        Allocator::Memset => "only write, warm",
        _ => "ThresholdAlloc",
    }
}

/// Describes the two ends of the curves for those who cannot see the chart.
fn description(report: &Report) -> String {
    let mut text = String::from("Nanoseconds of CPU time for each page.");
    for size in report.large.first().into_iter().chain(report.large.last()) {
        let times = IN_CHART.into_iter().filter_map(|allocator| {
            let ns = size.ns_a_page.get(&allocator)?;
            Some(format!("{} {ns:.0}", label(allocator)))
        });
        let times: Vec<_> = times.collect();
        text += &format!(" {}: {}.", kib_or_mib(size.bytes), times.join("; "));
    }
    let machine = &report.machine;
    text + &format!(" Measured with {} on {}.", machine.libc, machine.kernel)
}

fn x(index: usize, count: usize) -> f64 {
    let (left, right) = (LEFT + 8.0, RIGHT - 8.0);
    left + (right - left) * index as f64 / (count.max(2) - 1) as f64
}

/// The scale is logarithmic.
fn y(ns: f64) -> f64 {
    let share = (ns / LEAST).log10() / (MOST / LEAST).log10();
    BOTTOM - (BOTTOM - TOP) * share.clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_is_logarithmic() {
        let step = y(10.0) - y(100.0);
        assert!(step > 0.0);
        assert!((y(100.0) - y(1_000.0) - step).abs() < 1e-9);
        assert_eq!((y(10.0), y(10_000.0)), (BOTTOM, TOP));
        assert_eq!(y(1.0), BOTTOM);
    }
}
