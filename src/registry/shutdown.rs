//! The shutdown: one order, run by one thread, reported to everyone who asked for it.
//!
//! 1. `PreJoin`: the token fires; pre-join hooks run, newest first; holds are waited for.
//! 2. `Draining`: members close and drain, newest first, until all are quiet at once.
//! 3. `Joining`: every thread of a non-daemon member is joined; then daemon members close.
//! 4. `PostJoin`: post-join hooks run, newest first.
//! 5. `Finished`: the report is there.
//!
//! The shutdown of a registry takes the registries below it along, stage by stage: all hooks of a stage run before the
//! next stage begins anywhere, so that pre-join hooks find every pool open; within a stage the registries below come
//! first, newest first.
//!
//! The first caller runs it on its own thread, later ones wait for its end. Either way a caller that is itself a task
//! is marked as blocked before it looks whether it is the first, so no drain waits for it.

use super::budget::Budget;
use super::drain::{Drain, Group};
use super::ended::{self, EndedThread};
use super::helper::Helper;
use super::member::{Circle, Member};
use super::report::{Findings, HookOutcome, HookReport, Phase, Reason, Report, Stage};
use super::{hooks, Inner, Registry, State};
use crate::contain;
use crate::context::{self, Wait, Whose};
use crate::sync::atomic::Ordering;
use crate::sync::thread;
use crate::sync::Instant;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// What ends a hook that called [`exit`](crate::exit).
pub(crate) struct EndOfHook;

