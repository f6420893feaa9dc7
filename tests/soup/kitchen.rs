//! Plays programmes.

use super::kettle::{Handles, Kettle, WorkerState};
use super::ledger::{expect_panic, note, quietly, Boom, Capture, Record, Value, HAS_DEADLINE};
use super::programme::{
    Body, BodyEnd, End, Gather, HookStage, How, Manners, MapStyle, Op, PoolSpec, Programme, ScopedThen, Shut,
    Then, To, LONG,
};
use super::standing::{self, Frame};
use crate::common::{self, eventually};
use std::future::Future;
use std::iter;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::pin::{pin, Pin};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Mutex, MutexGuard, PoisonError, RwLock};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;
use winddown::{
    as_completed, join_all, join_any, task, BuildError, Canceller, HookOutcome, JoinHandle, Phase, PoolPhase,
    PoolReport, Registry, RejectReason, Rejected, Report, WhenFull,
};

/// More pools than that are not built in one play: each may have some threads.
const MOST_POOLS: usize = 24;

/// The pools, and all that was done with them.
pub struct Soup {
    registries: Vec<Registry>,
    /// The pools of now, by their place.
    pools: Vec<RwLock<Arc<Kettle>>>,
    /// All there ever were.
    kettles: Mutex<Vec<Arc<Kettle>>>,
    records: Mutex<Vec<Arc<Record>>>,
    kept: Mutex<Vec<Kept>>,
    cancellers: Mutex<Vec<(Canceller, Arc<Record>)>>,
    /// Hooks that were taken on and not removed, by registry.
    hooks: Vec<AtomicU64>,
}

/// A handle, and what is known of its task.
struct Kept {
    handle: JoinHandle<Value>,
    record: Arc<Record>,
    /// It is for later than anybody waits.
    is_late: bool,
}

