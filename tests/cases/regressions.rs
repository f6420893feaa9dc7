use crate::{Case, Ended};
use std::sync::mpsc::channel;
use std::time::Duration;
use winddown::{Pool, Registry};

pub const CASES: &[Case] = &[
    ("exit_in_the_first_callback", exit_in_the_first_callback),
    ("registry_made_in_a_hook", registry_made_in_a_hook),
    ("loss_in_a_registry_below", loss_in_a_registry_below),
];

/// As a program does that gets no connection for its worker.
fn exit_in_the_first_callback() -> Ended {
    let pool = Pool::builder().max_threads(1).on_thread_start(|| winddown::exit(6)).build()?;
    let task = pool.spawn(|| ())?;
    let _ = task.join();
    loop {
        std::thread::park(); // The process ends on the worker.
    }
}

fn registry_made_in_a_hook() -> Ended {
    winddown::before_join("one last registry", || {
        let pool = Pool::builder().registry(&Registry::new()).max_threads(1).build().unwrap();
        pool.execute(|| println!("its task")).unwrap();
    })?;
    let report = winddown::shutdown();
    println!("clean: {}", report.is_clean());
    Ok(())
}

fn loss_in_a_registry_below() -> Ended {
    let registry = Registry::new();
    let pool = Pool::builder().registry(&registry).max_threads(1).build()?;
    let (_gate, closed) = channel::<()>();
    let (begun, has_begun) = channel();
    pool.execute(move || {
        let _ = begun.send(());
        let _ = closed.recv();
    })?;
    has_begun.recv()?;
    let report = winddown::shutdown_timeout(Duration::from_millis(50));
    println!("{} abandoned", report.totals().abandoned);
    if report.is_clean() {
        return Ok(());
    }
    winddown::exit(1)
}
