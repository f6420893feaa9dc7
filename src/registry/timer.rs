//! Calls members when something of theirs is due: one thread for all members of a registry, while there is anything to
//! wait for.
//!
//! A member says, under its own lock, when it is to be called next, and takes that back when it has nothing to wait for any
//! more. The thread takes a moment that has come out, lets go of every lock, and calls the member, which says when to call it
//! again. It knows members by their keys and looks them up for each call, so it keeps none alive.
//!
//! **A moment never stays without a thread.** Whoever adds one does so in the critical section in which it has seen that a
//! thread is there, or has started it. The thread decides to end in one in which it has seen no moment. A thread that calls
//! a member has not ended: it looks again after that.

use super::ended::{self, EndedThread, Mark};
use super::{Inner, Registry};
use crate::sync::thread::{self, ThreadId};
use crate::sync::Instant;
use crate::sync::{deadline, Condvar, Mutex};
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// For how long the thread stays when there is nothing to wait for: what a task puts off again and again does not start one
/// each time.
const LINGER: Duration = Duration::from_millis(100);

/// How much a member does for one call, before others have their turn.
const AT_ONCE: usize = 256;

#[derive(Default)]
pub(super) struct Timer {
    state: Mutex<State>,
    /// The first moment is nearer, or gone.
    changed: Condvar,
}

/// Everything here is behind [`Timer::state`].
#[derive(Default)]
struct State {
    /// When each member that waits for something is to be called, and its key.
    moments: BTreeSet<(Instant, u64)>,
    running: Option<ThreadId>,
    /// Threads that nobody has joined, the running one among them.
    threads: Vec<EndedThread>,
    /// The registry is wound down or forgotten: the thread does not linger.
    is_over: bool,
}

impl Registry {
    /// Has the member of that key called at a moment, and not at the one `before`. Fails if that takes a thread and none can
    /// be had; nothing is changed then.
    ///
    /// Called under the member's lock.
    pub(crate) fn call_member_at(
        &self,
        key: u64,
        before: Option<Instant>,
        at: Option<Instant>,
    ) -> io::Result<()> {
        let timer = &self.inner.timer;
        let mut state = timer.state.lock();
        if at.is_some() && state.running.is_none() {
            start(&self.inner, &mut state)?;
        }
        let old_first = state.moments.first().copied();
        before.map(|before| state.moments.remove(&(before, key)));
        state.moments.extend(at.map(|at| (at, key)));
        let first = state.moments.first().copied();
        drop(state);
        // At a moment that is taken back the thread finds that out by itself.
        if first != old_first && (first.is_none() || old_first.is_none() || first < old_first) {
            timer.changed.notify_one();
        }
        Ok(())
    }
}

impl Timer {
    /// Whether there are threads to join.
    pub(super) fn has_threads(&self) -> bool {
        !self.state.lock().threads.is_empty()
    }

    /// The threads that have ended.
    pub(super) fn take_ended(&self) -> Vec<EndedThread> {
        let mut state = self.state.lock();
        let running = state.running;
        let (running, ended) =
            std::mem::take(&mut state.threads).into_iter().partition(|thread| Some(thread.id()) == running);
        state.threads = running;
        ended
    }

    /// Those that are gone, so that joining them takes no time.
    pub(super) fn take_gone(&self) -> Vec<EndedThread> {
        ended::take_gone(&mut self.state.lock().threads)
    }

    /// All threads, for a registry no member of which waits for anything any more: the one that runs ends at once.
    pub(super) fn end(&self) -> Vec<EndedThread> {
        let mut state = self.state.lock();
        state.is_over = true;
        let threads = ended::take_others(&mut state.threads);
        drop(state);
        self.changed.notify_one();
        threads
    }
}

/// Starts the thread, under the lock: it cannot look for moments before there is one.
fn start(registry: &Arc<Inner>, state: &mut State) -> io::Result<()> {
    let mark = Mark::default();
    let (of_thread, registry) = (mark.clone(), registry.clone());
    let thread = thread::Builder::new().name("winddown-timer".into()).spawn(move || {
        of_thread.set_at_thread_exit();
        run(&registry);
    })?;
    state.running = Some(thread.thread().id());
    state.threads.push(EndedThread::new(thread, mark));
    Ok(())
}

fn run(registry: &Inner) {
    let timer = &registry.timer;
    ended::join_all(timer.take_gone());
    let mut state = timer.state.lock();
    loop {
        let Some((at, key)) = state.moments.first().copied() else {
            let mut is_late = state.is_over;
            if !is_late {
                (state, is_late) = timer.changed.wait(state, deadline(LINGER));
            }
            if is_late && state.moments.is_empty() {
                state.running = None;
                return;
            }
            continue;
        };
        if Instant::now() < at {
            (state, _) = timer.changed.wait(state, Some(at));
            continue;
        }
        state.moments.pop_first();
        drop(state);
        let member = registry.state.lock().members.get(&key).cloned();
        if let Some(member) = member {
            member.on_time(AT_ONCE);
        }
        if registry.born.is_past() {
            // Code of others that a member called forked, and this is the child, where the locks may be held for ever.
            return;
        }
        state = timer.state.lock();
    }
}
