//! Runs hooks, one after another, on a thread of their own that another one watches.
//!
//! That thread takes hooks off their list by itself, so nobody has to wake up between two of them: thousands cost no
//! more each than one. The thread that runs the shutdown watches. It sleeps until the list is empty, or the hook that
//! runs has [left](HookHost::leave) or used up its time; then it leaves that thread behind, with the hook that it hangs
//! in, and has another one go on with the rest.
//!
//! # One at a time
//!
//! The threads of several series may be about, all but the last one left behind. A series ends one hook and begins the
//! next in one critical section of the registry's state, and only if it is still the one that the state names. Whoever
//! leaves a series behind unnames it under the same lock, and reports the hook that it was in. So a hook is reported
//! once, by its own thread or by the watcher, and none begins on a thread that was left behind.

use super::drain::Drain;
use super::helper::Helper;
use super::report::{HookOutcome, HookReport, Stage};
use super::shutdown::EndOfHook;
use super::{Hook, Inner, State};
use crate::contain::{self, Payload};
use crate::context::{self, HookHost};
use crate::sync::Instant;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

/// A hook that runs.
pub(super) struct Current {
    name: Cow<'static, str>,
    stage: Stage,
    began: Instant,
    is_last: bool,
    /// Its thread waits for the shutdown now.
    has_left: bool,
}

impl Current {
    /// Until when it is waited for. The last post-join hook may use all the time that is left; others leave half for
    /// what comes after them.
    fn until(&self, inner: &Inner) -> Option<Instant> {
        match (self.stage, self.is_last) {
            (Stage::PostJoin, true) => inner.budget.end(),
            _ => inner.budget.half_from(self.began),
        }
    }

    fn is_late(&self, inner: &Inner) -> bool {
        self.until(inner).is_some_and(|until| Instant::now() >= until)
    }
}

impl State {
    /// Takes the newest hook off its list. Says whether it was the last one.
    fn take_newest(&mut self, stage: Stage) -> Option<(Hook, bool)> {
        let list = self.hooks(stage);
        let (_, hook) = list.pop_last()?;
        Some((hook, list.is_empty()))
    }

    pub(super) fn report(&mut self, report: HookReport) {
        self.hooks_done += 1;
        self.hook_reports.push(report);
    }

    /// Ends the hook that runs, if one does.
    fn end_current(&mut self, outcome: HookOutcome) {
        if let Some(Current { name, stage, began, .. }) = self.in_hook.take() {
            self.report(HookReport::new(name, stage, outcome, began.elapsed()));
        }
    }
}

/// The hooks of one list that one thread runs.
struct Series {
    number: u64,
    stage: Stage,
    registry: Arc<Inner>,
    /// The one whose shutdown this is.
    whole: Arc<Inner>,
}

impl Series {
    fn run(self) {
        let mut ended = None;
        while let Some(Hook { name, run }) = self.next(ended) {
            let result = context::enter_hook(&self, || contain::run(run));
            if self.registry.born.is_past() {
                // The hook forked, and this is the child, where the locks may be held for ever.
                return;
            }
            ended = Some(self.judge(&name, result));
        }
    }

    /// Ends a hook and begins the next one, unless there is none, or no time for it, or others have taken over.
    fn next(&self, ended: Option<HookOutcome>) -> Option<Hook> {
        let has_time = !self.registry.budget.is_over();
        let mut state = self.registry.state.lock();
        if state.series != self.number {
            return None;
        }
        if let Some(outcome) = ended {
            state.end_current(outcome);
        }
        if !has_time {
            return None;
        }
        let (hook, is_last) = state.take_newest(self.stage)?;
        let (name, stage, began) = (hook.name.clone(), self.stage, Instant::now());
        state.in_hook = Some(Current { name, stage, began, is_last, has_left: false });
        Some(hook)
    }

    fn judge(&self, name: &str, result: Result<(), Payload>) -> HookOutcome {
        match result {
            Ok(()) => HookOutcome::Ran,
            Err(payload) if payload.is::<EndOfHook>() => HookOutcome::Ran,
            Err(payload) => {
                let message = contain::message(&*payload).to_owned();
                contain::drop_quietly(payload);
                contain::log(
                    log::Level::Error,
                    format_args!("{:?} hook {name:?} panicked: {message}", self.stage),
                );
                HookOutcome::Panicked(message)
            }
        }
    }
}

impl HookHost for Series {
    fn leave(&self) {
        let mut state = self.registry.state.lock();
        if state.series == self.number {
            if let Some(current) = &mut state.in_hook {
                current.has_left = true;
            }
        }
        drop(state);
        self.registry.event.signal();
    }

    fn exit_with(&self, code: i32) {
        self.whole.state.lock().exit_code.get_or_insert(code);
    }
}

/// Runs the hooks of one list of `registry`, newest first, as a part of the shutdown of `whole`.
pub(super) fn run_all(
    registry: &Arc<Inner>,
    whole: &Arc<Inner>,
    stage: Stage,
    helper: &mut Helper,
    drain: &mut Drain,
) {
    while !registry.state.lock().hooks(stage).is_empty() {
        if registry.budget.is_over() {
            skip(registry, stage, helper, drain);
        } else {
            run_series(registry, whole, stage, helper, drain);
        }
    }
}

/// Has hooks run until none is left, there is no time left, or one has to be left behind.
fn run_series(
    registry: &Arc<Inner>,
    whole: &Arc<Inner>,
    stage: Stage,
    helper: &mut Helper,
    drain: &mut Drain,
) {
    let start = Instant::now();
    let number = renumber(&mut registry.state.lock());
    let series = Series { number, stage, registry: registry.clone(), whole: whole.clone() };
    let pending = helper.start(drain.event(), move || series.run());
    loop {
        // The thread may take its time to begin: then it is given up like a hook that hangs.
        let until = || match &registry.state.lock().in_hook {
            Some(current) => current.until(registry),
            None => registry.budget.half_from(start),
        };
        let has_left = || registry.state.lock().in_hook.as_ref().is_some_and(|current| current.has_left);
        let what = || {
            let name = registry.state.lock().in_hook.as_ref().map(|current| current.name.clone());
            name.map_or_else(|| format!("{stage:?} hooks"), |name| format!("{stage:?} hook {name:?}"))
        };
        drain.wait(|_| until(), |_| pending.is_done() || has_left(), |_| vec![what()]);
        if pending.is_done() {
            return;
        }
        let mut state = registry.state.lock();
        let outcome = match &state.in_hook {
            Some(current) if current.has_left => HookOutcome::Ran,
            Some(current) if current.is_late(registry) => HookOutcome::TimedOut,
            None if registry.budget.half_from(start).is_some_and(|until| Instant::now() >= until) => {
                HookOutcome::TimedOut
            }
            // What was late has ended in the meantime, and another one runs.
            _ => continue,
        };
        renumber(&mut state);
        state.end_current(outcome);
        drop(state);
        helper.leave_behind();
        return;
    }
}

/// Names another series, which only the thread that runs the shutdown does.
fn renumber(state: &mut State) -> u64 {
    state.series += 1;
    state.series
}

/// Drops a hook that there is no time for, where what it captured may hang.
fn skip(registry: &Inner, stage: Stage, helper: &mut Helper, drain: &Drain) {
    let mut state = registry.state.lock();
    let Some((Hook { name, run }, _)) = state.take_newest(stage) else { return };
    state.report(HookReport::new(name, stage, HookOutcome::Skipped, Duration::ZERO));
    drop(state);
    helper.start(drain.event(), move || contain::drop_quietly(run));
    helper.leave_behind();
}
