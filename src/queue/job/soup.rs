//! Bytes, read as what is done with closures of all sizes and alignments while they lie in jobs. Each is dropped once in the end,
//! whatever became of it, and its content is then what it was.

use super::super::injector::{Injector, Pushed};
use super::*;
use crate::contain;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};

/// What became of one closure.
#[derive(Default)]
struct Fate {
    runs: AtomicU32,
    drops: AtomicU32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Manners {
    Good,
    PanicsWhenRun,
    PanicsWhenDropped,
}

/// The payload of a panic that is part of the play.
struct Boom;

fn panic_as_told() -> ! {
    // Without a word: the panic hook is not called.
    std::panic::resume_unwind(Box::new(Boom))
}

/// A closure that has `T` captured.
struct Probe<T: Content> {
    content: T,
    seed: u8,
    manners: Manners,
    fate: Arc<Fate>,
}

/// Something to capture, of some size and alignment, that is known again.
trait Content: Send + 'static {
    fn new(seed: u8) -> Self;
    fn is_of(&self, seed: u8) -> bool;
}

impl<const N: usize> Content for [u8; N] {
    fn new(seed: u8) -> [u8; N] {
        [seed; N]
    }
    fn is_of(&self, seed: u8) -> bool {
        self.iter().all(|byte| *byte == seed)
    }
}

impl<const N: usize> Content for [u64; N] {
    fn new(seed: u8) -> [u64; N] {
        [u64::from(seed); N]
    }
    fn is_of(&self, seed: u8) -> bool {
        self.as_ptr().is_aligned() && self.iter().all(|number| *number == u64::from(seed))
    }
}

impl Content for Vec<u8> {
    fn new(seed: u8) -> Vec<u8> {
        vec![seed; usize::from(seed)]
    }
    fn is_of(&self, seed: u8) -> bool {
        *self == vec![seed; usize::from(seed)]
    }
}

macro_rules! aligned {
    ($($name:ident $align:literal $size:literal),*) => {
        $(
            #[repr(align($align))]
            struct $name([u8; $size]);

            impl Content for $name {
                fn new(seed: u8) -> $name {
                    $name([seed; $size])
                }
                fn is_of(&self, seed: u8) -> bool {
                    ptr::from_ref(self).is_aligned() && self.0.is_of(seed)
                }
            }
        )*
    };
}

aligned!(By2 2 3, By4 4 5, By8 8 1, By16 16 1, By32 32 40, By64 64 0, By256 256 300);

impl<T: Content> Probe<T> {
    fn check(&self) {
        assert!(self.content.is_of(self.seed), "what was captured has changed");
        assert_eq!(self.fate.drops.load(Ordering::Relaxed), 0, "it was dropped before");
    }
}

impl<T: Content> Work<Fate> for Probe<T> {
    fn run(self, host: &Fate, location: &'static Location<'static>) -> bool {
        self.check();
        assert_eq!(location.file(), file!());
        self.fate.runs.fetch_add(1, Ordering::Relaxed);
        host.runs.fetch_add(1, Ordering::Relaxed);
        if self.manners == Manners::PanicsWhenRun {
            panic_as_told();
        }
        contain::drop_quietly(self);
        true
    }

    fn doom(&mut self) -> Doom {
        self.check();
        Doom::Silent
    }

    fn hand_back(&mut self) -> HandBack {
        self.check();
        HandBack::Yes
    }

    fn discard(self) {
        contain::drop_quietly(self);
    }
}

impl<T: Content> Drop for Probe<T> {
    fn drop(&mut self) {
        self.check();
        self.fate.drops.fetch_add(1, Ordering::Relaxed);
        if self.manners == Manners::PanicsWhenDropped && !std::thread::panicking() {
            panic_as_told();
        }
    }
}

/// Runs what may panic as it was told to.
fn politely<R>(f: impl FnOnce() -> R) -> Option<R> {
    contain::run(f).map_err(|payload| assert!(payload.is::<Boom>(), "{}", contain::message(&*payload))).ok()
}

/// Where a new closure goes.
#[derive(Clone, Copy)]
enum Way {
    Kept,
    /// In the heap, by a move.
    Boxed,
    /// Made in place in a worker's queue.
    Own,
    /// The same, by way of a job that was kept.
    MovedIn,
    /// Made in place, and taken out again unmade, as where the pool refuses it.
    Refused,
}

struct Kitchen {
    kept: VecDeque<Job<Fate>>,
    #[allow(clippy::vec_box)] // To have them moved there.
    boxed: Vec<Box<Job<Fate>>>,
    own: OwnEnd<Job<Fate>>,
    injector: Injector<Job<Fate>>,
    fates: Vec<Arc<Fate>>,
    /// How many ran.
    host: Fate,
}

type Make = fn(&mut Kitchen, u8, Manners, Way);

const SHAPES: &[Make] = &[
    Kitchen::make::<[u8; 0]>,
    Kitchen::make::<[u8; 1]>,
    Kitchen::make::<[u8; 6]>,
    Kitchen::make::<[u8; 7]>,
    Kitchen::make::<[u8; 14]>,
    Kitchen::make::<[u8; 15]>,
    Kitchen::make::<[u8; 22]>,
    Kitchen::make::<[u8; 23]>,
    Kitchen::make::<[u8; 100]>,
    Kitchen::make::<[u64; 1]>,
    Kitchen::make::<[u64; 2]>,
    Kitchen::make::<[u64; 3]>,
    Kitchen::make::<[u64; 500]>,
    Kitchen::make::<Vec<u8>>,
    Kitchen::make::<By2>,
    Kitchen::make::<By4>,
    Kitchen::make::<By8>,
    Kitchen::make::<By16>,
    Kitchen::make::<By32>,
    Kitchen::make::<By64>,
    Kitchen::make::<By256>,
];

