//! What happened, in order, as pools, hooks and threads tell it.

use std::cell::RefCell;
use std::error::Error;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use winddown::{Pool, Registry, ShutdownToken};

pub type Tested = Result<(), Box<dyn Error>>;

/// What happened, in order, as noted from any thread.
#[derive(Clone, Default)]
pub struct Journal(Arc<Mutex<Vec<String>>>);

impl Journal {
    pub fn note(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }

    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    /// Something that notes `what` when it is called.
    pub fn noting(&self, what: impl Into<String>) -> impl FnOnce() + Send + 'static {
        let (journal, what) = (self.clone(), what.into());
        move || journal.note(what)
    }
}

pub fn pool_of(registry: &Registry, name: &'static str, threads: usize) -> Pool {
    Pool::builder().registry(registry).name(name).max_threads(threads).build().unwrap()
}

/// Inside a task: waits until its pool drains.
pub fn wait_until_closed() {
    let pool = Pool::current().expect("this is inside a task");
    while !pool.is_closed() {
        thread::yield_now();
    }
}

/// Notes its text when its thread ends, which takes a while and does not begin before shutdown does.
pub struct Farewell(pub Journal, pub &'static str, pub ShutdownToken);

impl Drop for Farewell {
    fn drop(&mut self) {
        self.2.wait();
        thread::sleep(Duration::from_millis(20)); // the work
        self.0.note(self.1);
    }
}

thread_local!(pub static FAREWELL: RefCell<Option<Farewell>> = const { RefCell::new(None) });
