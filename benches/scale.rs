//! Do costs stay what they are when there are many: many pools, many hooks, many workers?
//!
//! `cargo bench --bench scale` compares, for each promise, the cost in question with a cost that it must not exceed by
//! more than a factor. Both are measured in turn in one run and the ratio of the medians counts: on a shared machine
//! the times themselves mean little. Prints every ratio with its limit and ends with a non-zero status if one is above.
//!
//! `-- --quick` takes smaller numbers and fewer rounds; `-- NAME` takes the comparisons whose name contains NAME.

use std::process::ExitCode;
use std::sync::mpsc;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};
use winddown::{HookId, Pool, Registry};

/// How thorough the run is.
#[derive(Clone, Copy)]
struct Effort {
    /// The large number, where a smaller one says as much.
    many: usize,
    rounds: usize,
}

const FULL: Effort = Effort { many: 100_000, rounds: 9 };
const QUICK: Effort = Effort { many: 10_000, rounds: 5 };

/// A comparison: its name, the limit of its ratio, and what measures it.
struct Comparison {
    name: &'static str,
    limit: f64,
    measure: fn(Effort) -> Ratio,
}

const COMPARISONS: &[Comparison] = &[
    Comparison { name: "make and drop a pool among many", limit: 2.0, measure: make_and_drop },
    Comparison { name: "register and run one of many hooks", limit: 1.5, measure: run_hooks },
    Comparison { name: "the same, of ten times as many", limit: 2.0, measure: run_more_hooks },
    // A hundred times as many are some levels more of a tree, and out of the processor's caches.
    Comparison { name: "remove one of many hooks", limit: 15.0, measure: remove_hooks },
    Comparison { name: "shut down 64 idle workers", limit: 1.3, measure: idle_workers },
    Comparison { name: "one pool for one task", limit: 1.5, measure: one_task },
    Comparison { name: "shut down one of many unused pools", limit: 3.0, measure: unused_pools },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let effort = if arguments.iter().any(|argument| argument == "--quick") { QUICK } else { FULL };
    let names: Vec<_> = arguments.iter().filter(|argument| !argument.starts_with("--")).collect();
    let is_wanted = |name: &str| names.is_empty() || names.iter().any(|wanted| name.contains(*wanted));
    let mut missed = 0;
    for comparison in COMPARISONS.iter().filter(|comparison| is_wanted(comparison.name)) {
        let Ratio { base, cost } = (comparison.measure)(effort);
        let ratio = cost.as_secs_f64() / base.as_secs_f64();
        let verdict = if ratio <= comparison.limit { "ok" } else { "MISSED" };
        missed += usize::from(ratio > comparison.limit);
        println!(
            "{:<36} {ratio:5.2}, at most {:3.1}: {verdict:<6} ({cost:.1?} against {base:.1?})",
            comparison.name, comparison.limit
        );
    }
    ExitCode::from(u8::from(missed > 0))
}

/// The medians of what was measured.
struct Ratio {
    base: Duration,
    cost: Duration,
}

/// Measures both sides in turn.
fn compare(rounds: usize, mut base: impl FnMut() -> Duration, mut cost: impl FnMut() -> Duration) -> Ratio {
    let (mut bases, mut costs) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        bases.push(base());
        costs.push(cost());
    }
    Ratio { base: median(bases), cost: median(costs) }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// The time that each of `count` things takes which `act` does together.
fn each(count: usize, act: impl FnOnce()) -> Duration {
    let start = Instant::now();
    act();
    start.elapsed() / count as u32
}

// ---- pools ----

fn pools_in(registry: &Registry, count: usize) -> Vec<Pool> {
    (0..count).map(|_| pool_in(registry, 1)).collect()
}

fn pool_in(registry: &Registry, max_threads: usize) -> Pool {
    Pool::builder().registry(registry).max_threads(max_threads).build().expect("the registry is open")
}

fn make_and_drop(effort: Effort) -> Ratio {
    const TIMES: usize = 2_000;
    let (few, many) = (Registry::new(), Registry::new());
    let _alive = (pools_in(&few, 100), pools_in(&many, effort.many));
    let measure = |registry: &Registry| each(TIMES, || (0..TIMES).for_each(|_| drop(pool_in(registry, 1))));
    compare(effort.rounds * 3, || measure(&few), || measure(&many))
}

