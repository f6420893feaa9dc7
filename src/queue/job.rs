//! A task as it lies in a queue: the closure itself, inline, where it is small.
//!
//! A boxed closure that is allocated on one core and freed on another costs several times what the rest of a hand-over
//! does, so up to four words travel in the queue's own slot. What is larger, or aligned more strictly than a word, is
//! boxed by its submitter and travels as that box. This is the crate's unsafe core; everything about a closure's bytes is here.
#![allow(unsafe_code)]

#[cfg(any(all(test, not(any(winddown_loom, winddown_shuttle))), fuzzing))]
pub(crate) mod soup;

use super::deque::OwnEnd;
use super::injector::Draft;
use std::marker::PhantomData;
use std::mem::{align_of, size_of, ManuallyDrop, MaybeUninit};
use std::panic::Location;
use std::ptr;
use std::sync::Arc;

const WORDS: usize = 4;

type Payload = [MaybeUninit<usize>; WORDS];

/// Something to run once on a thread that has a `C`.
pub(crate) trait Work<C>: Send + 'static {
    /// Runs it. Says whether it ran: what was cancelled in its place in the queue does not. Must not panic.
    fn run(self, cx: &C, location: &'static Location<'static>) -> bool;

    /// Claims it for a cancellation that [`discard`](Work::discard) completes. Says what there is to discard.
    fn doom(&mut self) -> Doom;

    /// Asks whether it may leave the pool unrun. Called under the pool's lock.
    fn hand_back(&mut self) -> HandBack;

    /// Drops it unrun, and resolves its handle if it has one. Must not panic.
    fn discard(self);
}

/// Whether a task may be given back unstarted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum HandBack {
    /// It is part of the pool no more.
    Yes,
    /// It is not queued any more: cancelled before, or run elsewhere.
    Gone,
    /// It borrows from whoever submitted it, and is waited for there.
    Never,
}

/// What came of the claim to cancel a queued task.
pub(crate) enum Doom {
    /// It is not queued any more: cancelled before, or run elsewhere.
    Gone,
    /// It will not run, and no one waits for it.
    Silent,
    /// It will not run; this resolves its handle.
    Awaited(Arc<dyn Resolve>),
}

pub(crate) trait Resolve: Send + Sync {
    /// Resolves the handle as cancelled, if it is not resolved, without dropping the captures.
    fn resolve_cancelled(&self);
}

struct VTable<C> {
    run: unsafe fn(*mut Payload, &C, &'static Location<'static>) -> bool,
    doom: unsafe fn(*mut Payload) -> Doom,
    discard: unsafe fn(*mut Payload),
    hand_back: unsafe fn(*mut Payload) -> HandBack,
}

pub(crate) struct Job<C: 'static> {
    payload: Payload,
    vtable: &'static VTable<C>,
    location: &'static Location<'static>,
}

// SAFETY: the payload holds a `Work`, which is `Send`, or a box of one; the rest are shared references to `Sync` data.
unsafe impl<C> Send for Job<C> {}

/// Whether a `W` fits into a job. What does not has to be boxed before.
pub(crate) const fn fits<W>() -> bool {
    size_of::<W>() <= size_of::<Payload>() && align_of::<W>() <= align_of::<Payload>()
}

impl<C: 'static> Job<C> {
    /// A job that is kept somewhere else than in a queue, boxed if need be.
    pub(crate) fn new<W: Work<C>>(work: W, location: &'static Location<'static>) -> Job<C> {
        match fits::<W>() {
            true => Job::make(Order { work, location }),
            false => Job::make(Order { work: Box::new(work), location }),
        }
    }

    fn make<W: Work<C>>(order: Order<W>) -> Job<C> {
        let mut place = MaybeUninit::uninit();
        // SAFETY: the place is valid for a write, which initialises it.
        unsafe {
            order.make_in(place.as_mut_ptr());
            place.assume_init()
        }
    }

    pub(crate) fn location(&self) -> &'static Location<'static> {
        self.location
    }

    /// See [`Work::hand_back`].
    pub(crate) fn hand_back(&mut self) -> HandBack {
        // SAFETY: as in `doom`.
        unsafe { (self.vtable.hand_back)(&mut self.payload) }
    }

    /// Runs it; see [`Work::run`].
    #[inline]
    pub(crate) fn run(self, cx: &C) -> bool {
        let mut job = ManuallyDrop::new(self);
        // SAFETY: the vtable was chosen for what the payload holds. `ManuallyDrop` keeps the job's own drop from
        // taking it a second time.
        unsafe { (job.vtable.run)(&mut job.payload, cx, job.location) }
    }

    /// Runs the job that the worker's own queue gives next, if there is one, without moving it out first. Where somebody
    /// waits for its place in the queue, it is given to `make_way`, which sees to all of that. Says whether a job ran, or was
    /// given away, and was not hollow.
    #[inline]
    pub(crate) fn run_next(own: &OwnEnd<Job<C>>, cx: &C, make_way: impl FnOnce(Job<C>)) -> Option<bool> {
        // SAFETY: `run` moves the work out of the payload before it runs it, and the other fields are read before that;
        // what `make_way` gets is moved out before.
        unsafe {
            own.pop_in_place(|job, is_awaited| {
                if is_awaited {
                    make_way(job.read());
                    return true;
                }
                let (vtable, location) = ((*job).vtable, (*job).location);
                (vtable.run)(&mut (*job).payload, cx, location)
            })
        }
    }

    /// Claims it for cancellation; dropping the job completes that.
    pub(crate) fn doom(&mut self) -> Doom {
        // SAFETY: the vtable was chosen for what the payload holds, and it holds it until `run` or `drop`. The
        // borrow is unique: what the payload holds may have interior mutability, which bytes have not.
        unsafe { (self.vtable.doom)(&mut self.payload) }
    }
}

