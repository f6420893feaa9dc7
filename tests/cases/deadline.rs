use crate::{Case, Ended};
use std::io::Write;
use std::process::exit;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use winddown::{Pool, Registry};

pub const CASES: &[Case] = &[
    ("stuck_and_main_returns", stuck_and_main_returns),
    ("stuck_and_process_exits", stuck_and_process_exits),
    ("stuck_and_winddown_exits", stuck_and_winddown_exits),
    ("stuck_with_stdout_locked", stuck_with_stdout_locked),
    ("stuck_in_process_exit", stuck_in_process_exit),
    ("stuck_in_private_registries", stuck_in_private_registries),
    ("stuck_and_main_returns_the_report", stuck_and_main_returns_the_report),
];

/// Runs `before` and then nothing, for ever, in a task of the pool.
fn stick(pool: &Pool, before: impl FnOnce() + Send + 'static) {
    let (started, has_started) = mpsc::channel();
    let task = move || {
        before();
        started.send(()).unwrap();
        loop {
            thread::park();
        }
    };
    pool.execute(task).unwrap();
    has_started.recv().unwrap();
}

fn stuck() -> Pool {
    winddown::set_deadline(Some(Duration::from_millis(400)));
    let pool = Pool::new(1);
    stick(&pool, || ());
    println!("tidy");
    pool
}

fn stuck_and_main_returns() -> Ended {
    let _pool = stuck();
    Ok(())
}

fn stuck_and_process_exits() -> Ended {
    let _pool = stuck();
    exit(7)
}

fn stuck_and_winddown_exits() -> Ended {
    let _pool = stuck();
    winddown::exit(8)
}

fn stuck_with_stdout_locked() -> Ended {
    let pool = stuck();
    pool.close();
    stick(&Pool::new(1), || {
        let mut stdout = std::io::stdout().lock();
        stdout.flush().unwrap();
        std::mem::forget(stdout);
    });
    winddown::exit(9)
}

/// A task that calls `process::exit` while `main` exits is parked by std for ever.
fn stuck_in_process_exit() -> Ended {
    let _pool = stuck();
    let (go, wait) = mpsc::channel::<()>();
    winddown::before_join("let it go", move || drop(go))?;
    Pool::new(1).execute(move || {
        let _ = wait.recv();
        exit(100);
    })?;
    Ok(())
}

fn stuck_in_private_registries() -> Ended {
    let _pool = stuck();
    for _ in 0..3 {
        stick(&Pool::builder().registry(&Registry::new()).build()?, || ());
    }
    Ok(())
}

fn stuck_and_main_returns_the_report() -> Ended {
    let _pool = stuck();
    let report = winddown::shutdown();
    let code = std::process::ExitCode::from(&report);
    assert_eq!(report.totals().abandoned, 1);
    exit(if code == std::process::ExitCode::SUCCESS { 0 } else { 1 })
}
