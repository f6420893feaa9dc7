use crate::{Case, Ended};
use std::cell::RefCell;
use std::error::Error;
use std::process;
use std::sync::mpsc::channel;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use winddown::{FollowUps, JoinHandle, Phase, Pool, Registry};

macro_rules! cases {
    ($($case:ident),* $(,)?) => {
        pub const CASES: &[Case] = &[
            ("tasks_wait_for_tasks_of_an_older_pool", || tasks_wait_for_tasks_of_an_idle_pool(1, false)),
            ("tasks_wait_for_tasks_of_a_newer_pool", || tasks_wait_for_tasks_of_an_idle_pool(0, false)),
            ("tasks_wait_for_tasks_of_an_older_used_pool", || tasks_wait_for_tasks_of_an_idle_pool(1, true)),
            ("tasks_wait_for_tasks_of_a_newer_used_pool", || tasks_wait_for_tasks_of_an_idle_pool(0, true)),
            $((stringify!($case), $case)),*
        ];
    };
}

cases![
    whole_order_when_main_shuts_down,
    whole_order_when_main_returns,
    whole_order_when_main_exits,
    whole_order_when_a_task_exits,
    whole_order_when_a_private_shutdown_came_first,
    destructor_of_a_live_pool,
    destructor_of_a_dropped_pool,
    destructor_of_an_expired_worker,
    hooks_run_once,
    hooks_without_a_pool,
    hook_panics,
    hook_panics_and_main_exits,
    hook_ends_a_consumer,
    hook_leaves_work_on_a_new_pool,
    follow_ups_between_pools,
    tasks_wait_for_tasks_of_another_pool,
    pool_rejects_follow_ups,
    daemon_runs_for_ever,
];

/// Ends the process, as the test asks for: by a call, or by the return from `main`.
fn end() -> Ended {
    match std::env::args().nth(2).as_deref() {
        Some("return") => Ok(()),
        _ => winddown::exit(0),
    }
}

/// Inside a task: waits until its pool drains.
fn wait_until_closed() {
    let pool = Pool::current().expect("this is inside a task");
    while !pool.is_closed() {
        thread::yield_now();
    }
}

/// Prints when its thread ends, which takes until after the drain, and a while longer.
struct Farewell(String, Registry);

impl Drop for Farewell {
    fn drop(&mut self) {
        while self.1.phase() < Phase::Joining {
            thread::yield_now();
        }
        thread::sleep(Duration::from_millis(20)); // the work
        println!("{}", self.0);
    }
}

/// Inside a task: has its thread print `text` at its end.
fn say_at_thread_exit(text: String) {
    thread_local!(static FAREWELL: RefCell<Option<Farewell>> = const { RefCell::new(None) });
    let pool = Pool::current().expect("this is inside a task");
    FAREWELL.set(Some(Farewell(text, pool.registry().clone())));
}

/// Keeps a pool open until a shutdown closes it.
fn keep_open(pool: &Pool) {
    std::mem::forget(pool.clone());
}

/// Two pools and two hooks of each kind in each of three registries; everything prints what it is. Returns the newest.
fn cast() -> Result<Registry, Box<dyn Error>> {
    let registries =
        [("global", Registry::global().clone()), ("old", Registry::new()), ("new", Registry::new())];
    let mut pools = Vec::new();
    for &(name, ref registry) in &registries {
        for n in 1..=2 {
            let pool =
                Pool::builder().registry(registry).name(format!("{name} {n}")).max_threads(1).build()?;
            pool.execute(move || {
                wait_until_closed();
                println!("task of {name} {n}");
                say_at_thread_exit(format!("destructor of {name} {n}"));
            })?;
            keep_open(&pool);
            pools.push(pool);
        }
    }
    for &(name, ref registry) in &registries {
        for n in 1..=2 {
            let all = pools.clone();
            registry.before_join(format!("before {n} of {name}"), move || {
                println!("before {n} of {name}");
                for pool in all {
                    let its = pool.name().to_owned();
                    let is_open = pool.registry().phase() < Phase::Draining;
                    assert_eq!(pool.execute(move || println!("task of {its}")).is_ok(), is_open);
                }
            })?;
            registry.after_join(format!("after {n} of {name}"), move || println!("after {n} of {name}"))?;
        }
    }
    let [.., (_, newest)] = registries;
    Ok(newest)
}

fn whole_order_when_main_shuts_down() -> Ended {
    cast()?;
    assert!(winddown::shutdown().is_clean());
    Ok(())
}

fn whole_order_when_main_returns() -> Ended {
    cast()?;
    Ok(())
}

fn whole_order_when_main_exits() -> Ended {
    cast()?;
    process::exit(3)
}

fn whole_order_when_a_task_exits() -> Ended {
    cast()?;
    let pool = Pool::builder().registry(&Registry::new()).max_threads(1).build()?;
    pool.execute(|| winddown::exit(7))?;
    loop {
        thread::park();
    }
}

/// The exit takes over what is left.
fn whole_order_when_a_private_shutdown_came_first() -> Ended {
    let newest = cast()?;
    assert!(newest.shutdown().is_clean());
    println!("shut down");
    end()
}

/// Each alone: another thread that is joined would give it the time it takes.
fn destructor_of_a_live_pool() -> Ended {
    let pool = Pool::new(1);
    pool.spawn(|| say_at_thread_exit("destructor".into()))?.join()?;
    exit_with_a_last_hook()
}

fn destructor_of_a_dropped_pool() -> Ended {
    let pool = Pool::new(1);
    pool.spawn(|| say_at_thread_exit("destructor".into()))?.join()?;
    drop(pool);
    while !Registry::global().stats().is_empty() {
        thread::yield_now();
    }
    exit_with_a_last_hook()
}