impl Registry {
    /// Winds everything down and returns the report: pre-join hooks, drain, join, post-join hooks.
    ///
    /// Blocks until that is over, or the [deadline](Registry::set_deadline) has passed. The first call runs the
    /// shutdown, on its own thread; calls that come while it runs wait for it, and all get the same report.
    ///
    /// Inside a task it works: that task counts as finished, so nothing waits for it.
    ///
    /// # Panics
    ///
    /// Inside a hook, which would wait for itself. (A hook's panic is caught and reported.)
    ///
    /// ```
    /// let registry = winddown::Registry::new();
    /// let pool = winddown::Pool::builder().registry(&registry).build()?;
    /// let sum = pool.spawn(|| (1..=10).sum::<i32>())?;
    /// assert!(registry.shutdown().is_clean());
    /// assert_eq!(sum.join()?, 55);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn shutdown(&self) -> Report {
        context::refuse_in_hook("shutdown()");
        self.shut_down(Reason::Call, None)
    }

    /// Like [`shutdown`](Registry::shutdown), but returns when `timeout` has passed, with what was abandoned.
    ///
    /// Where a shutdown runs already, this brings its deadline nearer and never puts it off. How the time is spent
    /// stands at [`set_deadline`](Registry::set_deadline).
    ///
    /// # Panics
    ///
    /// Inside a hook, like `shutdown`.
    ///
    /// ```
    /// # use std::time::Duration;
    /// let registry = winddown::Registry::new();
    /// let report = registry.shutdown_timeout(Duration::from_secs(10));
    /// assert!(report.is_clean());
    /// ```
    pub fn shutdown_timeout(&self, timeout: Duration) -> Report {
        context::refuse_in_hook("shutdown_timeout()");
        self.shut_down(Reason::Call, Some(timeout))
    }

    /// Begins a shutdown, if none has begun, and returns at once.
    ///
    /// It runs on a thread of its own. Works anywhere: in a task, in a hook (where one runs already). Not in a
    /// signal handler, which may do next to nothing.
    ///
    /// Where no thread can be had the token has still fired, hooks and holds are refused, and the next call of
    /// `shutdown` or `wait_finished`, or the end of the process, runs it.
    ///
    /// ```
    /// let registry = winddown::Registry::new();
    /// registry.request_shutdown();
    /// assert!(registry.wait_finished().is_clean());
    /// ```
    pub fn request_shutdown(&self) {
        if self.inner.born.is_past() || !self.claim() {
            return;
        }
        let registry = self.clone();
        let run = move || {
            registry.run(Reason::Call);
            registry.await_report(Reason::Call);
        };
        if let Err(error) = thread::Builder::new().name("winddown-shutdown".into()).spawn(run) {
            self.inner.state.lock().claimed = false;
            self.inner.event.signal();
            self.inner.done.look_again();
            contain::log(
                log::Level::Error,
                format_args!("no thread for the shutdown, it runs when somebody waits for it: {error}"),
            );
        }
    }

    /// Blocks until a shutdown has finished, whoever begins it, and returns its report.
    ///
    /// It does not begin one. Inside a task it works, like `shutdown`: the task counts as finished.
    ///
    /// # Panics
    ///
    /// Inside a hook, which would wait for itself.
    ///
    /// ```
    /// let registry = winddown::Registry::new();
    /// let remote = registry.clone();
    /// std::thread::spawn(move || remote.request_shutdown());
    /// assert!(registry.wait_finished().is_clean());
    /// ```
    pub fn wait_finished(&self) -> Report {
        context::refuse_in_hook("wait_finished()");
        if self.inner.born.is_past() {
            return Report::nothing();
        }
        self.refuse_on_runner("wait_finished()");
        let _blocked = context::block(self.wait());
        self.await_report(Reason::Call)
    }

    /// A shutdown for any reason; may be called in a hook for `Reason::Exit` only, when the hook was left.
    pub(crate) fn shut_down(&self, reason: Reason, timeout: Option<Duration>) -> Report {
        if self.inner.born.is_past() {
            return Report::nothing();
        }
        if reason == Reason::Call {
            self.refuse_on_runner("shutdown()");
        } else if self.is_runner() {
            // A task that this thread runs while it shuts down ends the process.
            return Report::nothing();
        }
        // Before the claim: whoever runs the shutdown must find this task blocked.
        let _blocked = context::block(self.wait());
        self.inner.budget.tighten(timeout);
        self.inner.event.signal();
        if self.claim() {
            self.run(reason);
        }
        self.await_report(reason)
    }

    /// Shuts down for a signal, while `main` goes on and ends the process. A hook that called [`exit`](crate::exit)
    /// ends it here.
    #[cfg(feature = "signals")]
    pub(crate) fn shut_down_for(&self, signal: i32, timeout: Option<Duration>) {
        self.shut_down(Reason::Signal(signal), timeout);
        self.exit_if_asked(Reason::Call);
    }

    /// Shuts down what is not: this registry and those below it. For the end of the process.
    pub(crate) fn wind_down(&self, reason: Reason, timeout: Option<Duration>) -> Report {
        if self.inner.born.is_past() {
            return Report::nothing();
        }
        let late = Arc::new(Budget::new(self.inner.state.lock().default_deadline));
        late.tighten(timeout);
        let report = self.shut_down(reason, timeout);
        // Those that were made after this registry's shutdown had taken the others along.
        while let (Some(child), false) = (self.unfinished_children().pop(), late.is_over()) {
            child.inner.budget.within(&late);
            child.shut_down(reason, None);
        }
        // Threads of registries that were dropped after this one had joined its own.
        let mut drain = Drain::new(self.inner.event.clone());
        drain.add(Group::new(Vec::new(), late));
        drain.join(|_| self.inner.leavings());
        drain.finish();
        report
    }

    fn unfinished_children(&self) -> Vec<Registry> {
        let children = self.inner.children.lock();
        children
            .values()
            .filter(|child| child.phase() < Phase::Finished)
            .map(|child| {
                child.handles.fetch_add(1, Ordering::Relaxed);
                Registry { inner: child.clone() }
            })
            .collect()
    }

    /// A wait for this registry's end: its own shutdown must not count on it to be over before it is.
    fn wait(&self) -> Wait {
        let of = match self.inner.parent {
            Some(_) => Whose::Registry(self.inner.id),
            None => Whose::Process,
        };
        Wait::End { of, over: self.inner.over.clone(), ends: false }
    }

    /// Makes the caller the one that runs the shutdown, if nobody is. The phase moves under the same lock, so a
    /// registration that was accepted is found by the run and one that comes later is refused.
    fn claim(&self) -> bool {
        let mut state = self.inner.state.lock();
        if state.claimed {
            return false;
        }
        state.claimed = true;
        if state.begun_at.is_none() {
            state.begun_at = Some(Instant::now());
            self.inner.budget.tighten(state.default_deadline);
            self.inner.enter(&mut state, Phase::PreJoin);
            if self.inner.parent.is_none() {
                self.inner.born.begin_to_end();
            }
        }
        drop(state);
        self.inner.begun.set(());
        true
    }

    /// Whether a shutdown was begun and there was no thread for it.
    fn is_stranded(&self) -> bool {
        let state = self.inner.state.lock();
        state.begun_at.is_some() && !state.claimed
    }

    /// Waits for the report. Runs the shutdown if one was begun and there was no thread for it.
    fn await_report(&self, reason: Reason) -> Report {
        loop {
            let is_stranded = || self.is_stranded();
            if context::in_worker() {
                // While this thread waits, a task of its own pool may be left without a thread to run it.
                let look = || {
                    while context::help() {}
                    self.inner.done.get().is_some() || is_stranded()
                };
                self.inner.event.wait(|| None, look);
            } else {
                // A main thread may wait here for as long as the program runs, and the event is signalled often.
                self.inner.done.wait(is_stranded);
            }
            if let Some(report) = self.inner.done.get() {
                self.exit_if_asked(reason);
                return report;
            }
            if self.claim() {
                self.run(reason);
            }
        }
    }

    /// Whether the current thread runs this shutdown further down on its stack, where it runs a task in between that
    /// no other thread could be had for.
    fn is_runner(&self) -> bool {
        let runner = self.inner.state.lock().runner;
        runner.is_some() && contain::run(|| thread::current().id()).ok() == runner
    }

    fn refuse_on_runner(&self, call: &str) {
        assert!(
            !self.is_runner(),
            "{call} was called in a task that the shutdown itself had to run, as no other thread could be had: it \
             would wait for itself"
        );
    }

    fn run(&self, reason: Reason) {
        let run = || Run::new(self.clone(), reason).run();
        if let Err(payload) = contain::run(run) {
            // A fault of this crate, or no memory left. Nobody is to wait for ever because of it.
            let message = contain::message(&*payload).to_owned();
            contain::drop_quietly(payload);
            contain::log(log::Level::Error, format_args!("the shutdown itself panicked: {message}"));
            for part in self.unfinished_children().iter().chain([self]).filter(|part| part.is_runner()) {
                let mut state = part.inner.state.lock();
                state.runner = None;
                part.inner.enter(&mut state, Phase::Finished);
                drop(state);
                let outcome = HookOutcome::Panicked(message.clone());
                let hook = HookReport::new("shutdown".into(), Stage::PostJoin, outcome, Duration::ZERO);
                let (hooks, pools, elapsed) = (vec![hook], Vec::new(), Duration::ZERO);
                part.inner.publish(Findings { reason, elapsed, hooks, pools });
            }
            self.inner.event.signal();
        }
    }

    /// Where a hook called [`exit`](crate::exit), nobody returns from a call that waited for the shutdown: whoever
    /// comes first exits the process with the hook's code, and the others sleep in the same call. Where the process
    /// exits already, its code stands.
    fn exit_if_asked(&self, reason: Reason) {
        let of = |inner: &Inner| inner.state.lock().exit_code;
        let code = of(&self.inner).or_else(|| self.inner.parent.as_ref().and_then(|parent| of(parent)));
        if let (Some(code), Reason::Call) = (code, reason) {
            std::process::exit(code);
        }
    }
}

