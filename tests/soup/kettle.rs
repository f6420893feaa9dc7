//! A pool of the soup, and how often it was asked for what.

use super::ledger::{misbehave, Boom};
use super::programme::{Callback, Manners, PoolSpec, LIMITS};
use super::standing;
use crate::common::Tracked;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, OnceLock, PoisonError};
use winddown::{BuildError, Limited, Pool, PoolStats, Registry};

#[derive(Clone)]
pub struct Handles {
    pub pool: Pool,
    pub limits: Vec<Limited>,
}

pub struct Kettle {
    pub name: String,
    /// Its place. Tasks wait for tasks of the same place, or a higher one.
    pub place: usize,
    pub spec: PoolSpec,
    handles: Mutex<Option<Handles>>,
    /// Looks at the pool without keeping it open.
    observer: OnceLock<Pool>,
    /// Submissions that the programme knows the outcome of, and those of scopes and maps, which it does not.
    pub accepted: AtomicU64,
    pub refused: AtomicU64,
    pub of_scopes: AtomicU64,
    pub of_maps: AtomicU64,
    /// Tasks that began, in the pool and handed back.
    pub began: AtomicU64,
    pub began_adrift: AtomicU64,
    /// Somebody may have gone over the bound.
    pub is_overfull: AtomicBool,
    /// The last count of accepted tasks that was seen.
    seen: Mutex<u64>,
}

/// What each worker has for itself.
pub struct WorkerState {
    pub uses: u64,
    manners: Manners,
    _tracked: Tracked<()>,
}

impl Drop for WorkerState {
    fn drop(&mut self) {
        misbehave(self.manners);
    }
}

fn callback(what: Callback) -> impl Fn() + Send + Sync + 'static {
    let calls = AtomicUsize::new(0);
    // What a callback captures is dropped once, too.
    let tracked = Tracked::new(());
    move || {
        let _ = &tracked;
        let calls = calls.fetch_add(1, SeqCst);
        if what == Callback::Panics || (what == Callback::PanicsLater && calls == 1) {
            Boom::go(Manners::Panics);
        }
    }
}

impl Kettle {
    pub fn build(
        number: usize,
        place: usize,
        spec: &PoolSpec,
        registry: &Registry,
    ) -> Result<Kettle, BuildError> {
        let name = format!("kettle-{number}");
        let mut builder = Pool::builder()
            .name(name.clone())
            .registry(registry)
            .max_threads(spec.max_threads)
            .min_threads(spec.min_threads)
            .keep_alive(spec.keep_alive)
            .when_full(spec.when_full)
            .follow_ups(spec.follow_ups);
        if let Some(capacity) = spec.capacity {
            builder = builder.queue_capacity(capacity);
        }
        if spec.is_daemon {
            builder = builder.daemon();
        }
        if let Some(manners) = spec.state {
            builder =
                builder.worker_state(move || WorkerState { uses: 0, manners, _tracked: Tracked::new(()) });
        }
        if spec.on_start != Callback::None {
            builder = builder.on_thread_start(callback(spec.on_start));
        }
        if spec.on_stop != Callback::None {
            builder = builder.on_thread_stop(callback(spec.on_stop));
        }
        if spec.on_panic != Callback::None {
            let call = callback(spec.on_panic);
            builder = builder.on_task_panic(move |task, _| {
                let _ = task.to_string();
                call();
            });
        }
        let pool = builder.build()?;
        let limits = (0..LIMITS).map(|n| pool.limit(n + 1)).collect();
        Ok(Kettle {
            name,
            place,
            spec: spec.clone(),
            handles: Mutex::new(Some(Handles { pool, limits })),
            observer: OnceLock::new(),
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            of_scopes: AtomicU64::new(0),
            of_maps: AtomicU64::new(0),
            began: AtomicU64::new(0),
            began_adrift: AtomicU64::new(0),
            is_overfull: AtomicBool::new(false),
            seen: Mutex::new(0),
        })
    }

