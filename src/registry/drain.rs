//! Drains members and joins their threads, within budgets.
//!
//! # When everything is quiet
//!
//! A task may submit to any member of its registry, so members that are quiet one after the other need not be quiet at
//! once: a task of the second may have fed the first in between. [`Drain::all_quiet`] reads how many tasks each member
//! has settled, all of them, and then how many each has accepted. Both counts only grow and settled never exceeds
//! accepted. If for a member the settled count of the first pass equals the accepted count of the second, it had
//! settled everything at the first reading and accepted nothing up to the second. If that is so for all, there was a
//! moment, between the passes, at which all were quiet at once. From then on nobody inside is left to submit.
//!
//! What can still come to life is a task that counts as settled because it is blocked in a wait for a shutdown. That
//! is why a member is closed for good by [`seal`](super::member::Member::seal), which looks again under the member's own lock and says no
//! when it is not quiet; the drain goes on then.

use super::budget::{self, Budget};
use super::ended::{join_all, EndedThread};
use super::helper::{Helper, Pending};
use super::member::{Circle, Doomed, Member};
use crate::contain;
use crate::context::{self, HookHost};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::event::Event;
use crate::sync::sooner;
use crate::sync::Instant;
use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

const FIRST_WARNING: Duration = Duration::from_secs(5);

/// Members that share a budget.
pub(crate) struct Group {
    pub(crate) members: Vec<Arc<dyn Member>>,
    pub(crate) budget: Arc<Budget>,
    stage: Stage,
    burials: Vec<Burial>,
}

/// How hard the budget presses; it never lets up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// Everything is waited for.
    Patient,
    /// The reserve has begun: what was queued is cancelled, what runs was told.
    CutOff,
    /// What ran then was given up.
    Abandoned,
}

struct Burial {
    helper: Helper,
    pending: Pending,
    has_left: Arc<AtomicBool>,
    undertaker: Option<Box<dyn FnOnce() + Send>>,
}

impl Group {
    pub(crate) fn new(members: Vec<Arc<dyn Member>>, budget: Arc<Budget>) -> Group {
        Group { members, budget, stage: Stage::Patient, burials: Vec::new() }
    }

    /// When the budget presses harder next.
    fn next_stage_at(&self) -> Option<Instant> {
        match self.stage {
            Stage::Patient => self.budget.cancel_at(),
            Stage::CutOff => self.budget.abandon_at(),
            Stage::Abandoned => None,
        }
    }

    fn press(&mut self, event: &Arc<Event>) {
        while self.next_stage_at().is_some_and(|at| Instant::now() >= at) {
            match self.stage {
                Stage::Patient => {
                    self.stage = Stage::CutOff;
                    self.cut_off(event);
                }
                Stage::CutOff => {
                    self.stage = Stage::Abandoned;
                    self.members.iter().for_each(|member| member.abandon());
                    self.give_up_burials();
                }
                Stage::Abandoned => {}
            }
        }
    }

    /// Every member stops taking tasks before the first drops one, since a drop may submit.
    fn cut_off(&mut self, event: &Arc<Event>) {
        let doomed: Vec<_> = self.members.iter().map(|member| member.cut_off()).collect();
        doomed.into_iter().for_each(|doomed| self.bury(doomed, event));
    }

    /// Has what was cancelled dropped on a thread of its own, which [`is_buried`](Group::is_buried) waits for.
    fn bury(&mut self, doomed: Box<dyn Doomed>, event: &Arc<Event>) {
        if !doomed.is_empty() {
            self.burials.push(Burial::start(doomed, event));
        }
    }

    /// Handles resolve now, even those of tasks whose captures nobody gets round to dropping.
    fn give_up_burials(&mut self) {
        for burial in &mut self.burials {
            if !burial.is_over() {
                burial.helper.leave_behind();
                if let Some(undertaker) = burial.undertaker.take() {
                    undertaker();
                }
            }
        }
    }

    fn is_buried(&self) -> bool {
        self.stage == Stage::Abandoned || self.burials.iter().all(Burial::is_over)
    }
}

impl Burial {
    fn start(doomed: Box<dyn Doomed>, event: &Arc<Event>) -> Burial {
        let undertaker = Some(doomed.undertaker());
        let mut helper = Helper::new("winddown-cancel");
        let has_left = Arc::new(AtomicBool::new(false));
        let mourner = Mourner { has_left: has_left.clone(), event: event.clone() };
        let pending = helper.start(event, move || context::enter_hook(&mourner, || doomed.bury()));
        Burial { helper, pending, has_left, undertaker }
    }

    fn is_over(&self) -> bool {
        self.pending.is_done() || self.has_left.load(Ordering::Acquire)
    }
}

/// What the drop of a capture is a part of, where a shutdown waits for it: like a hook it must not wait for the shutdown.
struct Mourner {
    has_left: Arc<AtomicBool>,
    event: Arc<Event>,
}

impl HookHost for Mourner {
    fn leave(&self) {
        self.has_left.store(true, Ordering::Release);
        self.event.signal();
    }