impl Inner {
    /// Ended threads that are nobody's.
    fn leavings(&self) -> Vec<EndedThread> {
        let mut threads = ended::take_others(&mut self.state.lock().ended_threads);
        threads.extend(self.timer.take_ended());
        threads
    }

    /// The phase moves under the lock of the state, which the borrow shows.
    fn enter(&self, _: &mut State, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    fn publish(&self, findings: Findings) {
        self.over.store(true, Ordering::Release);
        self.done.set(Report(Arc::new(findings)));
    }
}

/// One shutdown of a registry and those below it.
struct Run {
    parts: Vec<Registry>,
    /// Registries below this one that others are shutting down.
    others: Vec<Registry>,
    whole: Registry,
    reason: Reason,
    began: Instant,
    drain: Drain,
    hooks: Helper,
    daemons: Vec<Vec<Arc<dyn Member>>>,
}

impl Run {
    fn new(whole: Registry, reason: Reason) -> Run {
        let drain = Drain::new(whole.inner.event.clone());
        let hooks = Helper::new("winddown-hooks");
        let (parts, others, daemons) = (Vec::new(), Vec::new(), Vec::new());
        Run { parts, others, whole, reason, began: Instant::now(), drain, hooks, daemons }
    }

    fn run(mut self) {
        let mut next = self.adopt();
        next.push(self.whole.clone());
        while !next.is_empty() {
            for part in &next {
                self.run_hooks(&part.inner, Stage::PreJoin);
                self.wait_for_holds(&part.inner);
            }
            // A hook may have made another registry: it is newer than all others, and so drains first.
            next.append(&mut self.parts);
            self.parts = next;
            next = self.adopt();
        }
        self.take_members();
        self.drain.drain();
        self.wait_for_others(Budget::join_until);
        self.enter_all(Phase::Joining);
        let parts = self.parts.clone();
        self.drain.join(|group| parts[group].inner.leavings());
        self.close_daemons();
        // Now nothing can come due any more.
        if parts.iter().any(|part| part.inner.timer.has_threads()) {
            self.drain.join(|group| parts[group].inner.timer.end());
        }
        self.enter_all(Phase::PostJoin);
        for part in self.parts.clone() {
            self.run_hooks(&part.inner, Stage::PostJoin);
        }
        self.finish();
    }

