//! A connection for each worker: opened once, used by all its tasks, closed when the worker ends.
//!
//! Two workers, so two connections for six rows. Here they count what they are given; with a client of a database in their
//! place nothing else would change.
//!
//! ```text
//! $ cargo run --example worker_state
//! main returns
//! rows in 2 connections: 6, all closed
//! ```

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use winddown::{task, Pool};

static OPEN: AtomicUsize = AtomicUsize::new(0);
static OPENED: AtomicUsize = AtomicUsize::new(0);
static ROWS: AtomicUsize = AtomicUsize::new(0);

/// Stays on the thread that opened it, as many a client has to.
struct Connection {
    rows: std::rc::Rc<std::cell::Cell<usize>>,
}

impl Connection {
    fn open() -> Connection {
        OPEN.fetch_add(1, Relaxed);
        OPENED.fetch_add(1, Relaxed);
        Connection { rows: std::rc::Rc::default() }
    }

    fn insert(&mut self, _row: usize) {
        std::thread::sleep(std::time::Duration::from_millis(20)); // The way there and back.
        self.rows.set(self.rows.get() + 1);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        ROWS.fetch_add(self.rows.get(), Relaxed);
        OPEN.fetch_sub(1, Relaxed);
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = Pool::builder()
        .name("database")
        .max_threads(2)
        .worker_state(Connection::open)
        .on_task_panic(|task, _| eprintln!("lost a row: {task}"))
        .build()?;
    for row in 0..6 {
        pool.execute(move || {
            task::with_state(|connection: &mut Connection| connection.insert(row)).expect("a worker's task");
        })?;
    }
    // Every worker has ended by then, and has closed its connection.
    winddown::after_join("sum up", || {
        assert_eq!(OPEN.load(Relaxed), 0);
        println!("rows in {} connections: {}, all closed", OPENED.load(Relaxed), ROWS.load(Relaxed));
    })?;
    println!("main returns");
    Ok(())
}
