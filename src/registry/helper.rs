//! A thread for what may never return: hooks, joins, other people's destructors, a flush of a locked stdout.

use crate::contain;
use crate::os::Generation;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::event::Event;
use crate::sync::thread;
use crate::sync::{unbounded, Sender};
use std::sync::Arc;

type Errand = Box<dyn FnOnce() + Send>;

/// Runs errands one after another on a thread of its own, which is left behind when an errand hangs.
///
/// The thread is started by the first errand, and another one by the first errand after one was left behind. Where
/// no thread can be had, an errand runs on the calling thread: late is better than not at all.
pub(crate) struct Helper {
    name: &'static str,
    thread: Option<(Sender<Errand>, thread::JoinHandle<()>)>,
}

/// An errand that was given to a helper.
pub(crate) struct Pending {
    is_done: Arc<AtomicBool>,
}

impl Pending {
    /// Whether it is over. Who sees that sees what it did.
    pub(crate) fn is_done(&self) -> bool {
        self.is_done.load(Ordering::Acquire)
    }
}

impl Helper {
    pub(crate) const fn new(name: &'static str) -> Helper {
        Helper { name, thread: None }
    }

    /// Starts an errand. `event` is signalled when it is done. The errand must not panic.
    pub(crate) fn start(&mut self, event: &Arc<Event>, errand: impl FnOnce() + Send + 'static) -> Pending {
        let is_done = Arc::new(AtomicBool::new(false));
        let (done, event) = (is_done.clone(), event.clone());
        let errand: Errand = Box::new(move || {
            errand();
            if !event.is_past() {
                done.store(true, Ordering::Release);
                event.signal();
            }
        });
        let refused = match self.feed() {
            Some(feed) => feed.send(errand).err().map(|error| error.0),
            None => Some(errand),
        };
        if let Some(errand) = refused {
            errand();
        }
        Pending { is_done }
    }

    fn feed(&mut self) -> Option<&Sender<Errand>> {
        if self.thread.is_none() {
            let (feed, errands) = unbounded::<Errand>();
            let process = Generation::now();
            let run = move || {
                for errand in errands {
                    errand();
                    if process.is_past() {
                        // The errand forked and this is the child, which nobody gives errands.
                        return;
                    }
                }
            };
            match thread::Builder::new().name(self.name.into()).spawn(run) {
                Ok(thread) => self.thread = Some((feed, thread)),
                Err(error) => contain::log(
                    log::Level::Warn,
                    format_args!("no thread for {}, its work is done in place: {error}", self.name),
                ),
            }
        }
        self.thread.as_ref().map(|(feed, _)| feed)
    }

    /// Leaves the thread behind with the errand that it hangs in; it ends when that errand does.
    pub(crate) fn leave_behind(&mut self) {
        self.thread = None;
    }

    /// Ends the thread, which must have nothing left to do, and waits for its thread-local destructors. Dropping the
    /// helper instead ends the thread too, but waits for nothing.
    pub(crate) fn finish(mut self) {
        if let Some((feed, thread)) = self.thread.take() {
            drop(feed);
            if let Err(payload) = thread.join() {
                contain::drop_quietly(payload);
            }
        }
    }
}
