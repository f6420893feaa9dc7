//! Draws `results/tasks.svg` and `results/handles.svg` from the three runs in `results/`: medians of the three.
//!
//! Text and bars are of colours that can be read on white and on black, as the page they are shown on may be either.

use peers::field::{package, Contestant, Kind, CONTESTANTS, HOST};
use peers::programme::Unit;
use peers::run::{quantile, Run};
use peers::tables;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::error::Error;

const WIDTHS: [usize; 2] = [2, 4];

const TEXT: RGBColor = RGBColor(0x76, 0x83, 0x90);
/// For winddown, by the number of workers.
const OWN: [RGBColor; 2] = [RGBColor(0xd9, 0x6c, 0x1e), RGBColor(0xb0, 0x4a, 0x0a)];
/// For the others.
const THEIRS: [RGBColor; 2] = [RGBColor(0x6d, 0x93, 0xc2), RGBColor(0x45, 0x6a, 0x9c)];

// Pixels of the drawing, which the page scales.
const MARGIN: i32 = 10;
const NAMES: i32 = 120;
const PANEL: i32 = 290;
const VALUE: i32 = 62;
const HEAD: i32 = 78;
const ROW: i32 = 44;
const BAR: i32 = 15;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

struct Chart {
    file: &'static str,
    title: &'static str,
    /// Titles, and the figures under them.
    panels: [(&'static str, &'static str); 3],
}

const CHARTS: [Chart; 2] = [
    Chart {
        file: "tasks.svg",
        title: "Cost of one tiny task: shorter is better",
        panels: [("one producer", "burst"), ("four producers", "multi"), ("fan-out from tasks", "fan-out")],
    },
    Chart {
        file: "handles.svg",
        title: "Tasks with a result: shorter is better",
        panels: [
            ("round trip, hot, median", "hot p50"),
            ("round trip, cold, median", "cold p50"),
            ("spawn and join, per task", "spawn-join"),
        ],
    },
];

fn main() -> Result<(), Box<dyn Error>> {
    let runs = Run::read_kept()?;
    for chart in &CHARTS {
        let path = package().join("results").join(chart.file);
        let size = (MARGIN + NAMES + PANEL * chart.panels.len() as i32, HEAD + ROW * rows().count() as i32);
        let area = SVGBackend::new(&path, (size.0 as u32, size.1 as u32)).into_drawing_area();
        draw(&area, chart, &runs)?;
        area.present()?;
        println!("{}", path.display());
    }
    Ok(())
}

/// Whose bars can stand side by side: a thread for each task and Python would leave the others none.
fn rows() -> impl Iterator<Item = &'static Contestant> {
    CONTESTANTS.iter().filter(|contestant| matches!(contestant.kind, Kind::Pool | Kind::Java))
}

/// The median of the runs.
fn figure(runs: &[Run], name: &str, width: usize, contestant: &str) -> Option<f64> {
    let mut found: Vec<_> = runs.iter().filter_map(|run| run.get(name, width, contestant)).collect();
    quantile(&mut found, 0.5)
}

fn draw(area: &Area<'_>, chart: &Chart, runs: &[Run]) -> Result<(), Box<dyn Error>> {
    write(area, chart.title, 19, (MARGIN, 18), HPos::Left, &TEXT)?;
    let mut x = MARGIN + NAMES + PANEL * 2;
    for (width, (own, theirs)) in WIDTHS.iter().zip(OWN.iter().zip(&THEIRS)) {
        square(area, (x, 11), own)?;
        square(area, (x + 15, 11), theirs)?;
        write(area, &format!("{width} workers"), 14, (x + 34, 18), HPos::Left, &TEXT)?;
        x += 130;
    }
    for (row, contestant) in rows().enumerate() {
        let is_own = contestant.name == HOST;
        let at = (MARGIN + NAMES - 12, middle(row));
        write(area, contestant.name, 15, at, HPos::Right, if is_own { &OWN[0] } else { &TEXT })?;
    }
    for (column, (title, name)) in chart.panels.iter().enumerate() {
        panel(area, MARGIN + NAMES + PANEL * column as i32, title, name, runs)?;
    }
    Ok(())
}

/// One figure: two bars for each contestant, all in proportion to the longest.
fn panel(area: &Area<'_>, left: i32, title: &str, name: &str, runs: &[Run]) -> Result<(), Box<dyn Error>> {
    write(area, title, 15, (left, HEAD - 22), HPos::Left, &TEXT)?;
    let all = rows().flat_map(|row| WIDTHS.map(|width| figure(runs, name, width, row.name)));
    let longest = all.flatten().fold(f64::MIN_POSITIVE, f64::max);
    for (row, contestant) in rows().enumerate() {
        for (n, width) in WIDTHS.into_iter().enumerate() {
            let top = middle(row) + (n as i32 - 1) * (BAR + 1);
            let Some(value) = figure(runs, name, width, contestant.name) else {
                if n == 0 {
                    write(area, "–", 13, (left, middle(row)), HPos::Left, &TEXT)?;
                }
                continue;
            };
            let length = (f64::from(PANEL - VALUE - 8) * value / longest).round().max(1.0) as i32;
            let colour = if contestant.name == HOST { OWN[n] } else { THEIRS[n] };
            area.draw(&Rectangle::new([(left, top), (left + length, top + BAR)], colour.filled()))?;
            let label = tables::quantity(value, Unit::Nanoseconds);
            write(area, &label, 13, (left + length + 6, top + BAR / 2 + 1), HPos::Left, &TEXT)?;
        }
    }
    Ok(())
}

/// The middle of a row, from the top.
fn middle(row: usize) -> i32 {
    HEAD + ROW * row as i32 + ROW / 2 - 6
}

fn square(area: &Area<'_>, (x, y): (i32, i32), colour: &RGBColor) -> Result<(), Box<dyn Error>> {
    area.draw(&Rectangle::new([(x, y), (x + 13, y + 13)], colour.filled()))?;
    Ok(())
}

fn write(
    area: &Area<'_>,
    text: &str,
    size: i32,
    at: (i32, i32),
    side: HPos,
    colour: &RGBColor,
) -> Result<(), Box<dyn Error>> {
    let style = ("sans-serif", size).into_font().color(colour).pos(Pos::new(side, VPos::Center));
    area.draw(&Text::new(text, at, style))?;
    Ok(())
}
