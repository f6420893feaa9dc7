//! What only the inside can show: a worker stopped between its time-out and its end.

use super::*;
use crate::task::collect::Set;
use crate::Registry;
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::Mutex;
use std::time::Duration;

const NEVER: Duration = Duration::from_secs(60);

/// A worker that ran one task and whose keep-alive has then run out, held there.
struct Expiring {
    pool: Pool,
    timed_out: Receiver<()>,
    go_on: Sender<bool>,
}

impl Expiring {
    fn new() -> Expiring {
        let (timed, timed_out) = channel();
        let (go_on, go) = channel();
        let go = Mutex::new(go);
        let mut builder =
            Pool::builder().registry(&Registry::new()).max_threads(1).keep_alive(Duration::from_millis(1));
        builder.on_timeout =
            Some(Arc::new(move || timed.send(()).is_err() || go.lock().unwrap().recv().unwrap_or(true)));
        let pool = builder.build().unwrap();
        pool.execute(|| ()).unwrap();
        timed_out.recv_timeout(NEVER).unwrap();
        Expiring { pool, timed_out, go_on }
    }
}

/// The race of idle expiry against a submission, in the one order that could lose the task: the worker's time is up,
/// then the task is queued, then the worker goes on.
#[test]
fn an_expiring_worker_looks_again() {
    let Expiring { pool, timed_out: _timed_out, go_on } = Expiring::new();
    let handle = pool.spawn(|| 7).unwrap();
    go_on.send(true).unwrap();
    drop(go_on);
    assert_eq!(handle.join_timeout(NEVER).unwrap().unwrap(), 7);
    assert_eq!(pool.stats().peak_threads, 1);
}

/// The same with a worker that does not look again: it leaves the task behind. This is what the test above would see
/// if the look were missing, so that test can fail.
#[test]
fn an_expiring_worker_that_did_not_look_again_would_strand_a_task() {
    let Expiring { pool, timed_out: _timed_out, go_on } = Expiring::new();
    let stranded = pool.spawn(|| 7).unwrap();
    go_on.send(false).unwrap();
    // The worker's end is what the event tells; nobody is left to run the task.
    pool.core.registry.event().wait(|| deadline(NEVER), || pool.stats().threads == 0);
    assert_eq!(pool.stats().threads, 0);
    assert_eq!(pool.stats().queued, 1);
    assert!(!stranded.is_finished());
    // A later submission repairs this, and the pool can end.
    pool.spawn(|| ()).unwrap().join().unwrap();
    assert_eq!(stranded.join().unwrap(), 7);
}

/// Whoever prints a pool, a handle or a registry in a panic hook or a logger does so at any moment.
#[test]
fn what_prints_itself_takes_no_lock() {
    let registry = Registry::new();
    let pool = Pool::builder().registry(&registry).max_threads(1).build().unwrap();
    let limit = pool.limit(1);
    let ((go, wait), (started, has_started)) = (channel::<()>(), channel());
    let running = pool.spawn(move || {
        started.send(()).unwrap();
        wait.recv()
    });
    has_started.recv().unwrap();
    let queued = pool.spawn(|| ()).unwrap().cancel_on_drop();
    let canceller = running.as_ref().unwrap().canceller();
    let (token, hold, submission) = (registry.token(), registry.hold("a request"), pool.spawn_async(|| ()));
    let (shown, is_shown) = channel();
    let to_print = pool.clone();
    let _guard = pool.core.state.lock();
    let printer = std::thread::spawn(move || {
        let text = format!(
            "{to_print:?} {limit:?} {running:?} {queued:?} {canceller:?} {registry:?} {token:?} {hold:?} {submission:?}"
        );
        shown.send(text).unwrap();
        (queued, to_print, limit, running)
    });
    let text = is_shown.recv_timeout(NEVER).expect("it waits for no lock");
    for name in [
        "Pool {",
        "Limited",
        "JoinHandle",
        "CancelOnDrop",
        "Canceller",
        "Registry",
        "ShutdownToken",
        "SpawnAsync",
    ] {
        assert!(text.contains(name), "{name} in {text}");
    }
    drop((_guard, go));
    drop(printer.join().unwrap());
}

/// Tickets start over after four thousand million tasks, some of which may still be under way.
#[test]
fn a_set_whose_tickets_start_over_loses_nothing() {
    let registry = Registry::new();
    let pool = || Pool::builder().registry(&registry).max_threads(1).build().unwrap();
    let (busy, one) = (pool(), pool());
    let (go, wait) = channel::<()>();
    let kept = busy.spawn(move || wait.recv().map_or(100, |()| 0)).unwrap();
    let inner = one.clone();
    let task = one.spawn(move || {
        let mut set = Set::new();
        set.add(kept);
        set.skip_to_ticket(u32::MAX - 1);
        for n in 0..5 {
            // Queued behind this very task: it has to be run in place.
            set.add(inner.spawn(move || n).unwrap());
            assert_eq!(set.next().unwrap().unwrap(), n);
        }
        drop(go);
        let last = set.next().unwrap().unwrap();
        assert!(set.next().is_none());
        last
    });
    assert_eq!(task.unwrap().join_timeout(NEVER).unwrap().unwrap(), 100);
}