    fn exit_with(&self, code: i32) {
        contain::log(
            log::Level::Error,
            format_args!("exit({code}) was called by the drop of a cancelled task, which ends no process"),
        );
    }
}

/// Threads that have ended and are to be joined.
struct Ended {
    threads: Vec<EndedThread>,
    of_members: Vec<(Arc<dyn Member>, Vec<EndedThread>)>,
}

impl Ended {
    fn is_empty(&self) -> bool {
        self.threads.is_empty() && self.of_members.is_empty()
    }

    /// However late it is done, each member learns of it: another shutdown may wait for these.
    fn join(self) {
        join_all(self.threads);
        for (member, threads) in self.of_members {
            let ids: Vec<_> = threads.iter().map(EndedThread::id).collect();
            join_all(threads);
            member.joined(&ids);
        }
    }
}

/// Whether something holds for all members. It begins with the one for which it did not the last time, whose place is
/// `doubt`: however often this is asked while members come to it one after another, it looks at each a few times.
fn all_hold(
    members: &[Arc<dyn Member>],
    doubt: &Cell<usize>,
    holds: impl Fn(usize, &dyn Member) -> bool,
) -> bool {
    let mut round = (doubt.get()..members.len()).chain(0..doubt.get());
    match round.find(|place| !holds(*place, &*members[*place])) {
        Some(place) => {
            doubt.set(place);
            false
        }
        None => true,
    }
}

/// The draining and joining of groups of members by one thread.
pub(crate) struct Drain {
    groups: Vec<Group>,
    /// When a budget presses harder next, and the [`changes`](budget::changes) before this was found out. None where it
    /// is to be found out again.
    press_at: Cell<Option<(u64, Option<Instant>)>>,
    event: Arc<Event>,
    circle: Circle,
    joins: Helper,
    /// No deadline can come: threads are joined by this one, without a helper.
    is_patient: bool,
    began: Instant,
    warn_after: Duration,
}

impl Drain {
    pub(crate) fn new(event: Arc<Event>) -> Drain {
        Drain {
            groups: Vec::new(),
            press_at: Cell::new(None),
            event,
            circle: Circle::Registry,
            joins: Helper::new("winddown-join"),
            is_patient: false,
            began: Instant::now(),
            warn_after: FIRST_WARNING,
        }
    }

    /// The drain of one member, whose deadline nobody else can bring nearer.
    pub(crate) fn of_one(event: Arc<Event>, member: Arc<dyn Member>, budget: Arc<Budget>) -> Drain {
        let mut drain = Drain::new(event);
        drain.circle = Circle::Own;
        drain.is_patient = budget.end().is_none();
        drain.add(Group::new(vec![member], budget));
        drain
    }

    pub(crate) fn add(&mut self, group: Group) {
        self.groups.push(group);
        self.press_at.set(None);
    }

    pub(crate) fn event(&self) -> &Arc<Event> {
        &self.event
    }

    /// When a budget presses harder next. A wait asks this at every signal, and there may be thousands of groups.
    fn next_press_at(&self) -> Option<Instant> {
        let changes = budget::changes();
        match self.press_at.get() {
            Some((then, at)) if then == changes => at,
            _ => {
                let at = self.groups.iter().map(Group::next_stage_at).fold(None, sooner);
                self.press_at.set(Some((changes, at)));
                at
            }
        }
    }

    /// Waits until `ready` holds, or `until` has come. Meanwhile budgets press, and the log names, at doubling
    /// intervals, what `what` says is waited for.
    pub(crate) fn wait(
        &mut self,
        until: impl Fn(&Drain) -> Option<Instant>,
        ready: impl Fn(&Drain) -> bool,
        what: impl Fn(&Drain) -> Vec<String>,
    ) -> bool {
        loop {
            let drain = &*self;
            let wake_at = || {
                sooner(sooner(until(drain), drain.next_press_at()), drain.began.checked_add(drain.warn_after))
            };
            // While this thread waits, a task of its own pool may be left without a thread to run it.
            let look = || {
                while context::help() {}
                ready(drain)
            };
            if drain.event.wait(wake_at, look) {
                return true;
            }
            if until(self).is_some_and(|until| Instant::now() >= until) {
                return ready(self);
            }
            if self.began.elapsed() >= self.warn_after {
                self.warn_after *= 2;
                let waited = self.began.elapsed();
                for what in what(self) {
                    contain::log(
                        log::Level::Warn,
                        format_args!("shutdown has waited {waited:.1?}, now for {what}"),
                    );
                }
            }
            let event = self.event.clone();
            self.groups.iter_mut().for_each(|group| group.press(&event));
            self.press_at.set(None);
        }
    }

    /// Closes the members of each group in turn and waits until all are quiet at once, or their budgets give up.
    pub(crate) fn drain(&mut self) {
        for group in 0..self.groups.len() {
            for member in 0..self.groups[group].members.len() {
                let closing = self.groups[group].members[member].clone();
                // What is due is not to be cancelled because the timer has not come to it.
                closing.clone().on_time(usize::MAX);
                let doomed = closing.close(self.circle);
                self.groups[group].bury(doomed, &self.event);
                self.wait_drained(
                    |drain| {
                        let tally = drain.groups[group].members[member].tally();
                        tally.settled >= tally.accepted
                    },
                    group,
                );
            }
            let doubt = Cell::new(0);
            loop {
                self.wait_drained(|drain| drain.all_quiet(group, &doubt), group);
                if self.groups[group].members.iter().all(|member| member.seal())
                    || self.groups[group].stage == Stage::Abandoned
                {
                    break;
                }
            }
            self.wait_drained(|drain| drain.groups[group].is_buried(), group);
        }
    }

