//! How often threads go to sleep, by the system's count. A sleeping thread can make no system call, and one that wakes
//! up to make one has to go to sleep again; so where the count stands still, nothing has happened.

use crate::Ended;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;
use winddown::{Pool, Registry};

/// A thread that `/proc` lists: whether it sleeps, and how often it went to sleep so far.
#[derive(PartialEq, Debug)]
struct Sleeper {
    is_asleep: bool,
    times: u64,
}

impl Sleeper {
    fn look(thread: &Path) -> Sleeper {
        let status = fs::read_to_string(thread.join("status")).unwrap();
        let value = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
            line.trim_start_matches(':').trim().to_owned()
        };
        let times = value("voluntary_ctxt_switches").parse().unwrap();
        Sleeper { is_asleep: value("State").starts_with('S'), times }
    }
}

/// The threads whose names start with `prefix`, by their numbers.
fn sleepers(prefix: &str) -> BTreeMap<String, Sleeper> {
    let mut found = BTreeMap::new();
    for thread in fs::read_dir("/proc/self/task").unwrap() {
        let thread = thread.unwrap();
        // One that ends in the meantime is none of ours.
        let name = fs::read_to_string(thread.path().join("comm")).unwrap_or_default();
        if name.starts_with(prefix) {
            found.insert(thread.file_name().into_string().unwrap(), Sleeper::look(&thread.path()));
        }
    }
    found
}

/// Waits until the thread of that name sleeps.
pub fn await_sleep(name: &str) {
    while !sleepers(name).values().any(|sleeper| sleeper.is_asleep) {
        thread::yield_now();
    }
}

/// Idle workers, with a keep-alive and without one, while another pool of their registry is at work.
pub fn sleep() -> Ended {
    const WORKERS: usize = 4;
    let pools = [
        Pool::builder().name("idle-a").max_threads(WORKERS).keep_alive(Duration::from_secs(60)).build()?,
        Pool::builder().name("idle-b").max_threads(WORKERS).keep_alive(Duration::MAX).build()?,
        Pool::builder().name("idle-c").max_threads(WORKERS).min_threads(WORKERS).build()?,
    ];
    for pool in &pools {
        let all_there = Arc::new(Barrier::new(WORKERS));
        for _ in 0..WORKERS {
            let all_there = all_there.clone();
            let task = move || {
                all_there.wait();
            };
            pool.execute(task)?;
        }
    }
    // A worker that counts as idle goes to sleep next, and to nothing else.
    let count = WORKERS * pools.len();
    while pools.iter().any(|pool| pool.stats().idle < WORKERS)
        || sleepers("idle-").values().filter(|sleeper| sleeper.is_asleep).count() < count
    {
        thread::yield_now();
    }
    let before = sleepers("idle-");
    let busy = Pool::new(2);
    for _ in 0..1_000 {
        busy.execute(|| ())?;
        assert_eq!(busy.spawn(|| 5)?.join()?, 5);
        busy.wait_idle();
    }
    thread::sleep(Duration::from_millis(300)); // what is measured: a time in which nothing happens
    assert_eq!(sleepers("idle-"), before);
    drop(winddown::shutdown());
    Ok(())
}

/// The thread that runs a shutdown sleeps for some dozen times, however many hooks there are.
pub fn many_hooks() -> Ended {
    const HOOKS: usize = 10_000;
    let registry = Registry::new();
    for _ in 0..HOOKS / 2 {
        registry.before_join("before", || ())?;
        registry.after_join("after", || ())?;
    }
    let this = Path::new("/proc/thread-self");
    let before = Sleeper::look(this).times;
    assert_eq!(registry.shutdown().hooks().len(), HOOKS);
    let times = Sleeper::look(this).times - before;
    println!("slept {times} times");
    assert!(times < 100, "it slept {times} times for {HOOKS} hooks");
    Ok(())
}
