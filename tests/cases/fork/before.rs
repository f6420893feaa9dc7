//! What was made before the fork, and how it looks in the child.

use super::unix::{before_end, child};
use crate::Ended;
use std::future::Future;
use std::ops::Range;
use std::pin::pin;
use std::sync::mpsc::{channel, Sender};
use std::sync::Arc;
use std::task::{Context, Poll, Wake};
use std::time::Duration;
use winddown::*;

/// A closure that blocks until the sender is dropped.
pub fn gate() -> (Sender<()>, impl FnOnce() + Send + 'static) {
    let (open, closed) = channel::<()>();
    let wait = move || {
        let _ = closed.recv();
    };
    (open, wait)
}

/// A bit of everything, made before the fork: a task that runs, one behind it, one that has ended.
pub struct Before {
    pool: Pool,
    registry: Registry,
    private: Pool,
    running: JoinHandle<()>,
    queued: JoinHandle<()>,
    done: JoinHandle<u32>,
    /// Of tasks one of which has ended, and the other is queued.
    several: AsCompleted<u32>,
    /// Of which the first result was taken.
    map: Map<Range<u32>, u32>,
    unordered: MapUnordered<Range<u32>, u32>,
    holds: [Hold; 2],
    tokens: [ShutdownToken; 2],
    finished: [Finished; 2],
    hook: HookId,
    global: &'static Registry,
    open: Sender<()>,
}

impl Before {
    pub fn new() -> Result<Before, Box<dyn std::error::Error>> {
        let registry = Registry::new();
        let private = Pool::builder().registry(&registry).max_threads(2).build()?;
        let pool = Pool::new(1);
        let done = pool.spawn(|| 7)?;
        pool.wait_idle();
        let (open, wait) = gate();
        let (started, has_started) = channel();
        let running = pool.spawn(move || {
            let _ = started.send(());
            wait();
        })?;
        has_started.recv()?;
        let queued = pool.spawn(|| ())?;
        private.spawn(|| ())?.join()?;
        let several = as_completed([private.spawn(|| 8)?, pool.spawn(|| 9)?]);
        let mut map = private.map(0..10, |n| n);
        let mut unordered = private.map_unordered(0..10, |n| n);
        let _first = (map.next(), unordered.next());
        Ok(Before {
            running,
            queued,
            done,
            several,
            map,
            unordered,
            holds: [hold("a request")?, registry.hold("another")?],
            tokens: [token(), registry.token()],
            finished: [Registry::global().finished(), registry.finished()],
            hook: before_join("removed", || ())?,
            global: Registry::global(),
            pool,
            registry,
            private,
            open,
        })
    }
}

fn poll<F: Future>(future: F) -> Poll<F::Output> {
    struct Nobody;
    impl Wake for Nobody {
        fn wake(self: Arc<Nobody>) {}
    }
    pin!(future).poll(&mut Context::from_waker(&Arc::new(Nobody).into()))
}

pub fn is_abandoned<T>(result: Result<T, JoinError>) -> bool {
    result.is_err_and(|error| error.is_abandoned() && error.kind() == JoinErrorKind::Abandoned)
}

