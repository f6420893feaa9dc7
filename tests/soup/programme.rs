//! What a soup is made of: bytes, read as the pools and as what is done with them. Any bytes are a programme, and where they
//! end, it ends.

use std::sync::Arc;
use std::time::Duration;
use winddown::{FollowUps, WhenFull};

/// One byte is one decision, so that a change of a byte is a small change of the programme.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A number below `below`; zero where there are no more bytes.
    fn below(&mut self, below: usize) -> usize {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(*first) % below
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == n - 1
    }

    fn pick<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())].clone()
    }

    fn part(&mut self, length: usize) -> Reader<'a> {
        let (part, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        Reader(part)
    }
}

#[derive(Debug)]
pub struct Programme {
    pub ends: Vec<End>,
    pub pools: Vec<PoolSpec>,
    /// What each of the threads does that play at the same time.
    pub players: Vec<Vec<Op>>,
}

/// How a registry ends after the play.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    Shutdown,
    /// The handles of its pools are dropped, and the rest comes by itself.
    Drop,
    Request,
}

#[derive(Clone, Debug)]
pub struct PoolSpec {
    pub registry: usize,
    pub max_threads: usize,
    pub min_threads: usize,
    pub keep_alive: Duration,
    pub capacity: Option<usize>,
    pub when_full: WhenFull,
    pub follow_ups: FollowUps,
    pub is_daemon: bool,
    pub state: Option<Manners>,
    pub on_start: Callback,
    pub on_stop: Callback,
    pub on_panic: Callback,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Callback {
    None,
    Quiet,
    Panics,
    /// When it is called for the second time.
    PanicsLater,
}

/// What a value does when it is dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Manners {
    Good,
    Panics,
}

/// What a task does.
#[derive(Debug)]
pub struct Body {
    pub ops: Vec<Op>,
    pub end: BodyEnd,
    pub capture: Manners,
    /// A closure that does not fit into a place of the queue.
    pub is_large: bool,
    /// It captures a handle of a pool.
    pub carries: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BodyEnd {
    Return(Manners),
    Panic(Manners),
}

#[derive(Debug)]
pub enum Op {
    Submit {
        to: To,
        how: How,
        body: Arc<Body>,
        then: Then,
        times: usize,
    },
    Scope {
        to: To,
        bodies: Vec<(Arc<Body>, ScopedThen)>,
        ops: Vec<Op>,
        panics: bool,
    },
    Map {
        to: To,
        style: MapStyle,
        items: usize,
        taken: usize,
        body: Arc<Body>,
    },
    Gather {
        how: Gather,
        parts: Vec<(To, Arc<Body>)>,
    },
    /// Does something with a handle that was kept.
    Recall {
        then: Then,
    },
    /// Cancels a task from elsewhere.
    Cancel {
        nth: usize,
    },
    Close {
        pool: usize,
    },
    ShutPool {
        pool: usize,
        how: Shut,
    },
    ShutNow {
        pool: usize,
        runs: usize,
    },
    WaitIdle {
        pool: usize,
        timeout: Option<Duration>,
    },
    Drop {
        pool: usize,
    },
    Build {
        pool: usize,
        spec: PoolSpec,
    },
    ShutRegistry {
        registry: usize,
        how: Shut,
    },
    Request {
        registry: usize,
        waits: bool,
    },
    Deadline {
        registry: usize,
        deadline: Option<Duration>,
    },
    Hook {
        registry: usize,
        stage: HookStage,
        body: Arc<Body>,
        is_removed: bool,
    },
    Hold {
        registry: usize,
        ops: Vec<Op>,
    },
    Sample {
        pool: usize,
    },
    Label,
    State,
    Yield,
    /// Goes on until it is told to stop, or has looked often.
    AskWhetherCancelled,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum To {
    Pool(usize),
    /// That of the task itself, if it is one.
    Own,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    Execute,
    Spawn,
    TryExecute,
    TrySpawn,
    ExecuteTimeout(Duration),
    SpawnTimeout(Duration),
    Async,
    /// Polled so many times and dropped.
    AsyncDropped(usize),
    After(Duration),
    LimitExecute(usize),
    LimitSpawn(usize),
    LimitTryExecute(usize),
    LimitTrySpawn(usize),
}

impl How {
    pub fn limit(self) -> Option<usize> {
        match self {
            How::LimitExecute(n) | How::LimitSpawn(n) | How::LimitTryExecute(n) | How::LimitTrySpawn(n) => {
                Some(n)
            }
            _ => None,
        }
    }
}

/// What becomes of a handle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Then {
    Drop,
    Join,
    JoinTimeout(Duration),
    Await,
    Poll,
    Cancel,
    CancelAndJoin,
    CancelOnDrop,
    CancelOnDropJoin,
    Keep,
    /// Kept, and others may cancel it.
    Offer,
}

impl Then {
    pub fn waits(self) -> bool {
        use Then::*;
        matches!(self, Join | Await | CancelAndJoin | CancelOnDropJoin | JoinTimeout(Duration::MAX))
    }

