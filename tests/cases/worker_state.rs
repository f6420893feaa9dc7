use crate::{Case, Ended};
use std::process::id;
use std::sync::mpsc::channel;
use std::thread;
use winddown::{task, Pool};

pub const CASES: &[Case] = &[
    ("exit_in_worker_state", exit_in_worker_state),
    ("exit_in_drop_of_worker_state", exit_in_drop_of_worker_state),
    ("worker_state_at_exit", worker_state_at_exit),
    #[cfg(unix)]
    ("fork_with_worker_state", fork_with_worker_state),
    #[cfg(target_os = "linux")]
    ("no_substitute_worker_state", no_substitute_worker_state),
];

/// As a program does that gets no connection for its worker.
fn exit_in_worker_state() -> Ended {
    let pool = Pool::builder().max_threads(1).worker_state(|| winddown::exit(6)).build()?;
    let _ = pool.spawn(|| ())?.join();
    loop {
        thread::park(); // The process ends on the worker.
    }
}

struct Exits;

impl Drop for Exits {
    fn drop(&mut self) {
        winddown::exit(7);
    }
}

fn exit_in_drop_of_worker_state() -> Ended {
    let other = Pool::new(1);
    let pool = Pool::builder().max_threads(1).worker_state(|| Exits).build()?;
    pool.execute(move || (0..3).for_each(|n| other.execute(move || println!("task {n}")).unwrap()))?;
    drop(pool); // its worker leaves when it has run the task
    loop {
        thread::park(); // The process ends on the worker.
    }
}

struct Tells(u32);

impl Drop for Tells {
    fn drop(&mut self) {
        match self.0 {
            0 => println!("dropped"),
            parent if parent == id() => println!("dropped in parent"),
            _ => println!("dropped in child"),
        }
    }
}

fn worker_state_at_exit() -> Ended {
    let pool = Pool::builder().max_threads(1).worker_state(|| Tells(0)).build()?;
    pool.execute(|| println!("task"))?;
    Ok(())
}

/// Forks in a task. The child comes out of the task on the worker's thread, which is its only one.
#[cfg(unix)]
fn fork_with_worker_state() -> Ended {
    let parent = id();
    let pool = Pool::builder().max_threads(1).worker_state(move || Tells(parent)).build()?;
    let (tell, told) = channel();
    pool.execute(move || {
        let forks = |_: &mut Tells| crate::fork::unix::fork();
        match task::with_state(forks).expect("there is a state") {
            Some(child) => tell.send(child.end()).unwrap(),
            // The main thread may have held the channel's lock, which its drop takes.
            None => std::mem::forget(tell),
        }
    })?;
    println!("child: {}", told.recv()?);
    pool.shutdown();
    Ok(())
}

/// The only worker is blocked in a wait, nobody can stand in for it: it runs the queue itself, with its state unless it is in
/// use.
#[cfg(target_os = "linux")]
fn no_substitute_worker_state() -> Ended {
    use crate::resources::limited::without_threads;
    let pool = Pool::builder().max_threads(1).worker_state(|| 0_u32).build()?;
    let count = |count: &mut u32| {
        *count += 1;
        *count
    };
    for is_in_use in [false, true] {
        let ((open, closed), (started, has_started)) = (channel::<()>(), channel());
        let inner = pool.clone();
        let blocked = pool.spawn(move || {
            // Whatever a thread maps for itself when it starts, it has now.
            let _ = started.send(vec![0; 1000]);
            let _ = closed.recv();
            match is_in_use {
                false => inner.wait_idle(),
                true => task::with_state(|_: &mut u32| inner.wait_idle()).expect("there is a state"),
            }
        })?;
        has_started.recv()?;
        let behind = pool.spawn(move || task::with_state(count))?;
        let seen = without_threads(|| {
            drop(open);
            blocked.join().unwrap();
            behind.join().unwrap()
        });
        assert_eq!(seen, (!is_in_use).then_some(1));
        assert_eq!(pool.stats().peak_threads, 1);
    }
    assert_eq!(pool.spawn(move || task::with_state(count))?.join()?, Some(2));
    assert!(pool.shutdown().is_clean());
    Ok(())
}