fn destructor_of_an_expired_worker() -> Ended {
    let pool = Pool::builder().max_threads(1).keep_alive(Duration::from_millis(1)).build()?;
    pool.spawn(|| say_at_thread_exit("destructor".into()))?.join()?;
    while pool.stats().threads > 0 {
        thread::yield_now();
    }
    exit_with_a_last_hook()
}

fn exit_with_a_last_hook() -> Ended {
    winddown::after_join("last", || println!("after"))?;
    end()
}

fn hooks_run_once() -> Ended {
    winddown::before_join("before", || println!("before"))?;
    winddown::after_join("after", || println!("after"))?;
    winddown::shutdown();
    winddown::shutdown();
    winddown::request_shutdown();
    end()
}

fn hooks_without_a_pool() -> Ended {
    winddown::before_join("before", || println!("before"))?;
    winddown::after_join("after", || println!("after"))?;
    Ok(())
}

fn hook_panics() -> Ended {
    winddown::before_join("before", || println!("before"))?;
    winddown::before_join("panics", || panic!("no luck before"))?;
    winddown::after_join("after", || println!("after"))?;
    winddown::after_join("panics", || panic!("no luck after"))?;
    let pool = Pool::new(1);
    keep_open(&pool);
    pool.execute(|| {
        wait_until_closed();
        println!("task");
    })?;
    Ok(())
}

fn hook_panics_and_main_exits() -> Ended {
    hook_panics()?;
    winddown::exit(3)
}

fn hook_ends_a_consumer() -> Ended {
    let pool = Pool::new(1);
    let (feed, requests) = channel();
    pool.execute(move || requests.into_iter().for_each(|n: u32| println!("request {n}")))?;
    winddown::before_join("close the feed", move || {
        feed.send(7).expect("the consumer listens");
        drop(feed);
    })?;
    end()
}

fn hook_leaves_work_on_a_new_pool() -> Ended {
    winddown::after_join("last", || println!("after"))?;
    winddown::before_join("late", || {
        let pool = Pool::new(1);
        for n in 0..10 {
            pool.execute(move || println!("task {n}")).expect("a new pool is open");
        }
    })?;
    end()
}

/// Chains of 100 tasks that go back and forth, two ways at once.
fn follow_ups_between_pools() -> Ended {
    fn bounce(here: Arc<Pool>, there: Arc<Pool>, left: u32) {
        println!("task");
        if left > 1 {
            let next = there.clone();
            let follow_up = move || bounce(there, here, left - 1);
            next.execute(follow_up).expect("a task may submit while pools drain");
        }
    }
    let pools = [Arc::new(Pool::new(1)), Arc::new(Pool::new(1))];
    for (here, there) in [(0, 1), (1, 0)] {
        let (here, there) = (pools[here].clone(), pools[there].clone());
        here.clone().execute(move || {
            wait_until_closed();
            bounce(here, there, 100);
        })?;
    }
    end()
}

/// In both directions: the pool that closes first must not be gone when the other's tasks need it.
fn tasks_wait_for_tasks_of_another_pool() -> Ended {
    let pools = [Arc::new(Pool::new(2)), Arc::new(Pool::new(2))];
    for (here, there) in [(0, 1), (1, 0)] {
        let there = pools[there].clone();
        pools[here].execute(move || waits_for_tasks_of(&there))?;
    }
    end()
}

fn waits_for_tasks_of(there: &Pool) {
    wait_until_closed();
    for n in 0..10 {
        let handle = there.spawn(move || println!("task {n}")).expect("a task may submit while pools drain");
        handle.join().expect("the other pool runs it");
    }
}

/// One way only: the other pool has nothing to do, and is open to the tasks of the first all the same.
fn tasks_wait_for_tasks_of_an_idle_pool(busy: usize, is_used: bool) -> Ended {
    let pools = [Pool::new(1), Pool::new(1)];
    let idle = pools[1 - busy].clone();
    if is_used {
        idle.spawn(|| ())?.join()?;
    }
    let busy = &pools[busy];
    let kept_open = busy.clone();
    busy.execute(move || {
        let _until_exit = kept_open;
        waits_for_tasks_of(&idle);
    })?;
    end()
}

/// What was accepted before runs, what a task submits comes back.
fn pool_rejects_follow_ups() -> Ended {
    let pool = Pool::builder().max_threads(1).follow_ups(FollowUps::Reject).build()?;
    let (own, (give, take)) = (pool.clone(), channel::<JoinHandle<()>>());
    pool.execute(move || {
        let before = take.recv().expect("main sends it");
        wait_until_closed();
        let refused = own.spawn(|| println!("a follow-up")).expect_err("it rejects what its tasks submit");
        println!("{:?}", refused.reason());
        refused.into_inner()();
        println!("{:?}", before.join());
    })?;
    give.send(pool.spawn(|| println!("accepted before"))?)?;
    end()
}

fn daemon_runs_for_ever() -> Ended {
    let daemon = Pool::builder().daemon().max_threads(1).build()?;
    let (begun, has_begun) = channel();
    daemon.execute(move || {
        begun.send(()).expect("main listens");
        loop {
            thread::park();
        }
    })?;
    has_begun.recv()?;
    daemon.execute(|| println!("lost"))?;
    winddown::before_join("before", || println!("before"))?;
    winddown::after_join("after", || println!("after"))?;
    let pool = Pool::new(1);
    keep_open(&pool);
    pool.execute(|| {
        wait_until_closed();
        println!("task");
    })?;
    end()
}