    /// Waits in a way that never runs the task in place.
    pub fn only_waits(self) -> bool {
        matches!(self, Then::Await | Then::JoinTimeout(Duration::MAX))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ScopedThen {
    Drop,
    Join,
    Look,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MapStyle {
    Ordered,
    Unordered,
    Lookahead(usize),
    /// The input panics at its end.
    BadInput,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gather {
    All,
    Any,
    Completed,
    /// So many results are taken, and the rest detached.
    SomeCompleted(usize),
    /// Waits with time-outs that pass at once.
    Impatient,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shut {
    Wait,
    Timeout(Duration),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HookStage {
    Before,
    After,
}

/// Pools that there are at once.
pub const POOLS: usize = 3;
pub const REGISTRIES: usize = 2;
/// Limits of each pool.
pub const LIMITS: usize = 2;
const PLAYERS: usize = 4;
const DEPTH: usize = 4;

/// Such a time passes in no run: what waits for it ends otherwise.
pub const LONG: Duration = Duration::from_secs(3600);
const MOMENT: Duration = Duration::from_micros(300);

pub fn decode(input: &[u8]) -> Programme {
    let mut r = Reader(input);
    let ends = (0..REGISTRIES).map(|_| r.pick(&[End::Shutdown, End::Drop, End::Request])).collect();
    let pools = (0..POOLS).map(|_| spec(&mut r)).collect();
    let count = 1 + r.below(PLAYERS);
    let share = r.0.len() / count + 1;
    let players = (0..count).map(|_| ops(&mut r.part(share), 0, usize::MAX)).collect();
    Programme { ends, pools, players }
}

fn spec(r: &mut Reader<'_>) -> PoolSpec {
    let max_threads = 1 + r.below(3);
    // Most pools are sound: one that breaks with its first thread, or ends at once, takes no part in anything else.
    let callback = |r: &mut Reader<'_>| {
        use Callback::*;
        r.pick(&[None, None, None, None, None, Quiet, Quiet, Quiet, Quiet, PanicsLater, PanicsLater, Panics])
    };
    PoolSpec {
        registry: r.below(REGISTRIES),
        max_threads,
        min_threads: r.below(max_threads + 1),
        keep_alive: r.pick(&[Duration::from_secs(10), Duration::ZERO, MOMENT, Duration::MAX]),
        capacity: r.pick(&[None, Some(1), Some(2), Some(5)]),
        when_full: r.pick(&[WhenFull::Block, WhenFull::Reject, WhenFull::CallerRuns]),
        follow_ups: r.pick(&[FollowUps::Accept, FollowUps::Accept, FollowUps::Reject]),
        is_daemon: r.one_in(5),
        state: r.pick(&[None, Some(Manners::Good), None, Some(Manners::Panics)]),
        on_start: callback(r),
        on_stop: callback(r),
        on_panic: callback(r),
    }
}

fn ops(r: &mut Reader<'_>, depth: usize, most: usize) -> Vec<Op> {
    let mut ops = Vec::new();
    if depth > DEPTH {
        return ops;
    }
    while ops.len() < most && !r.is_empty() {
        ops.push(op(r, depth));
    }
    ops
}

fn body(r: &mut Reader<'_>, depth: usize) -> Arc<Body> {
    // Most tasks are small, and some have half of the rest to themselves.
    let most = r.pick(&[0, 0, 0, 1, 1, 2, 3, 5]);
    let shape = r.below(32);
    let ends =
        [BodyEnd::Panic(Manners::Good), BodyEnd::Panic(Manners::Panics), BodyEnd::Return(Manners::Panics)];
    Arc::new(Body {
        ops: ops(r, depth + 1, most),
        end: ends.get(shape).copied().unwrap_or(BodyEnd::Return(Manners::Good)),
        capture: if shape % 8 == 7 { Manners::Panics } else { Manners::Good },
        is_large: shape % 4 == 2,
        carries: (shape % 16 == 5).then(|| r.below(POOLS)),
    })
}

fn to(r: &mut Reader<'_>) -> To {
    r.pick(&[To::Pool(0), To::Pool(1), To::Pool(2), To::Own, To::Own])
}

fn timeout(r: &mut Reader<'_>) -> Duration {
    r.pick(&[Duration::ZERO, MOMENT, Duration::MAX])
}

fn how(r: &mut Reader<'_>) -> How {
    let limit = |r: &mut Reader<'_>| r.below(LIMITS);
    match r.below(18) {
        0 | 13 => How::Execute,
        1 | 14 | 15 | 16 | 17 => How::Spawn,
        2 => How::TryExecute,
        3 => How::TrySpawn,
        4 => How::ExecuteTimeout(r.pick(&[Duration::ZERO, MOMENT])),
        5 => How::SpawnTimeout(r.pick(&[Duration::ZERO, MOMENT])),
        6 => How::Async,
        7 => How::AsyncDropped(r.below(3)),
        8 => How::After(r.pick(&[Duration::ZERO, MOMENT, LONG])),
        9 => How::LimitExecute(limit(r)),
        10 => How::LimitSpawn(limit(r)),
        11 => How::LimitTryExecute(limit(r)),
        _ => How::LimitTrySpawn(limit(r)),
    }
}

fn then(r: &mut Reader<'_>) -> Then {
    match r.below(13) {
        0 => Then::Drop,
        1 | 11 => Then::Join,
        2 => Then::JoinTimeout(timeout(r)),
        3 => Then::Await,
        4 => Then::Poll,
        5 => Then::Cancel,
        6 => Then::CancelAndJoin,
        7 => Then::CancelOnDrop,
        8 => Then::CancelOnDropJoin,
        9 | 12 => Then::Keep,
        _ => Then::Offer,
    }
}

fn shut(r: &mut Reader<'_>) -> Shut {
    r.pick(&[
        Shut::Wait,
        Shut::Wait,
        Shut::Timeout(Duration::ZERO),
        Shut::Timeout(MOMENT),
        Shut::Timeout(10 * MOMENT),
        Shut::Timeout(Duration::MAX),
    ])
}

fn op(r: &mut Reader<'_>, depth: usize) -> Op {
    let pool = |r: &mut Reader<'_>| r.below(POOLS);
    match r.below(64) {
        0..=23 => Op::Submit {
            to: to(r),
            how: how(r),
            then: then(r),
            times: r.pick(&[1, 1, 1, 2, 3, 8]),
            body: body(r, depth),
        },
        24..=26 => {
            let then = [ScopedThen::Drop, ScopedThen::Join, ScopedThen::Look];
            let to = to(r);
            let panics = r.one_in(16);
            let bodies = (0..r.below(4)).map(|_| (body(r, depth), r.pick(&then))).collect();
            Op::Scope { to, bodies, ops: ops(r, depth + 1, 1), panics }
        }
        27..=29 => {
            let styles = [
                MapStyle::Ordered,
                MapStyle::Unordered,
                MapStyle::Lookahead(1 + r.below(4)),
                MapStyle::BadInput,
            ];
            let (to, style) = (to(r), r.pick(&styles));
            Op::Map { to, style, items: r.below(8), taken: r.below(10), body: body(r, depth) }
        }
        30..=33 => {
            let ways = [
                Gather::All,
                Gather::Any,
                Gather::Completed,
                Gather::SomeCompleted(r.below(3)),
                Gather::Impatient,
            ];
            let how = r.pick(&ways);
            Op::Gather { how, parts: (0..r.below(5)).map(|_| (to(r), body(r, depth))).collect() }
        }
        34..=37 => Op::Recall { then: then(r) },
        38..=39 => Op::Cancel { nth: r.below(256) },
        40 => Op::Close { pool: pool(r) },
        41 => Op::ShutPool { pool: pool(r), how: shut(r) },
        42 => Op::ShutNow { pool: pool(r), runs: r.below(256) },
        43..=44 => {
            let timeout = r.pick(&[None, None, Some(Duration::ZERO), Some(MOMENT), Some(Duration::MAX)]);
            Op::WaitIdle { pool: pool(r), timeout }
        }
        45 => Op::Drop { pool: pool(r) },
        46..=48 => Op::Build { pool: pool(r), spec: spec(r) },
        // A registry ends once, and little happens in it afterwards.
        49 => match r.below(6) {
            0 => Op::ShutRegistry { registry: r.below(REGISTRIES), how: shut(r) },
            1 => Op::Request { registry: r.below(REGISTRIES), waits: r.below(2) == 1 },
            2 => Op::Deadline {
                registry: r.below(REGISTRIES),
                deadline: r.pick(&[None, Some(MOMENT), Some(LONG)]),
            },
            _ => Op::Yield,
        },
        50..=52 => Op::Hook {
            registry: r.below(REGISTRIES),
            stage: r.pick(&[HookStage::Before, HookStage::After]),
            is_removed: r.one_in(4),
            body: body(r, depth),
        },
        53 => Op::Hold { registry: r.below(REGISTRIES), ops: ops(r, depth + 1, 2) },
        54..=56 => Op::Sample { pool: pool(r) },
        57 => Op::Label,
        58 => Op::State,
        59..=60 => Op::AskWhetherCancelled,
        _ => Op::Yield,
    }
}
