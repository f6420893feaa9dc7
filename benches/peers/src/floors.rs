//! What winddown promises to keep, and whether a run kept it.

use crate::field::{CONTESTANTS, HOST, THREADS};
use crate::run::Run;

/// One promise, as one run has kept it or not.
#[derive(Clone, PartialEq, Debug)]
pub struct Floor {
    /// What is compared.
    pub what: &'static str,
    /// With whom, or with what of its own.
    pub against: &'static str,
    /// Who that is, where it is the best of several.
    pub best: Option<&'static str>,
    /// The number of workers.
    pub width: usize,
    /// What was found.
    pub found: f64,
    /// What is promised.
    pub bound: Bound,
}

/// On which side of a number to be.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Bound {
    /// This or more.
    AtLeast(f64),
    /// This or less.
    AtMost(f64),
}

impl Floor {
    /// Whether the promise was kept.
    pub fn is_kept(&self) -> bool {
        match self.bound {
            Bound::AtLeast(least) => self.found >= least,
            Bound::AtMost(most) => self.found <= most,
        }
    }
}

/// The widths at which peers are compared.
const WIDTHS: [usize; 2] = [2, 4];

/// By figure: how many times winddown's a peer's is at least, for rayon and for the best Rust peer.
const AGAINST_PEERS: [(&str, f64, f64); 5] = [
    ("burst", 4.5, 2.5),
    ("multi", 3.0, 1.6),
    ("fan-out", 2.0, 2.0),
    ("hot p50", 1.0, 0.8),
    ("cold p50", 1.0, 0.8),
];

/// The same for handles, which rayon does not have.
const HANDLES: [(&str, f64); 2] = [("tokio", 2.0), ("rusty_pool", 1.5)];

/// What can be said with the figures that the run has.
pub fn check(run: &Run) -> Vec<Floor> {
    let mut floors = Vec::new();
    for (figure, rayon, best) in AGAINST_PEERS {
        for width in WIDTHS {
            floors.extend(against(run, figure, width, "rayon", rayon));
            if let Some(peer) = best_rust_peer(run, figure, width) {
                let floor = against(run, figure, width, peer, best);
                floors.extend(floor.map(|floor| Floor {
                    against: "best Rust peer",
                    best: Some(peer),
                    ..floor
                }));
            }
        }
    }
    for width in WIDTHS {
        for (peer, least) in HANDLES {
            floors.extend(against(run, "spawn-join", width, peer, least));
        }
    }
    for width in WIDTHS {
        let (pool, thread) = (run.get("create", width, HOST), run.get("create", width, THREADS));
        floors.extend(at_most("create", "a bare thread", width, pool, thread, 1.5));
    }
    for width in WIDTHS {
        let (drain, burst) = (run.get("drain", width, HOST), run.get("burst", width, HOST));
        floors.extend(at_most("drain", "its burst", width, drain, burst, 1.2));
    }
    let burst = |width| run.get("burst in turn", width, HOST);
    floors.extend(at_most("burst", "the same with 2 workers", 16, burst(16), burst(2), 1.5));
    let queue = |figure| run.get(figure, 2, HOST);
    floors.extend(at_most("long queue", "a short queue", 2, queue("long queue"), queue("short queue"), 1.3));
    floors.extend(at_most("long queue", "bytes a task", 2, queue("long queue bytes"), Some(1.0), 64.0));
    floors
}

fn against(run: &Run, what: &'static str, width: usize, peer: &'static str, least: f64) -> Option<Floor> {
    let found = run.get(what, width, peer)? / run.get(what, width, HOST)?;
    Some(Floor { what, against: peer, best: None, width, found, bound: Bound::AtLeast(least) })
}

fn at_most(
    what: &'static str,
    against: &'static str,
    width: usize,
    figure: Option<f64>,
    base: Option<f64>,
    most: f64,
) -> Option<Floor> {
    let found = figure? / base?;
    Some(Floor { what, against, best: None, width, found, bound: Bound::AtMost(most) })
}

/// The fastest of the Rust contestants other than winddown.
fn best_rust_peer(run: &Run, figure: &str, width: usize) -> Option<&'static str> {
    let peers = CONTESTANTS.iter().filter(|peer| peer.kind.is_rust() && peer.name != HOST);
    let found = peers.filter_map(|peer| Some((peer.name, run.get(figure, width, peer.name)?)));
    found.min_by(|(_, one), (_, other)| one.total_cmp(other)).map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_peer_is_sought_in_rust_and_is_not_the_host() {
        let mut run = Run::default();
        for (name, figure) in [(HOST, 10.0), ("rayon", 60.0), ("blocking", 20.0), ("Java fixed", 5.0)] {
            run.set("burst", 2, name, figure);
        }
        let floors = check(&run);
        let found: Vec<_> =
            floors.iter().map(|floor| (floor.against, floor.best, floor.found, floor.is_kept())).collect();
        assert_eq!(found, [("rayon", None, 6.0, true), ("best Rust peer", Some("blocking"), 2.0, false)]);
    }

    #[test]
    fn bytes_are_held_to_their_number_and_not_to_a_ratio() {
        let mut run = Run::default();
        run.set("long queue bytes", 2, HOST, 64.0);
        assert!(check(&run)[0].is_kept());
        run.set("long queue bytes", 2, HOST, 64.1);
        assert!(!check(&run)[0].is_kept());
    }
}
