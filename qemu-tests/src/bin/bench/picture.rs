//! The boot's timeline as a picture: one bar a system, one stretch a phase.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::boots::Phase;

const COLOURS: [&str; 6] = [
    "#9fb3c4", "#2f6f9f", "#c9a13b", "#3f8f5f", "#8a6fa8", "#b5533c",
];
const LEFT: f64 = 190.0;
const WIDTH: f64 = 700.0;

/// Writes an SVG of the columns that the table shows.
pub(crate) fn write(path: &Path, columns: &[(&str, Vec<Phase>)]) -> Result<()> {
    std::fs::write(path, draw(columns)).with_context(|| format!("cannot write {}", path.display()))
}

fn draw(columns: &[(&str, Vec<Phase>)]) -> String {
    let total = |phases: &[Phase]| phases.iter().map(|phase| phase.seconds).sum::<f64>();
    let longest = columns
        .iter()
        .map(|(_, phases)| total(phases))
        .fold(1.0, f64::max);
    let height = 60 + 50 * columns.len();
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 1060 {height}\" font-family=\"system-ui, sans-serif\" font-size=\"13\">\n"
    );
    for (row, (name, phases)) in columns.iter().enumerate() {
        let y = 20 + 50 * row;
        // Writing to a String cannot fail.
        let _ = writeln!(svg, "  <text x=\"10\" y=\"{}\">{name}</text>", y + 20);
        let mut x = LEFT;
        for (phase, colour) in phases.iter().zip(COLOURS) {
            let width = phase.seconds / longest * WIDTH;
            let _ = writeln!(
                svg,
                "  <rect x=\"{x:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"30\" fill=\"{colour}\"><title>{}: {:.2} s</title></rect>",
                phase.name, phase.seconds
            );
            x += width;
        }
        let _ = writeln!(
            svg,
            "  <text x=\"{:.1}\" y=\"{}\">{:.1} s</text>",
            x + 6.0,
            y + 20,
            total(phases)
        );
    }
    let y = 30 + 50 * columns.len();
    let mut x = 10.0;
    for (phase, colour) in columns
        .first()
        .map(|(_, phases)| phases)
        .into_iter()
        .flatten()
        .zip(COLOURS)
    {
        let _ = writeln!(
            svg,
            "  <rect x=\"{x}\" y=\"{y}\" width=\"12\" height=\"12\" fill=\"{colour}\"/><text x=\"{}\" y=\"{}\">{}</text>",
            x + 17.0,
            y + 11,
            phase.name
        );
        x += 40.0 + 7.0 * phase.name.len() as f64;
    }
    svg.push_str("</svg>\n");
    svg
}