fn lock<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Soup {
    pub fn new(programme: &Programme) -> Arc<Soup> {
        let registries: Vec<Registry> = programme.ends.iter().map(|_| common::registry()).collect();
        let build = |(place, spec): (usize, &PoolSpec)| {
            Arc::new(Kettle::build(place, place, spec, &registries[spec.registry]).unwrap())
        };
        let kettles: Vec<Arc<Kettle>> = programme.pools.iter().enumerate().map(build).collect();
        Arc::new(Soup {
            hooks: registries.iter().map(|_| AtomicU64::new(0)).collect(),
            registries,
            pools: kettles.iter().cloned().map(RwLock::new).collect(),
            kettles: Mutex::new(kettles),
            records: Mutex::default(),
            kept: Mutex::default(),
            cancellers: Mutex::default(),
        })
    }

    /// Plays the programme to its end, and checks what is left.
    pub fn cook(self: &Arc<Soup>, programme: &Programme) {
        let start = Barrier::new(programme.players.len());
        thread::scope(|s| {
            for (n, ops) in programme.players.iter().enumerate() {
                let player = thread::Builder::new().name(format!("player-{n}"));
                let play = || {
                    start.wait();
                    self.play(ops);
                };
                player.spawn_scoped(s, play).unwrap();
            }
        });
        self.finish(&programme.ends);
    }

    /// Prints what there is, for people.
    pub fn tell(&self) {
        for registry in &self.registries {
            eprintln!("{:?}, {:#?}", registry.progress(), registry.stats());
        }
        for kettle in &*lock(&self.kettles) {
            let watcher = kettle.watcher();
            let seen = watcher.map(|pool| (pool.stats(), pool.running()));
            eprintln!("{} at {}: {seen:#?}", kettle.name, kettle.place);
        }
        for record in lock(&self.records).iter().filter(|record| !record.is_over()) {
            eprintln!("not over: {} {record:?}", record.what());
        }
    }

    fn play(self: &Arc<Soup>, ops: &[Op]) {
        for op in ops {
            // An operation may drop what panics then, and a scope panics with what its tasks did.
            quietly(|| self.op(op));
        }
    }

    fn at(&self, place: usize) -> Arc<Kettle> {
        self.pools[place].read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The pool that is meant, if it can still be submitted to.
    fn target(&self, to: To) -> Option<(Arc<Kettle>, Handles)> {
        let kettle = match to {
            To::Pool(place) => self.at(place),
            To::Own => standing::own().unwrap_or_else(|| self.at(0)),
        };
        let handles = kettle.handles()?;
        Some((kettle, handles))
    }

    fn record(&self, what: String) -> Arc<Record> {
        let mut records = lock(&self.records);
        let record = Arc::new(Record::new(records.len(), what));
        records.push(record.clone());
        record
    }

    fn op(self: &Arc<Soup>, op: &Op) {
        match op {
            Op::Submit { to, how, body, then, times } => {
                for _ in 0..*times {
                    if let Some((kettle, handles)) = self.target(*to) {
                        quietly(|| self.submit(&kettle, &handles, *how, body, *then));
                    }
                }
            }
            Op::Scope { to, bodies, ops, panics } => self.scope(*to, bodies, ops, *panics),
            Op::Map { to, style, items, taken, body } => self.map(*to, *style, *items, *taken, body),
            Op::Gather { how, parts } => self.gather(*how, parts),
            Op::Recall { then } => {
                let kept = lock(&self.kept).pop();
                if let Some(kept) = kept {
                    let may_wait = standing::is_outside() && !kept.is_late;
                    self.then(kept, *then, may_wait);
                }
            }
            Op::Cancel { nth } => {
                let found = {
                    let cancellers = lock(&self.cancellers);
                    let count = cancellers.len().max(1);
                    cancellers.get(nth % count).cloned()
                };
                if let Some((canceller, record)) = found {
                    if canceller.cancel() {
                        record.is_doomed.store(true, SeqCst);
                    }
                }
            }
            Op::Close { pool } => {
                if let Some((_, handles)) = self.target(To::Pool(*pool)) {
                    handles.pool.close();
                    assert!(handles.pool.is_closed());
                }
            }
            Op::ShutPool { pool, how } => {
                let Some((kettle, handles)) = self.target(To::Pool(*pool)) else { return };
                if !standing::may_end(&kettle) {
                    return;
                }
                note_deadline(how);
                let report = match how {
                    Shut::Wait => handles.pool.shutdown(),
                    Shut::Timeout(timeout) => handles.pool.shutdown_timeout(*timeout),
                };
                check_pool_report(&report);
            }
            Op::ShutNow { pool, runs } => {
                let Some((kettle, handles)) = self.target(To::Pool(*pool)) else { return };
                if !standing::may_end(&kettle) {
                    return;
                }
                let (report, unstarted) = handles.pool.shutdown_now();
                check_pool_report(&report);
                let _adrift = Frame::adrift().enter();
                for (n, task) in unstarted.into_iter().enumerate() {
                    let _ = format!("{task:?}");
                    match runs >> (n % 8) & 1 {
                        0 => drop(task),
                        _ => task.run(),
                    }
                }
            }
            Op::WaitIdle { pool, timeout } => {
                let Some((kettle, handles)) = self.target(To::Pool(*pool)) else { return };
                let is_long = matches!(timeout, None | Some(Duration::MAX));
                match timeout {
                    _ if is_long && !standing::may_wait_idle(&kettle) => {}
                    None => handles.pool.wait_idle(),
                    Some(timeout) => {
                        let is_idle = handles.pool.wait_idle_timeout(*timeout);
                        assert!(is_idle || *timeout != Duration::MAX);
                    }
                }
            }
            Op::Drop { pool } => drop(self.at(*pool).take_handles()),
            Op::Build { pool, spec } => self.build(*pool, spec),
            Op::ShutRegistry { registry, how } => {
                let it = &self.registries[*registry];
                let run = || match how {
                    Shut::Wait => it.shutdown(),
                    Shut::Timeout(timeout) => it.shutdown_timeout(*timeout),
                };
                if standing::is_in_hook() {
                    expect_panic(|| drop(run()));
                } else if standing::may_end_registry(*registry) {
                    note_deadline(how);
                    check_report(&run());
                    assert_eq!(it.phase(), Phase::Finished);
                }
            }
            Op::Request { registry, waits } => {
                let it = &self.registries[*registry];
                it.request_shutdown();
                assert!(it.phase() > Phase::Running && it.token().is_triggered());
                if *waits && !standing::is_in_hook() && standing::may_end_registry(*registry) {
                    check_report(&it.wait_finished());
                }
            }
            Op::Deadline { registry, deadline } => {
                if let Some(deadline) = deadline {
                    note_deadline(&Shut::Timeout(*deadline));
                }
                self.registries[*registry].set_deadline(*deadline);
            }
            Op::Hook { registry, stage, body, is_removed } => self.hook(*registry, *stage, body, *is_removed),
            Op::Hold { registry, ops } => {
                if let Ok(hold) = self.registries[*registry].hold("held") {
                    let _hurry = Frame::in_a_hurry().enter();
                    self.play(ops);
                    drop(hold);
                }
            }
            Op::Sample { pool } => {
                let kettle = self.at(*pool);
                if let Some(pool) = kettle.watcher() {
                    kettle.sample(&pool);
                }
                for registry in &self.registries {
                    let _ = format!("{registry:?} {:?} {:?}", registry.progress(), registry.stats());
                }
            }
            Op::Label => task::set_label("soup"),
            Op::State => {
                let uses = task::with_state(|state: &mut WorkerState| {
                    state.uses += 1;
                    assert!(task::with_state(|_: &mut WorkerState| ()).is_none());
                    state.uses
                });
                assert!(uses != Some(0));
            }
            Op::Yield => thread::yield_now(),
            Op::AskWhetherCancelled => {
                for _ in 0..50 {
                    if task::is_cancelled() {
                        break;
                    }
                    thread::yield_now();
                }
            }
        }
    }

    // ---- submissions ----

    fn submit(
        self: &Arc<Soup>,
        kettle: &Arc<Kettle>,
        handles: &Handles,
        how: How,
        body: &Arc<Body>,
        then: Then,
    ) {
        let (how, then) = self.as_allowed(kettle, how, then);
        let awaits = then.waits();
        let is_free = !awaits || standing::is_outside();
        let mut task = self.task(kettle, how.limit(), body, is_free, &format!("{how:?}"));
        if how == How::After(LONG) {
            // It would keep a pool open until the time has come.
            task.carried = None;
        }
        if standing::is_inside(kettle) || matches!(how, How::After(_)) {
            kettle.is_overfull.store(true, SeqCst);
        }
        let record = task.capture.record.clone();
        let is_late = how == How::After(LONG);
        let handle = if body.is_large {
            let ballast = [7_u8; 100];
            let run = move || {
                assert!(ballast.iter().all(|byte| *byte == 7));
                task.run()
            };
            self.offer(kettle, handles, how, &record, run)
        } else {
            self.offer(kettle, handles, how, &record, move || task.run())
        };
        if let Some(handle) = handle {
            self.then(Kept { handle, record, is_late }, then, awaits);
        }
    }

    /// The same, or the like, in a way that cannot come to wait for itself.
    fn as_allowed(&self, kettle: &Arc<Kettle>, how: How, then: Then) -> (How, Then) {
        let limit = how.limit();
        let is_patient = kettle.spec.capacity.is_some()
            && match how {
                How::Execute | How::Spawn => kettle.spec.when_full == WhenFull::Block,
                How::LimitExecute(_) | How::LimitSpawn(_) => kettle.spec.when_full != WhenFull::Reject,
                How::Async => true,
                _ => false,
            };
        let how = match how {
            how if !is_patient || standing::may_wait_for_room(kettle) => how,
            How::Execute => How::TryExecute,
            How::LimitExecute(n) => How::LimitTryExecute(n),
            How::LimitSpawn(n) => How::LimitTrySpawn(n),
            _ => How::TrySpawn,
        };
        let may = match then {
            then if !then.waits() => true,
            _ if how == How::After(LONG) => false,
            then if then.only_waits() => standing::may_only_wait_for(kettle),
            _ => standing::may_wait_for(kettle, limit),
        };
        (how, if may { then } else { Then::Keep })
    }

    fn task(
        self: &Arc<Soup>,
        kettle: &Arc<Kettle>,
        limit: Option<usize>,
        body: &Arc<Body>,
        is_free: bool,
        what: &str,
    ) -> Box<Task> {
        let record = self.record(format!("{what} on {}", kettle.name));
        Box::new(Task {
            soup: self.clone(),
            kettle: kettle.clone(),
            limit,
            body: body.clone(),
            is_free,
            is_scoped: false,
            carried: body.carries.and_then(|place| self.at(place).handles()),
            capture: Capture::new(record, body.capture),
        })
    }

    fn offer<F>(
        &self,
        kettle: &Kettle,
        handles: &Handles,
        how: How,
        record: &Arc<Record>,
        run: F,
    ) -> Option<JoinHandle<Value>>
    where
        F: FnOnce() -> Value + Send + 'static,
    {
        let Handles { pool, limits } = handles;
        match how {
            How::Spawn => taken(kettle, record, pool.spawn(run)),
            How::TrySpawn => taken(kettle, record, pool.try_spawn(run)),
            How::SpawnTimeout(timeout) => taken(kettle, record, pool.spawn_timeout(run, timeout)),
            How::After(delay) => taken(kettle, record, pool.spawn_after(delay, run)),
            How::LimitSpawn(n) => taken(kettle, record, limits[n].spawn(run)),
            How::LimitTrySpawn(n) => taken(kettle, record, limits[n].try_spawn(run)),
            How::Async => taken(kettle, record, block_on(pool.spawn_async(run))),
            How::AsyncDropped(polls) => {
                let mut submission = pool.spawn_async(run);
                for _ in 0..polls {
                    if let Poll::Ready(result) = poll(Pin::new(&mut submission)) {
                        return taken(kettle, record, result);
                    }
                }
                record.is_doomed.store(true, SeqCst);
                drop(submission);
                None
            }
            _ => {
                let run = move || drop(run());
                let result = match how {
                    How::TryExecute => pool.try_execute(run),
                    How::ExecuteTimeout(timeout) => pool.execute_timeout(run, timeout),
                    How::LimitExecute(n) => limits[n].execute(run),
                    How::LimitTryExecute(n) => limits[n].try_execute(run),
                    _ => pool.execute(run),
                };
                taken(kettle, record, result);
                None
            }
        }
    }

    // ---- handles ----

    fn then(&self, kept: Kept, then: Then, may_wait: bool) {
        let then = if then.waits() && !may_wait { Then::Keep } else { then };
        let Kept { handle, record, is_late } = kept;
        let _ = format!("{handle:?}");
        let cancel = |handle: &JoinHandle<Value>| {
            if handle.cancel() {
                record.is_doomed.store(true, SeqCst);
            }
        };
        match then {
            Then::Drop => drop(handle),
            Then::Join => hear(&record, handle.join()),
            Then::JoinTimeout(timeout) => match handle.join_timeout(timeout) {
                Ok(result) => hear(&record, result),
                Err(handle) => {
                    assert_ne!(timeout, Duration::MAX);
                    lock(&self.kept).push(Kept { handle, record, is_late });
                }
            },
            Then::Await => hear(&record, block_on(handle)),
            Then::Poll => {
                let mut handle = handle;
                let was_finished = handle.is_finished();
                match poll(Pin::new(&mut handle)) {
                    Poll::Ready(result) => hear(&record, result),
                    Poll::Pending => {
                        assert!(!was_finished);
                        lock(&self.kept).push(Kept { handle, record, is_late });
                    }
                }
            }
            Then::Cancel => {
                cancel(&handle);
                lock(&self.kept).push(Kept { handle, record, is_late });
            }
            Then::CancelAndJoin => {
                cancel(&handle);
                hear(&record, handle.join());
            }
            Then::CancelOnDrop => drop(handle.cancel_on_drop()),
            Then::CancelOnDropJoin => hear(&record, handle.cancel_on_drop().join()),
            Then::Keep => lock(&self.kept).push(Kept { handle, record, is_late }),
            Then::Offer => {
                lock(&self.cancellers).push((handle.canceller(), record.clone()));
                lock(&self.kept).push(Kept { handle, record, is_late });
            }
        }
    }

    fn gather(self: &Arc<Soup>, how: Gather, parts: &[(To, Arc<Body>)]) {
        let waits = how != Gather::Impatient;
        let is_free = !waits || standing::is_outside();
        let mut handles = Vec::new();
        let mut records = Vec::new();
        for (to, body) in parts {
            let Some((kettle, pool)) = self.target(*to) else { continue };
            if waits && !standing::may_wait_for(&kettle, None) {
                continue;
            }
            let (submission, _) = self.as_allowed(&kettle, How::Spawn, Then::Drop);
            let task = self.task(&kettle, None, body, is_free, "gathered");
            if standing::is_inside(&kettle) {
                kettle.is_overfull.store(true, SeqCst);
            }
            let record = task.capture.record.clone();
            let accepted = quietly(|| self.offer(&kettle, &pool, submission, &record, move || task.run()));
            if let Some(handle) = accepted.flatten() {
                handles.push(handle);
                records.push(record);
            }
        }
        let count = handles.len();
        match how {
            Gather::All => {
                let results = join_all(handles);
                assert_eq!(results.len(), count);
                for (record, result) in iter::zip(records, results) {
                    quietly(|| hear(&record, result));
                }
            }
            Gather::Any => {
                let result = join_any(handles);
                assert_eq!(result.is_some(), count > 0);
                drop(result);
            }
            Gather::Completed => {
                let mut came = 0;
                for result in as_completed(handles) {
                    came += 1;
                    quietly(|| drop(result));
                }
                assert_eq!(came, count);
            }
            Gather::SomeCompleted(some) => {
                as_completed(handles).take(some).for_each(|result| _ = quietly(|| drop(result)));
            }
            Gather::Impatient => {
                let mut results = as_completed(handles);
                for _ in 0..count {
                    match results.next_timeout(Duration::ZERO) {
                        Ok(result) => _ = quietly(|| drop(result)),
                        Err(error) => assert!(error.to_string().contains("had not ended")),
                    }
                }
            }
        }
    }

    fn scope(self: &Arc<Soup>, to: To, bodies: &[(Arc<Body>, ScopedThen)], ops: &[Op], panics: bool) {
        let Some((kettle, handles)) = self.target(to) else { return };
        if !standing::may_wait_for(&kettle, None) {
            return;
        }
        let is_free = standing::is_outside();
        // A scoped task of a lower pool goes over the bound as any other.
        if standing::is_inside(&kettle) {
            kettle.is_overfull.store(true, SeqCst);
        }
        let ended = AtomicUsize::new(0);
        let mut records = Vec::new();
        let scoped = catch_unwind(AssertUnwindSafe(|| {
            handles.pool.scope(|s| {
                for (body, then) in bodies {
                    let mut task = self.task(&kettle, None, body, is_free, "scoped");
                    task.is_scoped = true;
                    let record = task.capture.record.clone();
                    records.push(record.clone());
                    kettle.of_scopes.fetch_add(1, SeqCst);
                    let count = Count(&ended);
                    let handle = s.spawn(move || {
                        let _count = count;
                        task.run()
                    });
                    match then {
                        ScopedThen::Drop => drop(handle),
                        ScopedThen::Join => hear(&record, handle.join()),
                        ScopedThen::Look => _ = handle.is_finished(),
                    }
                }
                self.play(ops);
                if panics {
                    Boom::go(Manners::Good);
                }
            });
        }));
        // Run, or dropped: none of them is there any more.
        assert_eq!(ended.into_inner(), records.len());
        for record in &records {
            assert!(record.is_over(), "the scope is over, and its task is not: {} {record:?}", record.what());
        }
        quietly(|| drop(scoped));
    }

    fn map(self: &Arc<Soup>, to: To, style: MapStyle, items: usize, taken: usize, body: &Arc<Body>) {
        let Some((kettle, handles)) = self.target(to) else { return };
        if !standing::may_wait_for(&kettle, None) {
            return;
        }
        if standing::is_inside(&kettle) {
            kettle.is_overfull.store(true, SeqCst);
        }
        let is_free = standing::is_outside();
        let (soup, of_kettle, body) = (self.clone(), kettle.clone(), body.clone());
        let mut left = items;
        let input = iter::from_fn(move || {
            if left == 0 {
                if style == MapStyle::BadInput {
                    Boom::go(Manners::Good);
                }
                return None;
            }
            left -= 1;
            of_kettle.of_maps.fetch_add(1, SeqCst);
            Some(soup.task(&of_kettle, None, &body, is_free, "mapped"))
        });
        let run = |task: Box<Task>| task.run();
        let pool = &handles.pool;
        let results: &mut dyn Iterator<Item = _> = match style {
            MapStyle::Ordered | MapStyle::BadInput => &mut pool.map(input, run),
            MapStyle::Unordered => &mut pool.map_unordered(input, run),
            MapStyle::Lookahead(n) => &mut pool.map_with_lookahead(input, n, run),
        };
        for _ in 0..taken {
            // What panics is the input, or the drop of a result.
            quietly(|| drop(results.next()));
        }
    }

    // ---- pools and registries ----

    fn build(&self, place: usize, spec: &PoolSpec) {
        let mut kettles = lock(&self.kettles);
        if kettles.len() >= MOST_POOLS {
            return;
        }
        match Kettle::build(kettles.len(), place, spec, &self.registries[spec.registry]) {
            Ok(kettle) => {
                let kettle = Arc::new(kettle);
                kettles.push(kettle.clone());
                let before = {
                    let mut slot = self.pools[place].write().unwrap_or_else(PoisonError::into_inner);
                    std::mem::replace(&mut *slot, kettle)
                };
                drop(kettles);
                drop(before.take_handles());
            }
            Err(error) => assert_eq!(error, BuildError::ShuttingDown),
        }
    }

    fn hook(self: &Arc<Soup>, registry: usize, stage: HookStage, body: &Arc<Body>, is_removed: bool) {
        let it = &self.registries[registry];
        let record = self.record(format!("hook {stage:?}"));
        let capture = Capture::new(record.clone(), body.capture);
        let (soup, body) = (self.clone(), body.clone());
        let run = move || {
            capture.record.begin();
            let _hook = Frame::of_hook().enter();
            soup.play(&body.ops);
            if let BodyEnd::Panic(manners) = body.end {
                capture.record.panics();
                Boom::go(manners);
            }
        };
        // Before the report may count it: this may be a task that a deadline has left behind.
        let count = &self.hooks[registry];
        count.fetch_add(1, SeqCst);
        let result = match stage {
            HookStage::Before => it.before_join("soup", run),
            HookStage::After => it.after_join("soup", run),
        };
        match result {
            Ok(id) => {
                if is_removed && it.remove(id) {
                    count.fetch_sub(1, SeqCst);
                    record.is_doomed.store(true, SeqCst);
                    assert!(!it.remove(id));
                }
            }
            Err(refused) => {
                count.fetch_sub(1, SeqCst);
                assert_eq!(refused.reason(), RejectReason::ShuttingDown);
                give_back(&record, refused);
            }
        }
    }

    // ---- the end ----

    fn finish(self: &Arc<Soup>, ends: &[End]) {
        for (n, (registry, end)) in iter::zip(&self.registries, ends).enumerate() {
            match end {
                End::Shutdown => {}
                End::Request => registry.request_shutdown(),
                // Nobody asks for an end. Tasks that still run may build more pools.
                End::Drop => eventually("dropped pools are gone", || {
                    let kettles = lock(&self.kettles).clone();
                    let here = kettles.iter().filter(|kettle| kettle.spec.registry == n);
                    here.for_each(|kettle| drop(kettle.take_handles()));
                    registry.stats().is_empty()
                }),
            }
        }
        for (registry, hooks) in iter::zip(&self.registries, &self.hooks) {
            let report = registry.shutdown();
            check_report(&report);
            // A hold for which a deadline has not waited is reported, too.
            let reported = report.hooks().iter().filter(|hook| hook.name() == "soup").count() as u64;
            eventually("the report has every hook", || reported == hooks.load(SeqCst));
            assert_eq!(registry.phase(), Phase::Finished);
        }
        // What a deadline has left behind may still run, and submit, and keep handles.
        eventually("every task is over", || {
            lock(&self.cancellers).clear();
            let kept = std::mem::take(&mut *lock(&self.kept));
            for Kept { handle, record, .. } in kept {
                quietly(|| hear(&record, handle.join()));
            }
            let is_over = lock(&self.records).iter().all(|record| record.is_over());
            is_over && lock(&self.kept).is_empty()
        });
        for kettle in lock(&self.kettles).clone() {
            let Some(pool) = kettle.watcher() else { continue };
            eventually("nothing runs any more", || pool.stats().running == 0);
            kettle.sample(&pool);
            kettle.check(&pool.stats());
            assert!(pool.is_closed());
            assert_eq!(pool.stats().phase, PoolPhase::Closed);
            drop(kettle.take_handles());
        }
        lock(&self.records).iter().for_each(|record| record.check());
    }
}

fn note_deadline(how: &Shut) {
    if matches!(how, Shut::Timeout(timeout) if *timeout < LONG) {
        HAS_DEADLINE.store(true, SeqCst);
    }
}

fn check_pool_report(report: &PoolReport) {
    let stats = report.stats();
    assert!((stats.queued, stats.delayed) == (0, 0) || HAS_DEADLINE.load(SeqCst), "{report:?}");
    assert_eq!(stats.abandoned, report.abandoned().len() as u64, "{report:?}");
    let _ = report.to_string();
}

fn check_report(report: &Report) {
    // Where nothing is waited for, a task that its handle cancels at that moment counts as queued until it is counted as cancelled.
    let is_drained = |pool: &&PoolReport| !pool.stats().is_daemon && !HAS_DEADLINE.load(SeqCst);
    report.pools().iter().filter(is_drained).for_each(check_pool_report);
    if report.is_clean() {
        assert!(report.hooks().iter().all(|hook| *hook.outcome() == HookOutcome::Ran), "{report}");
    }
    let _ = report.to_string();
}

/// Writes down what came of a submission.
fn taken<T, F>(kettle: &Kettle, record: &Arc<Record>, result: Result<T, Rejected<F>>) -> Option<T> {
    match result {
        Ok(handle) => {
            kettle.accepted.fetch_add(1, SeqCst);
            Some(handle)
        }
        Err(refused) => {
            kettle.refused.fetch_add(1, SeqCst);
            give_back(record, refused);
            None
        }
    }
}

fn give_back<F>(record: &Arc<Record>, refused: Rejected<F>) {
    let reason = refused.reason();
    assert!(!matches!(reason, RejectReason::NoThread | RejectReason::Forked), "{refused}");
    record.refused.store(true, SeqCst);
    let closure = refused.into_inner();
    assert!(!record.is_over(), "what is given back is not there: {record:?}");
    quietly(|| drop(closure));
}

fn hear(record: &Record, result: Result<Value, winddown::JoinError>) {
    record.tell(&result);
    if let Err(error) = &result {
        let _ = format!("{error} {error:?}");
    }
    drop(result);
}

/// Counts that a scoped task is gone, on the stack of whoever waits for it.
struct Count<'a>(&'a AtomicUsize);

