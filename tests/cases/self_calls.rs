use crate::{Case, Ended};
use std::process::exit;
use std::sync::{mpsc, Arc, Barrier};
use std::thread;
use std::time::Duration;
use winddown::{Pool, Registry};

pub const CASES: &[Case] = &[
    ("exit_in_task", || in_task(2, || winddown::exit(3))),
    ("exit_in_task_with_queue_behind", || in_task(1, || winddown::exit(3))),
    ("exit_in_task_during_shutdown", || in_task_during_shutdown(|| winddown::exit(3))),
    ("exit_in_two_tasks", exit_in_two_tasks),
    ("exit_in_hook", || in_hook(|| winddown::exit(4))),
    ("exit_in_last_hook", || in_last_hook(|| winddown::exit(4))),
    ("exit_in_hook_at_exit", exit_in_hook_at_exit),
    ("process_exit_in_task", || in_task(2, || exit(6))),
    ("process_exit_in_task_with_queue_behind", || in_task(1, || exit(6))),
    ("process_exit_in_task_during_shutdown", || in_task_during_shutdown(|| exit(6))),
    ("process_exit_in_hook", || in_hook(|| exit(7))),
    ("process_exit_in_last_hook", || in_last_hook(|| exit(7))),
    ("process_exit_in_hook_of_private_registry", process_exit_in_hook_of_private_registry),
    ("shutdown_in_task", shutdown_in_task),
    ("guard_in_task", guard_in_task),
    ("guard_in_hook", guard_in_hook),
];

fn twenty(pool: &Pool) {
    for n in 0..20 {
        pool.execute(move || {
            thread::sleep(Duration::from_millis(1)); // the work
            println!("task {n}");
        })
        .unwrap();
    }
}

/// The post-join hook runs whatever ends the process, once.
fn prepare() {
    winddown::after_join("after", || println!("after")).unwrap();
}

fn block_for_ever() -> Ended {
    loop {
        thread::park();
    }
}

fn in_task(threads: usize, end: fn()) -> Ended {
    prepare();
    let pool = Pool::new(threads);
    let (go, wait) = mpsc::channel::<()>();
    pool.execute(move || {
        let _ = wait.recv();
        end();
    })?;
    twenty(&pool);
    drop(go);
    block_for_ever()
}

fn in_task_during_shutdown(end: fn()) -> Ended {
    prepare();
    let pool = Pool::new(1);
    let token = winddown::token();
    pool.execute(move || {
        token.wait();
        end();
    })?;
    twenty(&pool);
    winddown::shutdown();
    block_for_ever() // the task ends the process: main must not come first
}

fn exit_in_two_tasks() -> Ended {
    prepare();
    let pool = Pool::new(2);
    let all_queued = Arc::new(Barrier::new(3));
    for code in [3, 4] {
        let all_queued = all_queued.clone();
        pool.execute(move || {
            all_queued.wait();
            winddown::exit(code);
        })?;
    }
    twenty(&Pool::new(1));
    all_queued.wait();
    block_for_ever()
}

fn in_hook(end: fn()) -> Ended {
    prepare();
    let pool = Pool::new(2);
    winddown::before_join("ends", end)?;
    twenty(&pool);
    winddown::shutdown();
    block_for_ever()
}

fn in_last_hook(end: fn()) -> Ended {
    let pool = Pool::new(2);
    prepare();
    winddown::after_join("ends", end)?;
    twenty(&pool);
    winddown::shutdown();
    block_for_ever()
}

fn exit_in_hook_at_exit() -> Ended {
    prepare();
    let pool = Pool::new(2);
    winddown::before_join("too late", || winddown::exit(99))?;
    twenty(&pool);
    exit(5)
}

fn process_exit_in_hook_of_private_registry() -> Ended {
    prepare();
    let registry = Registry::new();
    let pool = Pool::builder().registry(&registry).max_threads(2).build()?;
    registry.before_join("ends", || exit(7))?;
    twenty(&pool);
    registry.shutdown();
    block_for_ever()
}

fn shutdown_in_task() -> Ended {
    prepare();
    let pool = Pool::new(1);
    let report = pool.spawn(winddown::shutdown)?;
    let (go, wait) = mpsc::channel::<()>();
    let task = move || {
        let _ = wait.recv();
    };
    let _ = pool.execute(task);
    twenty_or_refused(&pool);
    drop(go);
    assert!(report.join()?.is_clean());
    Ok(())
}

/// The shutdown may begin while these are submitted; what is refused runs here.
fn twenty_or_refused(pool: &Pool) {
    for n in 0..20 {
        if let Err(refused) = pool.execute(move || println!("task {n}")) {
            refused.into_inner()();
        }
    }
}

fn guard_in_task() -> Ended {
    prepare();
    let pool = Pool::new(1);
    let (go, wait) = mpsc::channel::<()>();
    let guarded = pool.spawn(move || {
        let _guard = winddown::guard();
        let _ = wait.recv();
    })?;
    twenty(&pool);
    drop(go);
    guarded.join()?;
    Ok(())
}

fn guard_in_hook() -> Ended {
    let pool = Pool::new(1);
    winddown::before_join("guarded", || drop(winddown::guard()))?;
    twenty(&pool);
    assert!(winddown::shutdown().is_clean());
    Ok(())
}