type Look = (&'static str, fn(Before));

const LOOKS: &[Look] = &[
    ("refusals", |it| {
        for pool in [&it.pool, &it.private] {
            let refused = pool.execute(|| println!("a returned closure ran")).unwrap_err();
            assert_eq!(refused.reason(), RejectReason::Forked);
            assert!(refused.to_string().contains("forked child"));
            refused.into_inner()();
            let refused = pool.spawn(|| 5).unwrap_err();
            assert_eq!(refused.reason(), RejectReason::Forked);
            assert_eq!(refused.into_inner()(), 5);
            assert!(pool.is_closed());
        }
        for registry in [&it.registry, it.global] {
            assert_eq!(registry.before_join("late", || ()).unwrap_err().reason(), RejectReason::Forked);
            assert_eq!(registry.after_join("late", || ()).unwrap_err().reason(), RejectReason::Forked);
            assert!(registry.hold("late").is_err());
            assert_eq!(Pool::builder().registry(registry).build().unwrap_err(), BuildError::ShuttingDown);
            assert!(!registry.remove(it.hook));
        }
    }),
    ("joins", |it| {
        assert!(it.running.is_finished() && it.queued.is_finished());
        assert!(!it.running.cancel() && !it.queued.cancel() && !it.queued.canceller().cancel());
        assert!(is_abandoned(it.running.join()));
        assert!(is_abandoned(it.queued.join_timeout(Duration::MAX).unwrap()));
        assert!(is_abandoned(it.done.join()));
    }),
    ("awaits", |it| {
        assert!(poll(it.running).map(is_abandoned) == Poll::Ready(true));
        assert!(poll(it.queued.cancel_on_drop()).map(is_abandoned) == Poll::Ready(true));
        assert!(is_abandoned(it.done.cancel_on_drop().join()));
        assert!(it.finished.into_iter().all(|finished| poll(finished).is_ready()));
        assert!(it.tokens.into_iter().all(|token| poll(token).is_ready()));
    }),
    ("collections", |mut it| {
        assert!(it.several.map(is_abandoned).eq([true, true]));
        // What was submitted, and what is refused now.
        for results in [&mut it.map as &mut dyn Iterator<Item = _>, &mut it.unordered] {
            let kinds: Vec<_> =
                results.map(|result: Result<u32, JoinError>| result.unwrap_err().kind()).collect();
            use JoinErrorKind::{Abandoned, Cancelled};
            assert_eq!(kinds, [Abandoned, Abandoned, Abandoned, Cancelled]);
        }
        let mut old_and_new = as_completed([Pool::new(1).spawn(|| ()).unwrap(), it.running]);
        assert_eq!(old_and_new.by_ref().filter(|result| result.is_ok()).count(), 1);
        assert!(join_all([it.queued]).into_iter().all(is_abandoned));
        assert!(join_any([it.done]).is_some_and(is_abandoned));
    }),
    ("waits", |it| {
        for token in &it.tokens {
            assert!(token.is_triggered() && token.wait_timeout(Duration::ZERO));
            token.wait();
        }
        for pool in [&it.pool, &it.private] {
            pool.wait_idle();
            assert!(pool.wait_idle_timeout(Duration::ZERO));
            pool.close();
            pool.shutdown();
            pool.shutdown_timeout(Duration::MAX);
        }
        for registry in [&it.registry, it.global] {
            registry.set_deadline(Some(Duration::ZERO));
            registry.request_shutdown();
            registry.wait_finished();
            registry.shutdown();
            registry.shutdown_timeout(Duration::MAX);
        }
    }),
    ("looks", |it| {
        for pool in [&it.pool, &it.private] {
            let stats = pool.stats();
            assert_eq!((stats.threads, stats.running, stats.queued), (0, 0, 0));
            assert!(pool.running().is_empty());
            assert!(!pool.name().is_empty() && format!("{pool:?}").contains("Pool"));
            assert_eq!(pool.registry().stats().len(), 0);
        }
        for registry in [&it.registry, it.global] {
            let progress = registry.progress();
            assert_eq!((progress.tasks_left, progress.workers_left), (0, 0));
            assert!(registry.phase() <= Phase::Finished && !format!("{registry:?}").is_empty());
        }
        let shown = format!("{:?} {:?} {:?} {:?}", it.running, it.tokens, it.finished, it.holds);
        assert!(shown.contains("JoinHandle"));
    }),
    ("drops", |it| {
        drop(it.queued.cancel_on_drop());
        drop((it.pool.clone(), it.registry.clone(), it.tokens.clone()));
        drop((it.several, it.map, it.unordered));
        drop((it.pool, it.private, it.registry, it.running, it.done));
        drop((it.holds, it.tokens, it.finished, it.open));
    }),
    ("a fresh start", |it| {
        let global = Registry::global();
        assert!(!std::ptr::eq(global, it.global));
        assert_eq!((global.phase(), global.stats().len()), (Phase::Running, 0));
        assert!(!token().is_triggered());
        assert!(!global.remove(it.hook));
        assert_eq!(Pool::new(1).spawn(|| 3).unwrap().join().unwrap(), 3);
        assert!(shutdown().is_clean());
        assert!(token().is_triggered());
    }),
];

pub fn old_things() -> Ended {
    let mut before = Some(Before::new()?);
    for (name, look) in LOOKS {
        let child = child(|| look(before.take().expect("the child has its own")));
        println!("{name}: {}", child.end());
    }
    // The parent's are what they were.
    let it = before.expect("it was taken in children only");
    assert!(!it.running.is_finished() && !it.tokens[0].is_triggered());
    drop((it.open, it.holds));
    it.running.join()?;
    it.queued.join()?;
    assert_eq!(it.done.join()?, 7);
    assert!(it.several.map(Result::unwrap).eq([8, 9]));
    assert!(it.map.map(Result::unwrap).eq(1..10) && it.unordered.count() == 9);
    assert!(it.registry.remove(it.hook) || it.global.remove(it.hook));
    before_end();
    Ok(())
}