/// What a job is made of.
pub(crate) struct Order<W> {
    pub(crate) work: W,
    pub(crate) location: &'static Location<'static>,
}

/// A job that was kept somewhere else moves into a queue.
// SAFETY: `make_in` writes an item.
unsafe impl<C: 'static> Draft<Job<C>> for Job<C> {
    unsafe fn make_in(self, place: *mut Job<C>) {
        // SAFETY: the caller says that the place is valid for a write.
        unsafe { place.write(self) };
    }

    unsafe fn unmake(place: *mut Job<C>) -> Job<C> {
        // SAFETY: the caller says that the job was made there, and nobody else uses it.
        unsafe { place.read() }
    }
}

// SAFETY: `make_in` writes all fields of a job, and the vtable is that of the work in the payload.
unsafe impl<W: Work<C>, C: 'static> Draft<Job<C>> for Order<W> {
    #[inline(always)]
    unsafe fn make_in(self, place: *mut Job<C>) {
        assert!(fits::<W>(), "what does not fit into a job is boxed");
        // SAFETY: the caller says that the place is valid for a job, and a `W` fits into the payload and needs no
        // stricter alignment. Field by field: a job put together elsewhere would be copied here.
        unsafe {
            ptr::addr_of_mut!((*place).payload).cast::<W>().write(self.work);
            ptr::addr_of_mut!((*place).vtable).write(&Inline::<W, C>::VTABLE);
            ptr::addr_of_mut!((*place).location).write(self.location);
        }
    }

    unsafe fn unmake(place: *mut Job<C>) -> Order<W> {
        // SAFETY: the caller says that `make_in` put a `W` there, and that nobody else uses it.
        unsafe { Order { work: (*place).payload.as_ptr().cast::<W>().read(), location: (*place).location } }
    }
}

/// What is too large to travel inline.
impl<C: 'static, W: Work<C>> Work<C> for Box<W> {
    fn run(self, cx: &C, location: &'static Location<'static>) -> bool {
        (*self).run(cx, location)
    }

    fn doom(&mut self) -> Doom {
        (**self).doom()
    }

    fn hand_back(&mut self) -> HandBack {
        (**self).hand_back()
    }

    fn discard(self) {
        (*self).discard();
    }
}

impl<C> Drop for Job<C> {
    fn drop(&mut self) {
        // SAFETY: the payload still holds the work: `run`, which takes it, prevents this drop.
        unsafe { (self.vtable.discard)(&mut self.payload) }
    }
}

/// The operations on a payload that holds a `W` itself.
struct Inline<W, C>(PhantomData<(W, C)>);

impl<C: 'static, W: Work<C>> Inline<W, C> {
    const VTABLE: VTable<C> =
        VTable { run: Self::run, doom: Self::doom, discard: Self::discard, hand_back: Self::hand_back };

    /// # Safety
    ///
    /// The payload holds a `W`, which this takes.
    unsafe fn run(payload: *mut Payload, cx: &C, location: &'static Location<'static>) -> bool {
        // SAFETY: the caller's promise.
        let work = unsafe { payload.cast::<W>().read() };
        work.run(cx, location)
    }

    /// # Safety
    ///
    /// The payload holds a `W`.
    unsafe fn doom(payload: *mut Payload) -> Doom {
        // SAFETY: the caller's promise.
        let work = unsafe { &mut *payload.cast::<W>() };
        work.doom()
    }

    /// # Safety
    ///
    /// The payload holds a `W`.
    unsafe fn hand_back(payload: *mut Payload) -> HandBack {
        // SAFETY: the caller's promise.
        let work = unsafe { &mut *payload.cast::<W>() };
        work.hand_back()
    }

    /// # Safety
    ///
    /// The payload holds a `W`, which this takes.
    unsafe fn discard(payload: *mut Payload) {
        // SAFETY: the caller's promise.
        let work = unsafe { payload.cast::<W>().read() };
        work.discard();
    }
}

#[cfg(all(test, not(any(winddown_loom, winddown_shuttle))))]
mod tests {
    use super::super::injector::{Injector, Pushed};
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    struct Count {
        runs: AtomicUsize,
        drops: AtomicUsize,
    }