    /// Handles of the pool, unless they were dropped.
    pub fn handles(&self) -> Option<Handles> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn take_handles(&self) -> Option<Handles> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// A task of it begins, or one that it has handed back.
    pub fn note_beginning(&self, is_scoped: bool) {
        match Pool::current() {
            Some(pool) if pool.name() == self.name => {
                let _ = self.observer.set(pool);
                self.began.fetch_add(1, SeqCst);
            }
            // What the pool refuses of a scope, the submitter runs.
            _ if is_scoped => _ = self.began.fetch_add(1, SeqCst),
            _ => {
                assert!(standing::is_adrift(), "a task of {} runs in {:?}", self.name, Pool::current());
                self.began_adrift.fetch_add(1, SeqCst);
            }
        }
    }

    /// Something that still sees the pool, if anybody does.
    pub fn watcher(&self) -> Option<Pool> {
        self.handles().map(|handles| handles.pool).or_else(|| self.observer.get().cloned())
    }

    /// What holds at any time.
    pub fn sample(&self, pool: &Pool) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let stats = pool.stats();
        let PoolStats { queued, delayed, running, accepted, completed, panicked, .. } = stats;
        let PoolStats { cancelled, returned, abandoned, rejected, .. } = stats;
        let all = [
            queued, delayed, running, accepted, completed, panicked, cancelled, returned, abandoned, rejected,
        ];
        assert!(all.iter().all(|count| *count < 1 << 32), "a count is below zero: {stats:?}");
        assert!(accepted >= *seen, "accepted tasks have become fewer than {seen}: {stats:?}");
        *seen = accepted;
        drop(seen);
        assert!(stats.idle <= stats.threads && stats.threads <= stats.peak_threads, "{stats:?}");
        if let Some(capacity) = self.spec.capacity {
            // Each thread may be about to count a cancelled task that it has just taken: `docs/evidence.md`.
            let uncounted = if cancelled > 0 { stats.peak_threads } else { 0 };
            let is_over = queued > (capacity + uncounted) as u64 && !self.is_overfull.load(SeqCst);
            assert!(!is_over, "more is queued than there is room for: {stats:?}");
        }
        let _ = format!("{pool:?} {:?}", pool.running());
    }

    /// What holds at rest: the pool says of itself what its tasks and their submitters say.
    pub fn check(&self, stats: &PoolStats) {
        let read = |count: &AtomicU64| count.load(SeqCst);
        let told = format!(
            "{stats:?}, but accepted {}, refused {}, by scopes {}, by maps {}, began {}, adrift {}, {:?}",
            read(&self.accepted),
            read(&self.refused),
            read(&self.of_scopes),
            read(&self.of_maps),
            read(&self.began),
            read(&self.began_adrift),
            self.spec,
        );
        let ended = stats.completed + stats.panicked + stats.abandoned;
        assert_eq!((stats.queued, stats.delayed, stats.running), (0, 0, 0), "{told}");
        assert_eq!(stats.accepted, ended + stats.cancelled + stats.returned, "it does not add up: {told}");
        let offered =
            read(&self.accepted) + read(&self.refused) + read(&self.of_scopes) + read(&self.of_maps);
        assert_eq!(stats.accepted + stats.rejected, offered, "offered {offered}: {told}");
        // Of scopes the pool may have refused tasks, which ran all the same, and of maps, which did not.
        let refused = stats.rejected.checked_sub(read(&self.refused));
        let refused = refused.unwrap_or_else(|| panic!("more was refused: {told}"));
        let outside = read(&self.began).checked_sub(ended);
        let outside = outside.unwrap_or_else(|| panic!("more ended than began: {told}"));
        assert!(outside <= refused && outside <= read(&self.of_scopes), "{outside} ran elsewhere: {told}");
        assert!(refused - outside <= read(&self.of_maps), "{refused} refused of maps: {told}");
        assert!(read(&self.began_adrift) <= stats.returned, "{told}");
    }
}