    /// Takes the registries below along that are not yet, newest first.
    fn adopt(&mut self) -> Vec<Registry> {
        let known: BTreeSet<u64> = self.parts.iter().chain(&self.others).map(Registry::id).collect();
        let mut children = self.whole.unfinished_children();
        children.retain(|child| !known.contains(&child.id()));
        children.reverse();
        for child in &children {
            child.inner.budget.within(&self.whole.inner.budget);
        }
        // A child whose shutdown is under way on another thread is waited for: its threads are joined there.
        let (mine, others): (Vec<_>, Vec<_>) = children.into_iter().partition(Registry::claim);
        self.others.extend(others);
        // Whoever shuts one of those down looks at its deadline again.
        self.whole.inner.event.signal();
        let me = contain::run(|| thread::current().id()).ok();
        for part in mine.iter().chain([&self.whole]) {
            part.inner.state.lock().runner = me;
        }
        mine
    }

    fn enter_all(&self, phase: Phase) {
        for part in &self.parts {
            part.inner.enter(&mut part.inner.state.lock(), phase);
        }
        contain::log(log::Level::Debug, format_args!("shutdown enters {phase:?}"));
    }

    fn run_hooks(&mut self, inner: &Arc<Inner>, stage: Stage) {
        hooks::run_all(inner, &self.whole.inner, stage, &mut self.hooks, &mut self.drain);
    }

    fn wait_for_holds(&mut self, inner: &Arc<Inner>) {
        let start = Instant::now();
        let held = || -> Vec<String> {
            inner.state.lock().holds.values().map(|name| format!("hold {name:?}")).collect()
        };
        let free = || inner.state.lock().holds.is_empty();
        if self.drain.wait(|_| inner.budget.half_from(start), |_| free(), |_| held()) {
            return;
        }
        let mut state = inner.state.lock();
        let left: Vec<_> = state.holds.values().cloned().collect();
        for name in left {
            let report = HookReport::new(name, Stage::PreJoin, HookOutcome::TimedOut, start.elapsed());
            state.report(report);
        }
    }

    /// Begins the phase in which no pool can be built, and takes what was built until then, newest first.
    fn take_members(&mut self) {
        for part in &self.parts {
            let mut state = part.inner.state.lock();
            part.inner.enter(&mut state, Phase::Draining);
            let members: Vec<_> = state.members.values().rev().cloned().collect();
            drop(state);
            let (daemons, members) = members.into_iter().partition(|member| member.is_daemon());
            self.daemons.push(daemons);
            self.drain.add(Group::new(members, part.inner.budget.clone()));
        }
    }

