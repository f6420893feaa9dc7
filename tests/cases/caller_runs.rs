use crate::{Case, Ended};
use std::process::exit;
use std::sync::mpsc::{channel, Sender};
use std::thread;
use winddown::{task, Pool, WhenFull};

pub const CASES: &[Case] = &[
    ("exit_in_caller_run_task", || here(|| winddown::exit(3))),
    ("exit_in_caller_run_task_of_a_task", || in_task(|| winddown::exit(3))),
    ("exit_in_caller_run_task_of_a_hook", || in_hook(|| winddown::exit(3))),
    ("exit_in_caller_run_task_of_a_last_hook", in_last_hook),
    ("exit_in_caller_run_task_of_a_hook_at_exit", in_hook_at_exit),
    ("process_exit_in_caller_run_task", || here(|| exit(6))),
    ("process_exit_in_caller_run_task_of_a_task", || in_task(|| exit(6))),
    ("process_exit_in_caller_run_task_of_a_hook", || in_hook(|| exit(6))),
    #[cfg(target_os = "linux")]
    ("no_substitute_caller_runs", no_substitute),
];

/// A pool whose submitters run what they submit, until the sender is dropped; and twenty tasks to drain, most of them in
/// another pool.
fn full() -> Result<(Pool, Sender<()>), Box<dyn std::error::Error>> {
    winddown::after_join("after", || println!("after"))?;
    let builder = Pool::builder().max_threads(1).queue_capacity(1).when_full(WhenFull::CallerRuns);
    let pool = builder.build()?;
    let ((go, wait), (started, has_started)) = (channel::<()>(), channel());
    pool.execute(move || {
        started.send(()).unwrap();
        let _ = wait.recv();
    })?;
    has_started.recv()?;
    pool.execute(|| println!("task in the full queue"))?;
    let other = Pool::new(1);
    (1..20).for_each(|n| other.execute(move || println!("task {n}")).unwrap());
    Ok((pool, go))
}

fn here(end: fn()) -> Ended {
    let (pool, go) = full()?;
    let here = thread::current().id();
    pool.execute(move || {
        assert_eq!(thread::current().id(), here);
        drop(go);
        end();
    })?;
    unreachable!("it has ended the process")
}

fn block_for_ever() -> Ended {
    loop {
        thread::park();
    }
}

fn in_task(end: fn()) -> Ended {
    let other = Pool::new(1);
    other.execute(move || here(end).unwrap())?;
    block_for_ever()
}

fn in_hook(end: fn()) -> Ended {
    let (pool, go) = full()?;
    let submit = move || {
        let task = move || {
            drop(go);
            end();
        };
        pool.execute(task).unwrap();
        println!("task that must not be");
    };
    winddown::before_join("submits", submit)?;
    winddown::shutdown();
    block_for_ever()
}

/// A pool refuses everything by then, but what one has handed back can be run there.
fn in_last_hook() -> Ended {
    let (_pool, go) = full()?;
    let handing = Pool::new(1);
    let (started, has_started) = channel();
    handing.execute(move || {
        started.send(()).unwrap();
        while !task::is_cancelled() {
            thread::yield_now();
        }
    })?;
    has_started.recv()?;
    handing.execute(|| winddown::exit(3))?;
    let (_, unstarted) = handing.shutdown_now();
    winddown::after_join("runs it", move || {
        unstarted.into_iter().for_each(|task| task.run());
        println!("task that must not be");
    })?;
    drop(go);
    winddown::shutdown();
    block_for_ever()
}

fn in_hook_at_exit() -> Ended {
    let (pool, go) = full()?;
    let submit = move || {
        let task = move || {
            drop(go);
            winddown::exit(99);
        };
        pool.execute(task).unwrap();
        println!("task that must not be");
    };
    winddown::before_join("submits", submit)?;
    exit(5)
}

/// A worker runs a task of another pool, which waits for the worker's own. Nobody can stand in for it: that task has to see to
/// the queue of a pool that is not its own.
#[cfg(target_os = "linux")]
fn no_substitute() -> Ended {
    use crate::resources::limited::without_threads;
    let (pool, go) = full()?;
    let other = Pool::builder().max_threads(1).build()?;
    let (open, closed) = channel::<()>();
    let (started, has_started) = channel();
    let (inner, itself) = (pool.clone(), other.clone());
    let blocked = other.spawn(move || {
        // Whatever a thread maps for itself when it starts, it has now.
        let _ = started.send(vec![0; 1000]);
        let _ = closed.recv();
        let outer = thread::current().id();
        let task = move || {
            assert_eq!(thread::current().id(), outer);
            itself.wait_idle();
        };
        inner.spawn(task).unwrap().join().unwrap();
    })?;
    has_started.recv()?;
    let behind = other.spawn(|| 7)?;
    let seen = without_threads(|| {
        drop(open);
        blocked.join().unwrap();
        behind.join().unwrap()
    });
    assert_eq!((seen, other.stats().peak_threads), (7, 1));
    drop(go);
    assert!(winddown::shutdown().is_clean());
    Ok(())
}