impl Drop for Count<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

// ---- tasks ----

struct Task {
    soup: Arc<Soup>,
    kettle: Arc<Kettle>,
    limit: Option<usize>,
    body: Arc<Body>,
    is_free: bool,
    is_scoped: bool,
    /// Handles of a pool, which may be the last.
    carried: Option<Handles>,
    capture: Capture,
}

impl Task {
    fn run(self) -> Value {
        let Task { soup, kettle, limit, body, is_free, is_scoped, carried, capture } = self;
        let record = capture.record.clone();
        record.begin();
        kettle.note_beginning(is_scoped);
        note(!thread::panicking(), || format!("it runs while its thread panics: {record:?}"));
        let _frame = Frame::of_task(kettle, limit, is_free).enter();
        soup.play(&body.ops);
        quietly(|| drop(carried));
        match body.end {
            BodyEnd::Return(manners) => {
                let value = Value::new(record.clone(), manners);
                if body.capture == Manners::Panics {
                    record.panics();
                }
                drop(capture);
                value
            }
            BodyEnd::Panic(manners) => {
                record.panics();
                Boom::go(manners)
            }
        }
    }
}

// ---- futures ----

struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}

/// One look. Whoever is told later that it is worth another one does not listen.
fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    struct Deaf;
    impl Wake for Deaf {
        fn wake(self: Arc<Self>) {}
    }
    future.poll(&mut Context::from_waker(&Waker::from(Arc::new(Deaf))))
}
