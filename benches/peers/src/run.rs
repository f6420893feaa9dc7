//! What one run has found, and the file that keeps it.

use crate::field::{first_line, package};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::{fs, io, thread};

/// One run of the bench.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Run {
    /// Whether its rounds were few and small.
    pub quick: bool,
    /// The processor's model.
    pub cpu: String,
    /// How many threads run at once.
    pub cores: usize,
    /// The operating system's kernel.
    pub kernel: String,
    /// The compiler.
    pub rustc: String,
    /// By contestant.
    pub versions: BTreeMap<String, String>,
    /// By figure, width and contestant.
    pub figures: BTreeMap<String, BTreeMap<usize, BTreeMap<String, f64>>>,
}

impl Run {
    /// An empty one on this machine.
    pub(crate) fn new(quick: bool, versions: BTreeMap<String, String>) -> Run {
        let unknown = || "unknown".to_owned();
        Run {
            quick,
            cpu: cpu().unwrap_or_else(unknown),
            cores: thread::available_parallelism().map_or(0, usize::from),
            kernel: first_line(Command::new("uname").arg("-sr")).unwrap_or_else(unknown),
            rustc: first_line(Command::new("rustc").arg("--version")).unwrap_or_else(unknown),
            versions,
            figures: BTreeMap::new(),
        }
    }

    /// A figure of one contestant at one width.
    pub fn get(&self, figure: &str, width: usize, contestant: &str) -> Option<f64> {
        self.figures.get(figure)?.get(&width)?.get(contestant).copied()
    }

    /// To a hundredth, as there is no more to be known.
    pub(crate) fn set(&mut self, figure: &str, width: usize, contestant: &str, value: f64) {
        let value = (value * 100.0).round() / 100.0;
        let widths = self.figures.entry(figure.to_owned()).or_default();
        widths.entry(width).or_default().insert(contestant.to_owned(), value);
    }

    /// Whether anybody has this figure.
    pub fn has(&self, figure: &str) -> bool {
        self.figures.contains_key(figure)
    }

    /// The widths at which anybody has this figure.
    pub fn widths(&self, figure: &str) -> impl Iterator<Item = usize> + '_ {
        self.figures.get(figure).into_iter().flat_map(|widths| widths.keys().copied())
    }

    /// Reads the three runs that are kept beside the bench, for what is published of them.
    ///
    /// # Errors
    ///
    /// When one of them is missing, was a quick one, or was made with something else than the others.
    pub fn read_kept() -> io::Result<Vec<Run>> {
        let path = |n| package().join(format!("results/run-{n}.json"));
        let runs = (1..=3).map(|n| Run::read(&path(n))).collect::<io::Result<Vec<_>>>()?;
        let made_with =
            |run: &Run| (run.cpu.clone(), run.kernel.clone(), run.rustc.clone(), run.versions.clone());
        if runs.iter().any(|run| run.quick || made_with(run) != made_with(&runs[0])) {
            return Err(io::Error::other(
                "the three runs are to be full ones, all on the same machine and versions",
            ));
        }
        Ok(runs)
    }

    /// Reads what [`write`](Run::write) wrote.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or is not of a run.
    pub fn read(path: &Path) -> io::Result<Run> {
        let text = fs::read_to_string(path)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Writes the run as JSON.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        fs::write(path, serde_json::to_string_pretty(self)? + "\n")
    }
}

fn cpu() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The value below which `share` of the samples are.
pub fn quantile(samples: &mut [f64], share: f64) -> Option<f64> {
    samples.sort_by(f64::total_cmp);
    let last = samples.len().checked_sub(1)?;
    samples.get((last as f64 * share).round() as usize).copied()
}

#[cfg(test)]
mod tests {
    use super::quantile;

    #[test]
    fn quantiles_are_samples() {
        assert_eq!(quantile(&mut [], 0.5), None);
        assert_eq!(quantile(&mut [3.0, 1.0, 2.0], 0.5), Some(2.0));
        let mut hundred: Vec<_> = (0..=100).map(f64::from).collect();
        assert_eq!(quantile(&mut hundred, 0.99), Some(99.0));
    }
}
