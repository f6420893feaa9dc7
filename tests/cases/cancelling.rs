use crate::{Case, Ended};
use std::sync::mpsc::channel;
use std::thread;
use winddown::{task, token, Pool, Registry};

pub const CASES: &[Case] = &[
    ("cancelled_at_the_end", cancelled_at_the_end),
    ("main_ends_in_a_shutdown_now", main_ends_in_a_shutdown_now),
    ("tokens_fire_downwards", tokens_fire_downwards),
];

/// Tasks that are cancelled while a worker comes for them, and after that the end.
fn cancelled_at_the_end() -> Ended {
    let submit = |pool: &Pool| {
        for _ in 0..100 {
            pool.spawn(|| ()).expect("it is open").cancel();
        }
    };
    for _ in 0..20 {
        let pool = Pool::new(1);
        submit(&pool);
        assert!(pool.shutdown().is_clean());
    }
    println!("shut down");
    let pool = Pool::new(1);
    submit(&pool);
    before_end();
    Ok(())
}

/// Without the exit net a program shuts down by itself.
fn before_end() {
    if !cfg!(feature = "exit-hook") {
        assert!(winddown::shutdown().is_clean());
    }
}

/// What is queued is thrown away by another thread while the process ends. None of it runs.
fn main_ends_in_a_shutdown_now() -> Ended {
    let pool = Pool::new(1);
    let ((started, has_started), (told, is_told)) = (channel(), channel());
    pool.execute(move || {
        println!("running");
        started.send(()).expect("main listens");
        while !task::is_cancelled() {
            thread::yield_now();
        }
        told.send(()).expect("main listens");
    })?;
    has_started.recv()?;
    for n in 0..100 {
        pool.execute(move || println!("task {n}"))?;
    }
    thread::spawn(move || drop(pool.shutdown_now()));
    is_told.recv()?;
    before_end();
    Ok(())
}

fn tokens_fire_downwards() -> Ended {
    let (one, other) = (Registry::new(), Registry::new());
    let [of_all, of_one, of_other] = [token(), one.token(), other.token()];
    assert!(one.shutdown().is_clean());
    let [one, other_too, all] = [&of_one, &of_other, &of_all].map(|token| token.is_triggered());
    println!("one ends: {one}, {other_too}, {all}");
    let of_hook = of_other.clone();
    other.before_join("asks", move || println!("a hook of the other: {}", of_hook.is_triggered()))?;
    let pool = Pool::builder().registry(&other).max_threads(1).build()?;
    // It gets no further unless the end of all is that of the other as well.
    pool.execute(move || {
        of_other.wait();
        println!("a task of the other: {}", of_all.is_triggered());
    })?;
    winddown::exit(0)
}