impl Kitchen {
    fn new() -> Kitchen {
        let (injector, front) = Injector::new();
        Kitchen {
            kept: VecDeque::new(),
            boxed: Vec::new(),
            own: OwnEnd::new(&front, 0),
            injector,
            fates: Vec::new(),
            host: Fate::default(),
        }
    }

    fn make<T: Content>(&mut self, seed: u8, manners: Manners, way: Way) {
        let fate = Arc::new(Fate::default());
        self.fates.push(fate.clone());
        let work = Probe { content: T::new(seed), seed, manners, fate };
        if fits::<Probe<T>>() {
            self.put(work, way, Probe::check);
        } else {
            self.put(Box::new(work), way, |work| work.check());
        }
    }

    fn put<W: Work<Fate>>(&mut self, work: W, way: Way, check: fn(&W)) {
        let order = Order { work, location: Location::caller() };
        match way {
            Way::Kept => self.kept.push_back(Job::make(order)),
            Way::Boxed => self.boxed.push(Box::new(Job::make(order))),
            Way::Own => match self.own.push(order) {
                Pushed::Quietly | Pushed::WithBell => {}
                Pushed::Refused(order) => order.work.discard(),
            },
            Way::MovedIn => match self.own.push(Job::make(order)) {
                Pushed::Quietly | Pushed::WithBell => {}
                Pushed::Refused(job) => self.kept.push_back(job),
            },
            Way::Refused => {
                let mut place = MaybeUninit::<Job<Fate>>::uninit();
                // SAFETY: the place is valid for a write; what is made there is unmade once, and nobody else uses it.
                let order = unsafe {
                    order.make_in(place.as_mut_ptr());
                    <Order<W> as Draft<Job<Fate>>>::unmake(place.as_mut_ptr())
                };
                check(&order.work);
                order.work.discard();
            }
        }
    }

    fn op(&mut self, op: u8, next: &mut impl FnMut() -> u8) {
        match op % 16 {
            0..=6 => {
                let ways = [Way::Kept, Way::Boxed, Way::Own, Way::Own, Way::Own, Way::MovedIn, Way::Refused];
                let make = SHAPES[usize::from(next()) % SHAPES.len()];
                let manners =
                    [Manners::Good, Manners::PanicsWhenRun, Manners::PanicsWhenDropped, Manners::Good];
                make(self, next(), manners[usize::from(next()) % 4], ways[usize::from(op % 16)]);
            }
            7 => {
                if let Some(job) = self.kept.pop_front() {
                    politely(|| job.run(&self.host));
                }
            }
            8 => drop(self.kept.pop_back()),
            9 => {
                if let Some(mut job) = self.kept.pop_front() {
                    assert!(matches!(job.doom(), Doom::Silent));
                    drop(job);
                }
            }
            10 => {
                let job = self.kept.front_mut();
                assert!(job.map_or(true, |job| job.hand_back() == HandBack::Yes));
            }
            11..=12 => {
                politely(|| Job::run_next(&self.own, &self.host, |job| self.kept.push_back(job)));
            }
            13 => self.kept.extend(self.own.pop()),
            14 => {
                if let Some(job) = self.boxed.pop() {
                    assert_eq!(job.location().file(), file!());
                    self.kept.push_front(*job);
                }
            }
            _ => self.kept.rotate_left(usize::from(next()) % self.kept.len().max(1)),
        }
    }

    fn finish(self) {
        let Kitchen { kept, boxed, own, injector, fates, host } = self;
        drop((kept, boxed));
        drop((own, injector));
        let runs: u32 = fates.iter().map(|fate| fate.runs.load(Ordering::Relaxed)).sum();
        assert_eq!(runs, host.runs.into_inner());
        for fate in fates {
            assert_eq!(fate.drops.load(Ordering::Relaxed), 1, "dropped once");
            assert!(fate.runs.load(Ordering::Relaxed) <= 1, "run once");
            assert_eq!(Arc::strong_count(&fate), 1, "nothing of it is left");
        }
    }
}

/// Plays `input` to its end.
#[cfg_attr(not(fuzzing), allow(unreachable_pub))] // What fuzzes is another crate.
pub fn play(input: &[u8]) {
    let mut kitchen = Kitchen::new();
    let mut bytes = input.iter().copied();
    while let Some(op) = bytes.next() {
        kitchen.op(op, &mut || bytes.next().unwrap_or(0));
    }
    kitchen.finish();
}

#[cfg(test)]
mod tests {
    use super::play;
    use std::fs;
    use std::path::Path;

    #[test]
    fn closures_are_dropped_once_whatever_is_done_with_them() {
        let mut state = 1_u64;
        for length in (0..400).chain([5000]) {
            let random = |_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            };
            play(&(0..length).map(random).collect::<Vec<_>>());
        }
    }

    /// What the fuzzer has found to be worth keeping; published packages do not have it.
    #[test]
    fn the_corpus_of_the_fuzzer_plays() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/job");
        for file in fs::read_dir(corpus).into_iter().flatten() {
            play(&fs::read(file.unwrap().path()).unwrap());
        }
    }
}