    /// A closure of a chosen shape that counts its runs and its drops.
    struct Probe<T> {
        content: T,
        count: Arc<Count>,
        expected: fn(&T) -> bool,
    }

    impl<T: Send + 'static> Work<usize> for Probe<T> {
        fn run(self, cx: &usize, _: &'static Location<'static>) -> bool {
            assert!((self.expected)(&self.content));
            self.count.runs.fetch_add(*cx, Ordering::Relaxed);
            true
        }
        fn doom(&mut self) -> Doom {
            assert!((self.expected)(&self.content));
            Doom::Silent
        }
        fn hand_back(&mut self) -> HandBack {
            HandBack::Yes
        }
        fn discard(self) {}
    }

    impl<T> Drop for Probe<T> {
        fn drop(&mut self) {
            self.count.drops.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn job<W: Work<usize>>(order: Order<W>) -> Job<usize> {
        Job::make(order)
    }

    fn check<T: Clone + Send + 'static>(content: T, expected: fn(&T) -> bool, inline: bool) {
        assert_eq!(fits::<Probe<T>>(), inline);
        let count = Arc::new(Count { runs: AtomicUsize::new(0), drops: AtomicUsize::new(0) });
        let probe = || Probe { content: content.clone(), count: count.clone(), expected };
        let order = || Order { work: Box::new(probe()), location: Location::caller() };
        let job = || job(order());
        // Moved about before it runs, as in a queue that grows.
        let mut queue = std::collections::VecDeque::new();
        for _ in 0..20 {
            queue.push_back(job());
        }
        // A submitter that is refused gets back what it gave.
        let mut made = ManuallyDrop::new(job());
        // SAFETY: it was made of such an order, and is not dropped.
        let refused = unsafe { <Order<Box<Probe<T>>> as Draft<Job<usize>>>::unmake(&mut *made) };
        assert!((refused.work.expected)(&refused.work.content));
        drop(refused);
        count.drops.store(0, Ordering::Relaxed);
        let first = queue.pop_front().unwrap();
        assert!(first.run(&3));
        let mut second = queue.pop_front().unwrap();
        assert!(matches!(second.doom(), Doom::Silent));
        drop(second);
        assert_eq!(count.runs.load(Ordering::Relaxed), 3);
        assert_eq!(count.drops.load(Ordering::Relaxed), 2);
        drop(queue);
        assert_eq!(count.runs.load(Ordering::Relaxed), 3);
        assert_eq!(count.drops.load(Ordering::Relaxed), 20);
        assert_eq!(Arc::strong_count(&count), 1);
    }

    #[test]
    fn a_queued_task_takes_six_words() {
        assert_eq!(size_of::<Job<()>>(), 6 * size_of::<usize>());
    }

    #[test]
    fn closures_of_every_size_and_alignment_run_or_drop_once() {
        #[derive(Clone)]
        #[repr(align(64))]
        struct Aligned(u8);
        check((), |_| true, true);
        check(7_usize, |n| *n == 7, true);
        check([7_usize, 8], |n| *n == [7, 8], true);
        check([7_u8; 16], |n| *n == [7; 16], true);
        check([7_u8; 17], |n| *n == [7; 17], false);
        check([7_usize; 1000], |n| *n == [7; 1000], false);
        check(Aligned(5), |n| n.0 == 5 && (n as *const Aligned as usize) % 64 == 0, false);
        check(String::from("owned"), |s| s == "owned", false);
    }

    #[test]
    fn a_panic_while_it_runs_drops_what_it_captured_once() {
        struct Bomb(Arc<Count>);
        impl Work<usize> for Bomb {
            fn run(self, _: &usize, _: &'static Location<'static>) -> bool {
                panic!("while it runs")
            }
            fn doom(&mut self) -> Doom {
                Doom::Silent
            }
            fn hand_back(&mut self) -> HandBack {
                HandBack::Yes
            }
            fn discard(self) {}
        }
        impl Drop for Bomb {
            fn drop(&mut self) {
                self.0.drops.fetch_add(1, Ordering::Relaxed);
            }
        }
        let count = Arc::new(Count { runs: AtomicUsize::new(0), drops: AtomicUsize::new(0) });
        let taken = job(Order { work: Bomb(count.clone()), location: Location::caller() });
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| taken.run(&0))).is_err());
        assert_eq!(count.drops.load(Ordering::Relaxed), 1);
        // And where it lies, in the queue of a worker.
        let (_injector, front) = Injector::<Job<usize>>::new();
        let own = OwnEnd::new(&front, 0);
        let order = Order { work: Bomb(count.clone()), location: Location::caller() };
        assert!(matches!(own.push(order), Pushed::Quietly));
        let next = std::panic::AssertUnwindSafe(|| Job::run_next(&own, &0, drop));
        assert!(std::panic::catch_unwind(next).is_err());
        assert_eq!(count.drops.load(Ordering::Relaxed), 2);
        assert!(Job::run_next(&own, &0, drop).is_none());
        drop((own, front, _injector));
        assert_eq!(Arc::strong_count(&count), 1);
    }
}