    /// Waits for the registries that other threads shut down, and runs the shutdown of one whose thread could not be
    /// had. Says whether all are done.
    fn wait_for_others(&mut self, until: impl Fn(&Budget) -> Option<Instant>) -> bool {
        let others = self.others.clone();
        let budget = self.whole.inner.budget.clone();
        let are_done = || others.iter().all(|other| other.inner.done.get().is_some());
        loop {
            self.drain.wait(
                |_| until(&budget),
                |_| are_done() || others.iter().any(Registry::is_stranded),
                |_| vec!["the shutdown of a registry that another thread runs".into()],
            );
            match others.iter().find(|other| other.is_stranded() && other.claim()) {
                Some(stranded) => stranded.run(self.reason),
                None => return are_done(),
            }
        }
    }

    /// Nothing that is waited for is left: daemon members stop, and nobody waits for what they do.
    fn close_daemons(&mut self) {
        for daemon in self.daemons.iter().flatten() {
            for doomed in [daemon.close(Circle::Registry), daemon.cut_off()] {
                if !doomed.is_empty() {
                    Helper::new("winddown-cancel").start(self.drain.event(), move || doomed.bury());
                }
            }
            daemon.finish();
        }
    }

    fn finish(mut self) {
        let others_done = self.wait_for_others(Budget::end);
        let Run { parts, others, whole, drain, hooks, daemons, reason, began } = self;
        let has_deadline = parts.iter().any(|part| part.inner.budget.end().is_some());
        if has_deadline {
            // A hook's thread-local destructors could hang past the deadline.
            drop(hooks);
        } else {
            hooks.finish();
        }
        let groups = drain.finish();
        let elapsed = began.elapsed();
        // What became of the registries below is in the report of the whole as well, whoever shut them down.
        let mut whole_hooks = Vec::new();
        let mut whole_pools = Vec::new();
        for below in others.iter().filter_map(|other| other.inner.done.get()) {
            whole_hooks.extend_from_slice(below.hooks());
            whole_pools.extend_from_slice(below.pools());
        }
        if !others_done {
            let name = "the shutdown of another registry".into();
            whole_hooks.push(HookReport::new(name, Stage::PostJoin, HookOutcome::TimedOut, elapsed));
        }
        for ((part, group), daemons) in parts.iter().zip(&groups).zip(&daemons) {
            let pools: Vec<_> = group.members.iter().chain(daemons).map(|member| member.report()).collect();
            let mut state = part.inner.state.lock();
            state.runner = None;
            let hooks = std::mem::take(&mut state.hook_reports);
            part.inner.enter(&mut state, Phase::Finished);
            drop(state);
            if part.id() == whole.id() {
                add(&mut whole_hooks, hooks);
                add(&mut whole_pools, pools);
            } else {
                whole_hooks.extend_from_slice(&hooks);
                whole_pools.extend_from_slice(&pools);
                part.inner.publish(Findings { reason, elapsed, hooks, pools });
            }
        }
        whole_hooks.sort_by_key(|hook| hook.stage == Stage::PostJoin);
        whole_pools.sort_by_key(|pool| pool.stats.is_daemon);
        whole.inner.publish(Findings { reason, elapsed, hooks: whole_hooks, pools: whole_pools });
        let event = whole.inner.event.clone();
        event.signal();
        contain::log(log::Level::Debug, format_args!("shutdown took {elapsed:.1?}"));
        // A pool whose handles are gone goes with its last member, and with it the captures of its callbacks: code of
        // others, which may hang, or wait for this very shutdown.
        let members = groups.iter().flat_map(|group| &group.members).chain(daemons.iter().flatten());
        if members.clone().any(|member| Arc::strong_count(member) == 1) {
            let budget = whole.inner.budget.clone();
            let pending =
                Helper::new("winddown-drop").start(&event, move || contain::drop_quietly((groups, daemons)));
            event.wait(|| budget.end(), || pending.is_done());
        }
    }
}

/// Appends `more`, which may be long, and commonly to nothing: it is not copied then.
fn add<T>(all: &mut Vec<T>, mut more: Vec<T>) {
    if all.is_empty() {
        *all = more;
    } else {
        all.append(&mut more);
    }
}
