//! Writes `benches/RESULTS.md` from the three runs in `results/`.
//!
//! ```text
//! for n in 1 2 3; do cargo bench -p peers -- --json results/run-$n.json; done
//! cargo run -p peers --bin charts && cargo run -p peers --bin results
//! ```

use peers::field::{package, CONTESTANTS};
use peers::floors::{self, Floor};
use peers::programme::SCENES;
use peers::run::Run;
use peers::tables;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::{fs, io};

/// What was tried for the floor that is the hardest to keep.
const CREATE: &str = include_str!("../../create.md");

fn main() -> io::Result<()> {
    let runs = Run::read_kept()?;
    let path = package().join("../RESULTS.md");
    fs::write(&path, page(&runs))?;
    println!("{}", path.display());
    Ok(())
}

fn page(runs: &[Run]) -> String {
    let mut page = "\
# Side by side with other pools

Three runs of `cargo bench -p peers`, one after the other; written by `cargo run -p peers --bin results`. [The
bench](peers/benches/compare.rs) says who takes part, what the scenes are and by which rules they are played. A number
in brackets says how many times winddown's the figure is.

The charts show the medians of the three runs, without Python and a thread for each task, next to which the others
could not be told apart.

![Cost of a tiny task with 2 and 4 workers: burst, four producers, fan-out](peers/results/tasks.svg)

![Round trips, hot and cold, and spawn and join, with 2 and 4 workers](peers/results/handles.svg)

## Made with

"
    .to_owned();
    let first = &runs[0];
    let _ = writeln!(page, "| | |\n|---|---|\n| CPU | {}, {} cores |", first.cpu, first.cores);
    let _ = writeln!(page, "| Kernel | {} |\n| Compiler | {} |", first.kernel, first.rustc);
    for contestant in CONTESTANTS {
        if let Some(version) = first.versions.get(contestant.name) {
            let _ = writeln!(page, "| {} | {version} |", contestant.name);
        }
    }
    page.push_str(&floors_of(runs));
    page.push('\n');
    page.push_str(CREATE);
    for (n, run) in runs.iter().enumerate() {
        page.push_str(&figures_of(n + 1, run));
    }
    page
}

/// The floors: a line for each, a column for each run.
fn floors_of(runs: &[Run]) -> String {
    let checked: Vec<_> = runs.iter().map(floors::check).collect();
    let mut text = "\n## Floors\n\nA ratio in bold misses its floor.\n\n".to_owned();
    text.push_str("| | Against | Workers | Floor | Run 1 | Run 2 | Run 3 |\n|---|---|--:|--:|--:|--:|--:|\n");
    for floor in &checked[0] {
        let bound = tables::bound(floor.bound);
        let _ = write!(text, "| {} | {} | {} | {bound} |", floor.what, floor.against, floor.width);
        let is_same = |other: &&Floor| {
            (other.what, other.against, other.width) == (floor.what, floor.against, floor.width)
        };
        for floors in &checked {
            let _ = write!(text, " {} |", floors.iter().find(is_same).map_or("-".to_owned(), found));
        }
        text.push('\n');
    }
    text
}

fn found(floor: &Floor) -> String {
    let ratio = format!("{:.2}", floor.found);
    let ratio = if floor.is_kept() { ratio } else { format!("**{ratio}**") };
    floor.best.map_or(ratio.clone(), |peer| format!("{ratio} ({peer})"))
}

/// One run: a table for each number of workers, with a line for each contestant.
fn figures_of(n: usize, run: &Run) -> String {
    let figures: Vec<_> = SCENES.iter().flat_map(|scene| scene.figures()).collect();
    let widths: BTreeSet<_> = figures.iter().flat_map(|figure| run.widths(figure.name)).collect();
    let mut text = format!("\n## Run {n}\n");
    for width in widths {
        let plural = if width == 1 { "" } else { "s" };
        let _ = write!(text, "\n<details><summary>{width} worker{plural}</summary>\n\n| |");
        for figure in &figures {
            let _ = write!(text, " {} |", figure.name);
        }
        let _ = writeln!(text, "\n|---|{}", "--:|".repeat(figures.len()));
        for contestant in CONTESTANTS {
            let _ = write!(text, "| {} |", contestant.name);
            for figure in &figures {
                let _ = write!(text, " {} |", tables::with_ratio(run, **figure, width, contestant.name));
            }
            text.push('\n');
        }
        text.push_str("\n</details>\n");
    }
    text
}
