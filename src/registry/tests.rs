//! What only the inside can show: how often a shutdown looks at its members.

use super::budget::Budget;
use super::drain::{Drain, Group};
use super::ended::EndedThread;
use super::member::{Circle, Doomed, Member, Tally};
use super::report::{PoolPhase, PoolReport, PoolStats, RunningTask};
use crate::sync::event::Event;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread::ThreadId;
use std::time::Duration;

const MEMBERS: usize = 1_000;

/// A member of which each thing that is waited for comes about when it has been looked for once: the wait for it then
/// looks at all members again, as it does when the tasks and threads of many end one by one.
struct Slow {
    event: Arc<Event>,
    tallies: AtomicUsize,
    looks_for_threads: AtomicUsize,
    others: AtomicUsize,
}

impl Slow {
    /// Whether it was looked at before.
    fn looked(&self, count: &AtomicUsize) -> bool {
        let is_first = count.fetch_add(1, Ordering::Relaxed) == 0;
        if is_first {
            self.event.signal();
        }
        !is_first
    }

    fn count(&self) {
        self.others.fetch_add(1, Ordering::Relaxed);
    }
}

impl Member for Slow {
    fn is_daemon(&self) -> bool {
        false
    }

    fn on_time(self: Arc<Slow>, _: usize) {}

    fn close(&self, _: Circle) -> Box<dyn Doomed> {
        self.count();
        Box::new(Nobody)
    }

    fn tally(&self) -> Tally {
        Tally { settled: u64::from(self.looked(&self.tallies)), accepted: 1 }
    }

    fn seal(&self) -> bool {
        self.count();
        true
    }

    fn cut_off(&self) -> Box<dyn Doomed> {
        self.count();
        Box::new(Nobody)
    }

    fn abandon(&self) {
        self.count();
    }

    fn threads_left(&self, _: Circle) -> usize {
        usize::from(!self.looked(&self.looks_for_threads))
    }

    fn take_ended(&self) -> Vec<EndedThread> {
        self.count();
        Vec::new()
    }

    fn joined(&self, _: &[ThreadId]) {
        self.count();
    }

    fn finish(&self) {
        self.count();
    }

    fn stats(&self) -> PoolStats {
        PoolStats::empty("slow", false, PoolPhase::Draining)
    }

    fn running(&self) -> Vec<RunningTask> {
        Vec::new()
    }

    fn report(&self) -> PoolReport {
        PoolReport {
            stats: self.stats(),
            abandoned: Vec::new(),
            lost: 0,
            workers_joined: 0,
            elapsed: Duration::ZERO,
        }
    }
}

/// What a member without queued tasks leaves to bury.
struct Nobody;

impl Doomed for Nobody {
    fn is_empty(&self) -> bool {
        true
    }

    fn bury(self: Box<Self>) {
        unreachable!("there is nobody")
    }

    fn undertaker(&self) -> Box<dyn FnOnce() + Send> {
        unreachable!("there is nobody")
    }
}

/// Members and a drain of them that has so much time.
fn slow_members(timeout: Option<Duration>) -> (Vec<Arc<Slow>>, Drain) {
    let event = Arc::new(Event::default());
    let slow = || {
        let (tallies, looks_for_threads, others) = Default::default();
        Arc::new(Slow { event: event.clone(), tallies, looks_for_threads, others })
    };
    let members: Vec<_> = (0..MEMBERS).map(|_| slow()).collect();
    let mut drain = Drain::new(event.clone());
    let of_group = members.iter().map(|member| member.clone() as Arc<dyn Member>).collect();
    drain.add(Group::new(of_group, Arc::new(Budget::new(timeout))));
    (members, drain)
}

#[test]
fn no_thread_is_started_where_a_deadline_cancels_nothing() {
    let (members, mut drain) = slow_members(Some(Duration::ZERO));
    drain.drain();
    drain.finish();
    for member in members {
        // Closed, cut off, given up twice, sealed, and told that it is over.
        assert!(member.others.load(Ordering::Relaxed) <= 6);
    }
}

#[test]
fn however_many_members_end_one_by_one_each_is_looked_at_a_few_times() {
    let (members, mut drain) = slow_members(None);
    drain.drain();
    drain.join(|_| Vec::new());
    drain.finish();
    let sum = |count: fn(&Slow) -> &AtomicUsize| {
        members.iter().map(|member| count(member).load(Ordering::Relaxed)).sum::<usize>()
    };
    // Twice where each was waited for, and then once or twice all together.
    let (tallies, looks) = (sum(|member| &member.tallies), sum(|member| &member.looks_for_threads));
    assert!(tallies <= 5 * MEMBERS, "{tallies} tallies");
    assert!(looks <= 4 * MEMBERS, "{looks} looks for threads");
    assert!(sum(|member| &member.others) <= 5 * MEMBERS);
}