    fn wait_drained(&mut self, ready: impl Fn(&Drain) -> bool, group: usize) {
        self.wait(
            |_| None,
            |drain| ready(drain) || drain.groups[group].stage == Stage::Abandoned,
            |drain| drain.unfinished(),
        );
    }

    fn all_quiet(&self, group: usize, doubt: &Cell<usize>) -> bool {
        let members = &self.groups[group].members;
        let is_quiet = |member: &Arc<dyn Member>| {
            let tally = member.tally();
            tally.settled >= tally.accepted
        };
        // Where the one that was not quiet the last time is not yet, nothing need be read of the others.
        if members.get(doubt.get()).is_some_and(|member| !is_quiet(member)) {
            return false;
        }
        let settled: Vec<u64> = members.iter().map(|member| member.tally().settled).collect();
        all_hold(members, doubt, |place, member| settled[place] >= member.tally().accepted)
    }

    /// Joins the threads of each group's members, and those that `leavings` hands out for the group, until none remain
    /// or its time is up. The members must have been drained.
    pub(crate) fn join(&mut self, leavings: impl Fn(usize) -> Vec<EndedThread>) {
        for group in 0..self.groups.len() {
            while self.join_some(group, &leavings) {}
        }
    }

    /// Says whether there may be more to join.
    fn join_some(&mut self, group: usize, leavings: impl Fn(usize) -> Vec<EndedThread>) -> bool {
        let until = |drain: &Drain| drain.groups[group].budget.join_until();
        let circle = self.circle;
        let doubt = Cell::new(0);
        let all_left = |drain: &Drain| {
            all_hold(&drain.groups[group].members, &doubt, |_, member| member.threads_left(circle) == 0)
        };
        let all_ended = self.wait(until, all_left, |drain| drain.unended());
        let mut of_members = Vec::new();
        for member in &self.groups[group].members {
            let threads = member.take_ended();
            if !threads.is_empty() {
                of_members.push((member.clone(), threads));
            }
        }
        // After those: a member that retires at this moment hands its threads over, and they are found either here or there.
        let ended = Ended { threads: leavings(group), of_members };
        if ended.is_empty() {
            // Threads that have ended do not count as left until somebody takes them. Another shutdown may have done so
            // since the look above: then it joins them, and this one waits for that.
            return all_ended && !all_left(self);
        }
        self.join_threads(ended, until) && all_ended
    }

    /// Joins threads that have ended, on another thread where that may take for ever: destructors of thread-locals
    /// are other people's code. Says whether all were joined in time.
    fn join_threads(&mut self, ended: Ended, until: impl Fn(&Drain) -> Option<Instant>) -> bool {
        if self.is_patient {
            ended.join();
            return true;
        }
        let pending = self.joins.start(&self.event, move || ended.join());
        let in_time = self.wait(until, |_| pending.is_done(), |_| vec!["thread-local destructors".into()]);
        if !in_time {
            self.joins.leave_behind();
        }
        in_time
    }

    fn members(&self) -> impl Iterator<Item = &Arc<dyn Member>> {
        self.groups.iter().flat_map(|group| &group.members)
    }

    fn unended(&self) -> Vec<String> {
        self.members()
            .map(|member| (member.threads_left(self.circle), member.stats().name))
            .filter(|(left, _)| *left > 0)
            .map(|(left, name)| format!("{left} threads of pool {name} to end"))
            .collect()
    }

    /// What the drain waits for: the tasks that run, and how many are behind them.
    pub(crate) fn unfinished(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for member in self.members() {
            lines.extend(member.running().iter().map(|task| task.to_string()));
            let stats = member.stats();
            if stats.queued > 0 {
                lines.push(format!("{} queued tasks of pool {}", stats.queued, stats.name));
            }
        }
        if !self.groups.iter().all(Group::is_buried) {
            lines.push("what cancelled tasks have captured to be dropped".into());
        }
        lines
    }

    /// Ends the threads that this needed, and tells the members that it is over. Returns the groups.
    pub(crate) fn finish(mut self) -> Vec<Group> {
        self.joins.finish();
        for group in &mut self.groups {
            let is_patient = group.budget.end().is_none();
            for burial in std::mem::take(&mut group.burials) {
                // With a deadline, its thread-local destructors could hang past that.
                if is_patient && burial.pending.is_done() {
                    burial.helper.finish();
                }
            }
            for member in &group.members {
                if group.stage == Stage::Abandoned {
                    // A task that was blocked in a wait at the time, and so not given up, may have come out of it.
                    member.abandon();
                }
                member.finish();
            }
        }
        self.groups
    }
}
