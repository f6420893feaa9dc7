//! A program that notes each task it was promised and each task that ran, until a signal ends it.

use super::{argument, block_for_ever, ready};
use crate::Ended;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use winddown::{signals, Pool, RejectReason};

/// A file to which each line goes in one write, so that lines of several threads do not mix.
struct Journal(File);

impl Journal {
    fn open(folder: &Path, name: &str) -> Journal {
        let file = OpenOptions::new().create(true).append(true).open(folder.join(name));
        Journal(file.expect("the journal opens"))
    }

    fn note(&self, task: &str) {
        let line = format!("{task}\n");
        let written = (&self.0).write(line.as_bytes()).expect("the journal takes a line");
        assert_eq!(written, line.len());
    }
}

struct Journals {
    accepted: Journal,
    finished: Journal,
}

/// Two plain threads and `main` submit until they are refused; every third task submits another.
pub fn run() -> Ended {
    let folder = argument();
    let (folder, main_returns) = (Path::new(&folder), std::env::args().nth(3).as_deref() == Some("return"));
    let journals = Arc::new(Journals {
        accepted: Journal::open(folder, "accepted"),
        finished: Journal::open(folder, "finished"),
    });
    signals::install()?;
    let pool = Pool::new(3);
    for name in ["a", "b"] {
        let (pool, journals) = (pool.clone(), journals.clone());
        thread::spawn(move || submit(name, &pool, &journals));
    }
    ready();
    submit("main", &pool, &journals);
    if main_returns {
        return Ok(());
    }
    block_for_ever()
}

fn submit(name: &str, pool: &Pool, journals: &Arc<Journals>) {
    for n in 0.. {
        if !accept(format!("{name} {n}"), n % 3 == 0, pool, journals) {
            return;
        }
        if pool.stats().queued > 200 {
            // Enough is queued for any moment at which the signal may come.
            pool.wait_idle();
        }
    }
}

/// Submits a task and, once it is accepted, notes it. Says whether it was.
fn accept(task: String, has_follow_up: bool, pool: &Pool, journals: &Arc<Journals>) -> bool {
    let (name, inner, to) = (task.clone(), pool.clone(), journals.clone());
    let run = move || {
        to.finished.note(&name);
        if has_follow_up {
            let accepted = accept(format!("{name} again"), false, &inner, &to);
            assert!(accepted, "a task may submit tasks");
        }
    };
    match pool.execute(run) {
        Ok(()) => journals.accepted.note(&task),
        Err(refused) => {
            assert_eq!(refused.reason(), RejectReason::ShuttingDown);
            return false;
        }
    }
    true
}
