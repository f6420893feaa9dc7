//! The scenes, as the bench calls them: how many rounds of which size, and what becomes of their figures.

use crate::field::Kind;

/// One scene.
#[derive(Clone, Copy, Debug)]
pub struct Scene {
    /// What the peers are asked for, and what the command line filters by.
    pub name: &'static str,
    /// Over its table.
    pub title: &'static str,
    /// What it comes to.
    pub outcome: Outcome,
}

/// What the rounds of a scene come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The medians of the rounds, for each figure that a round gives.
    Medians(&'static [Figure]),
    /// The median and the 99th percentile of all the samples.
    Percentiles([Figure; 2]),
}

impl Scene {
    /// What it comes to, in the order of the tables.
    pub fn figures(&self) -> &[Figure] {
        match &self.outcome {
            Outcome::Medians(figures) => figures,
            Outcome::Percentiles(figures) => figures,
        }
    }
}

/// One kind of figure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Figure {
    /// In files, and in tables.
    pub name: &'static str,
    /// What it counts.
    pub unit: Unit,
}

/// What a figure counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// Nanoseconds.
    Nanoseconds,
    /// How many times as fast.
    Speedup,
    /// Bytes.
    Bytes,
}

const fn nanoseconds(name: &'static str) -> Figure {
    Figure { name, unit: Unit::Nanoseconds }
}

/// All of them, in the order in which they are played.
pub const SCENES: &[Scene] = &[
    Scene {
        name: "burst",
        title: "Burst: tiny tasks from one producer, per task",
        outcome: Outcome::Medians(&[nanoseconds("burst")]),
    },
    Scene {
        name: "multi",
        title: "Multi: tiny tasks from four producers, per task",
        outcome: Outcome::Medians(&[nanoseconds("multi")]),
    },
    Scene {
        name: "fan-out",
        title: "Fan-out: a binary tree of tasks, 17 levels below its root, per node",
        outcome: Outcome::Medians(&[nanoseconds("fan-out")]),
    },
    Scene {
        name: "hot",
        title: "Hot round trip: one task and its result, back to back",
        outcome: Outcome::Percentiles([nanoseconds("hot p50"), nanoseconds("hot p99")]),
    },
    Scene {
        name: "cold",
        title: "Cold round trip: the same after 1 ms of idleness",
        outcome: Outcome::Percentiles([nanoseconds("cold p50"), nanoseconds("cold p99")]),
    },
    Scene {
        name: "spawn-join",
        title: "Spawn and join: a batch of handles, per task",
        outcome: Outcome::Medians(&[nanoseconds("spawn-join")]),
    },
    Scene {
        name: "mixed",
        title: "Mixed: tasks of 5 µs, speed-up over running them in a row",
        outcome: Outcome::Medians(&[Figure { name: "mixed", unit: Unit::Speedup }]),
    },
    Scene {
        name: "create",
        title: "Create: a pool, one task, its end",
        outcome: Outcome::Medians(&[nanoseconds("create")]),
    },
    Scene {
        name: "drain",
        title: "Drain: a shutdown with a full queue; from there, and with the submissions (whole), per task",
        outcome: Outcome::Medians(&[nanoseconds("drain"), nanoseconds("drain whole")]),
    },
    Scene {
        name: "bytes",
        title: "Bytes: live memory per task that is queued",
        outcome: Outcome::Medians(&[Figure { name: "bytes", unit: Unit::Bytes }]),
    },
];

/// How a scene is played.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// The size of a round that is not timed and comes before each that is: a pool whose threads have ended while the
    /// others played starts them again.
    pub(crate) warm_up: Option<u64>,
    pub(crate) size: u64,
    /// Rounds at the beginning that are thrown away.
    pub(crate) discarded: usize,
    pub(crate) rounds: usize,
}

impl Scene {
    /// How many rounds of what size; `quick` is for a look.
    pub(crate) fn plan(&self, kind: Kind, width: usize, quick: bool) -> Plan {
        let of = |pool, java, threads, python| match kind {
            Kind::Pool => pool,
            Kind::Java => java,
            Kind::Threads => threads,
            Kind::Python => python,
        };
        let part = |size: u64| if quick { size / 4 } else { size };
        let rounds = if quick { 3 } else { 17 };
        // Java compiles while it runs.
        let discarded = if kind == Kind::Java { 4 } else { 1 };
        let plan = |size, rounds| Plan { warm_up: None, size, discarded, rounds };
        let stream = |size| Plan { warm_up: Some(part(size) / 10), ..plan(part(size), rounds) };
        match self.name {
            "burst" | "multi" => stream(of(200_000, 200_000, 2_000, 4_000)),
            "fan-out" => {
                let depth = of(17, 17, 0, 11);
                Plan { warm_up: Some(depth - depth / 4), ..plan(depth, rounds) }
            }
            // Blocks of 50 samples; a block's own first calls are its warm-up.
            "hot" => plan(50, if quick { 8 } else { 40 }),
            "cold" => {
                let blocks = if matches!(width, 2 | 4) { 40 } else { 10 };
                plan(50, if quick { 2 } else { blocks })
            }
            "spawn-join" => {
                Plan { rounds: if quick { 3 } else { 27 }, ..stream(of(10_000, 10_000, 1_000, 2_000)) }
            }
            "mixed" => stream(of(4_000, 4_000, 400, 800)),
            // Many small rounds, as one thread that is started late spoils its round.
            "create" => plan(8, if quick { 9 } else { 135 }),
            "drain" => plan(part(of(1_000_000, 1_000_000, 0, 20_000)), if quick { 3 } else { 7 }),
            // The first round alone: from then on queues keep their buffers.
            "bytes" => Plan { discarded: 0, ..plan(100_000, 1) },
            other => unreachable!("the scene {other} has no plan"),
        }
    }
}
