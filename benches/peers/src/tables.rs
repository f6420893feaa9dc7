//! Figures as text.

use crate::field::{CONTESTANTS, HOST};
use crate::floors::{Bound, Floor};
use crate::programme::{Figure, Scene, Unit};
use crate::run::Run;
use std::fmt::Write;

/// Where and with what a run was made.
pub(crate) fn heading(run: &Run) -> String {
    let mut text = format!("{}, {} cores, {}, {}\n", run.cpu, run.cores, run.kernel, run.rustc);
    for (contestant, version) in &run.versions {
        let _ = writeln!(text, "  {contestant}: {version}");
    }
    text
}

/// A scene's figures: a line for each contestant, a column for each width.
pub(crate) fn scene(run: &Run, scene: &Scene) -> String {
    let mut text = format!("{}\n", scene.title);
    for figure in scene.figures().iter().filter(|figure| run.has(figure.name)) {
        let widths: Vec<_> = run.widths(figure.name).collect();
        let _ = write!(text, "  {:<16}", figure.name);
        for width in &widths {
            let _ = write!(text, "{:>20}", format!("{width} worker{}", if *width == 1 { "" } else { "s" }));
        }
        text.push('\n');
        for contestant in CONTESTANTS {
            let _ = write!(text, "  {:<16}", contestant.name);
            for &width in &widths {
                let _ = write!(text, "{:>20}", with_ratio(run, *figure, width, contestant.name));
            }
            text.push('\n');
        }
    }
    text
}

/// A figure, and how many times winddown's it is; a dash where there is none.
pub fn with_ratio(run: &Run, figure: Figure, width: usize, contestant: &str) -> String {
    let Some(value) = run.get(figure.name, width, contestant) else { return "-".to_owned() };
    let plain = quantity(value, figure.unit);
    match run.get(figure.name, width, HOST) {
        Some(base) if contestant != HOST && figure.unit != Unit::Speedup => {
            let ratio = value / base;
            let digits = if ratio < 10.0 { 2 } else { 0 };
            format!("{plain} ({ratio:.digits$})")
        }
        _ => plain,
    }
}

/// A number with its unit.
pub fn quantity(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Nanoseconds if value < 1e3 => format!("{value:.0} ns"),
        Unit::Nanoseconds if value < 1e5 => format!("{:.1} µs", value / 1e3),
        Unit::Nanoseconds => format!("{:.0} µs", value / 1e3),
        Unit::Speedup => format!("{value:.2} x"),
        Unit::Bytes => format!("{value:.0} B"),
    }
}

/// The floors, a line for each.
pub(crate) fn floors(floors: &[Floor]) -> String {
    let mut text =
        format!("Floors\n  {:<12}{:<30}{:>8}{:>10}{:>10}\n", "", "against", "workers", "found", "floor");
    for floor in floors {
        let against = match floor.best {
            Some(peer) => format!("{} ({peer})", floor.against),
            None => floor.against.to_owned(),
        };
        let verdict = if floor.is_kept() { "PASS" } else { "FAIL" };
        let _ = writeln!(
            text,
            "  {:<12}{against:<30}{:>8}{:>10.2}{:>10}  {verdict}",
            floor.what,
            floor.width,
            floor.found,
            bound(floor.bound),
        );
    }
    text
}

/// Which numbers keep a promise.
pub fn bound(bound: Bound) -> String {
    match bound {
        Bound::AtLeast(least) => format!("≥ {least}"),
        Bound::AtMost(most) => format!("≤ {most}"),
    }
}