/// Against a tenth as many. Both are out of the processor's caches, so a quick run has to take as many.
fn unused_pools(effort: Effort) -> Ratio {
    let measure = |count| {
        let registry = Registry::new();
        let _alive = pools_in(&registry, count);
        each(count, || assert!(registry.shutdown().is_clean()))
    };
    compare(effort.rounds, || measure(FULL.many / 10), || measure(FULL.many))
}

// ---- hooks ----

/// Registers hooks, as many of the one kind as of the other.
fn register(registry: &Registry, count: usize) -> impl Iterator<Item = HookId> + '_ {
    let nothing: fn() = || ();
    (0..count).map(move |n| {
        let hook = match n % 2 {
            0 => registry.before_join("before", nothing),
            _ => registry.after_join("after", nothing),
        };
        hook.expect("the registry is open")
    })
}

/// Against as many in registries with a thousand each, one after another. Those start and join threads for fewer hooks,
/// so this says what programs pay; see [`run_more_hooks`].
fn run_hooks(effort: Effort) -> Ratio {
    compare(effort.rounds, || hooks_in(100), || hooks_in(1))
}

/// Against as many in registries with ten thousand each, where what a shutdown costs by itself does not count.
fn run_more_hooks(effort: Effort) -> Ratio {
    compare(effort.rounds, || hooks_in(10), || hooks_in(1))
}

/// The time of each of the large number of hooks where so many registries share them.
fn hooks_in(registries: usize) -> Duration {
    each(FULL.many, || {
        for _ in 0..registries {
            let registry = Registry::new();
            let hooks = register(&registry, FULL.many / registries).count();
            assert_eq!(registry.shutdown().hooks().len(), hooks);
        }
    })
}

/// Every hundredth hook of the large number is removed, so as many as there are in the small one.
fn remove_hooks(effort: Effort) -> Ratio {
    let few = effort.many / 100;
    let measure = |count: usize| {
        let registry = Registry::new();
        let picked: Vec<_> = register(&registry, count).step_by(count / few).collect();
        each(picked.len(), || picked.iter().for_each(|hook| assert!(registry.remove(*hook))))
    };
    compare(effort.rounds, || measure(few), || measure(effort.many))
}

// ---- threads ----

/// Against threads that are parked, unparked one by one, and joined.
fn idle_workers(effort: Effort) -> Ratio {
    const WORKERS: usize = 64;
    let parked = || {
        let threads: Vec<_> = (0..WORKERS).map(|_| thread::spawn(thread::park)).collect();
        wait_until(|| all_asleep(WORKERS));
        each(1, || {
            threads.iter().for_each(|thread| thread.thread().unpark());
            threads.into_iter().for_each(|thread| thread.join().expect("it does nothing"));
        })
    };
    let pool = || {
        let pool = Pool::new(WORKERS);
        let all_there = Arc::new(Barrier::new(WORKERS));
        for _ in 0..WORKERS {
            let all_there = all_there.clone();
            let task = move || {
                all_there.wait();
            };
            pool.execute(task).expect("an open pool takes tasks");
        }
        pool.wait_idle();
        wait_until(|| pool.stats().idle == WORKERS && all_asleep(WORKERS));
        each(1, || assert_eq!(pool.shutdown().workers_joined(), WORKERS))
    };
    compare(effort.rounds * 9, parked, pool)
}

/// Whether so many threads of this process are asleep; where the system does not tell, after some time.
fn all_asleep(count: usize) -> bool {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else {
        thread::sleep(Duration::from_millis(20));
        return true;
    };
    let is_asleep = |task: &std::fs::DirEntry| {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|state| state.starts_with('S'))
    };
    tasks.flatten().filter(is_asleep).count() >= count
}

fn wait_until(ready: impl Fn() -> bool) {
    while !ready() {
        thread::yield_now();
    }
}

/// From nothing to nothing, against a bare thread that sends its result.
fn one_task(effort: Effort) -> Ratio {
    const TIMES: usize = 200;
    let bare = || {
        let (tell, told) = mpsc::channel();
        let thread = thread::spawn(move || tell.send(5));
        assert_eq!(told.recv(), Ok(5));
        thread.join().expect("it does not panic").expect("somebody listens");
    };
    let pool = || {
        let pool = Pool::new(1);
        let task = pool.spawn(|| 5).expect("an open pool takes tasks");
        assert_eq!(task.join().expect("it does not panic"), 5);
        assert_eq!(pool.shutdown().workers_joined(), 1);
    };
    compare(
        effort.rounds * 3,
        || each(TIMES, || (0..TIMES).for_each(|_| bare())),
        || each(TIMES, || (0..TIMES).for_each(|_| pool())),
    )
}
