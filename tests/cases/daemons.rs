//! Programs that end while daemon pools are at work.

use crate::{Case, Ended};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;
use winddown::Pool;

pub const CASES: &[Case] = &[
    ("only_daemons", only_daemons),
    ("daemons_use_files_and_stdout", daemons_use_files_and_stdout),
    ("daemons_submit_to_the_end", daemons_submit_to_the_end),
    ("daemon_is_joined_at_the_end", daemon_is_joined_at_the_end),
];

fn block_for_ever() {
    loop {
        thread::park();
    }
}

/// Without the exit net a program shuts down by itself.
fn before_end() {
    if !cfg!(feature = "exit-hook") {
        winddown::shutdown();
    }
}

/// Has every one of the pool's threads run `task`, and returns when they do.
fn on_all(pool: &Pool, threads: usize, task: impl Fn() + Send + Sync + 'static) -> Ended {
    let (task, all) = (Arc::new(task), Arc::new(Barrier::new(threads + 1)));
    for _ in 0..threads {
        let (task, all) = (task.clone(), all.clone());
        pool.execute(move || {
            all.wait();
            task();
        })?;
    }
    all.wait();
    Ok(())
}

/// There is nobody to wait for, but there are hooks to run.
fn only_daemons() -> Ended {
    let pool = Pool::builder().daemon().max_threads(2).build()?;
    on_all(&pool, 2, block_for_ever)?;
    pool.execute(|| println!("lost"))?;
    winddown::before_join("before", || println!("before"))?;
    winddown::after_join("after", || println!("after"))?;
    before_end();
    Ok(())
}

fn daemons_use_files_and_stdout() -> Ended {
    let pool = Pool::builder().daemon().max_threads(40).build()?;
    let own = std::env::current_exe()?;
    on_all(&pool, 40, move || loop {
        println!("daemon");
        let head = std::fs::File::open(&own).and_then(|mut file| {
            let mut head = [0; 512];
            std::io::Read::read_exact(&mut file, &mut head).map(|()| head)
        });
        assert!(head.is_ok_and(|head| std::fs::write("/dev/null", head).is_ok()));
    })?;
    Pool::new(1).execute(|| println!("task"))?;
    before_end();
    Ok(())
}

/// Daemons submit to a pool that drains, has drained, and is gone.
fn daemons_submit_to_the_end() -> Ended {
    let (pool, daemons) = (Pool::new(2), Pool::builder().daemon().max_threads(4).build()?);
    let target = pool.clone();
    let (refused, was_refused) = channel();
    on_all(&daemons, 4, move || loop {
        if let Err(error) = target.execute(|| ()) {
            drop(refused.send(format!("{:?}", error.reason())));
        }
    })?;
    winddown::after_join("refusals", move || {
        // They have been refused since the drain began, and still are.
        let reasons: Vec<_> = was_refused.iter().take(100).collect();
        println!("all are {}: {}", reasons[0], reasons.iter().all(|reason| *reason == reasons[0]));
    })?;
    for n in 0..50 {
        pool.execute(move || println!("task {n}"))?;
    }
    before_end();
    Ok(())
}

/// A task waits for one of a daemon pool while the process ends: that goes on running until no other pool does.
fn daemon_is_joined_at_the_end() -> Ended {
    let (pool, daemon) = (Pool::new(1), Pool::builder().daemon().max_threads(1).build()?);
    pool.execute(move || {
        winddown::token().wait();
        thread::sleep(Duration::from_millis(20)); // work, during which a daemon pool might be closed
        let served = daemon.spawn(|| "served").expect("it is open").join();
        println!("{:?}", served.ok());
    })?;
    before_end();
    Ok(())
}
