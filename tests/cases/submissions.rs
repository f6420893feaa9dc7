use crate::{Case, Ended};
use std::cell::RefCell;
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;
use winddown::{JoinHandle, Pool};

pub const CASES: &[Case] = &[
    ("large_closures", large_closures),
    ("recursion_on_a_small_stack", || recursion(64 << 10)),
    ("recursion_on_a_large_stack", || recursion(64 << 20)),
    ("destructors_use_pools", destructors_use_pools),
    ("destructors_use_pools_at_exit", destructors_use_pools_at_exit),
    ("broken_pool_at_exit", broken_pool_at_exit),
];

/// A large closure goes every way on a stack that is larger still, as with `std::thread`; in a box, on a smaller one.
fn large_closures() -> Ended {
    const SIZE: usize = 1 << 20;
    type Boxed = Box<dyn FnOnce() + Send>;
    /// Tells the capture's last byte; the closure is as large as that.
    fn large(name: &'static str) -> impl FnOnce() + Send + 'static {
        let capture = [7_u8; SIZE];
        move || println!("{name}: {}", black_box(&capture)[SIZE - 1])
    }
    fn submit<F: FnOnce() + Send + 'static>(stack_size: usize, wrap: fn(&'static str) -> F) {
        let pool = Pool::builder().max_threads(1).stack_size(stack_size).build().expect("it is in order");
        let limit = pool.limit(1);
        pool.execute(wrap("execute")).expect("it is open");
        pool.spawn(wrap("spawn")).expect("it is open").join().expect("it does not panic");
        limit.execute(wrap("limit")).expect("it is open");
        let delayed = pool.spawn_after(Duration::ZERO, wrap("delay")).expect("it is open");
        delayed.join().expect("it does not panic");
        let task = wrap("scope");
        pool.scope(|s| drop(s.spawn(task)));
        pool.shutdown();
    }
    // A submitter hands its closure on by value, which takes place.
    let submitter = thread::Builder::new().stack_size(64 * SIZE).spawn(|| {
        submit(64 * SIZE, large);
        submit::<Boxed>(SIZE / 4, |name| Box::new(large(name)));
        // A map keeps its function aside.
        let capture = [7_u8; SIZE];
        let pool = Pool::builder().max_threads(1).stack_size(SIZE / 4).build().expect("it is in order");
        let mut lasts = pool.map(Some(SIZE - 1), move |n| black_box(&capture)[n]);
        println!("map: {}", lasts.next().expect("one item").expect("it does not panic"));
        pool.shutdown();
    });
    submitter?.join().expect("it does not panic");
    Ok(())
}

/// Needs some four mebibytes.
fn recursion(stack_size: usize) -> Ended {
    fn deep(left: usize) -> usize {
        let frame = black_box([left; 128]);
        match left {
            0 => 0,
            _ => deep(black_box(left - 1)) + black_box(&frame)[left % 128] / left,
        }
    }
    let pool = Pool::builder().max_threads(1).stack_size(stack_size).build()?;
    println!("deep: {}", pool.spawn(|| deep(4096))?.join()?);
    Ok(())
}

static ENDED: AtomicUsize = AtomicUsize::new(0);

/// Uses its pool when its thread ends, in every way that waits, and drops the pool's handle.
struct Last(&'static str, Pool);

impl Drop for Last {
    fn drop(&mut self) {
        let Last(name, pool) = self;
        let joined = pool.spawn(|| 7).expect("it is open").join().expect("it does not panic");
        let mut scoped = 0;
        pool.scope(|s| drop(s.spawn(|| scoped = 3)));
        let mapped: u32 = pool.map(1..4, |n| n).map(|result| result.expect("it does not panic")).sum();
        pool.execute(|| ()).expect("it is open");
        pool.wait_idle();
        assert!(Pool::current().is_none() && !winddown::task::is_cancelled());
        println!("{name}: {joined}, {scoped}, {mapped}");
        ENDED.fetch_add(1, SeqCst);
    }
}

thread_local!(static LAST: RefCell<Option<Last>> = const { RefCell::new(None) });

fn destructors_use_pools() -> Ended {
    fn keep(name: &'static str, pool: &Pool) {
        LAST.with_borrow_mut(|last| *last = Some(Last(name, pool.clone())));
    }
    fn used() -> Pool {
        let pool = Pool::new(2);
        pool.spawn(|| ()).expect("it is open").join().expect("it does not panic");
        pool
    }
    // Destructors run in the reverse order in which their values were made: here after, there before those of whatever this
    // crate keeps for the thread.
    thread::spawn(|| {
        LAST.with_borrow(|last| assert!(last.is_none()));
        keep("a thread, last", &used());
    })
    .join()
    .expect("it does not panic");
    thread::spawn(|| {
        let pool = used();
        keep("a thread, first", &pool);
    })
    .join()
    .expect("it does not panic");

    // A worker that expires: its pool is open, and others run what it waits for.
    let pool = Pool::builder().max_threads(2).keep_alive(Duration::ZERO).build()?;
    let of_worker = pool.clone();
    pool.spawn(move || keep("worker", &of_worker))?.join()?;
    while ENDED.load(SeqCst) < 3 {
        thread::yield_now();
    }
    keep("main", &pool);
    Ok(())
}

/// Uses what is over when its thread ends, which its pool keeps until the process does.
struct AtExit(Pool, Option<[JoinHandle<u32>; 2]>);

impl Drop for AtExit {
    fn drop(&mut self) {
        let AtExit(pool, handles) = self;
        let [done, cancelled] = handles.take().expect("it is dropped once");
        let refused = [
            pool.execute(|| ()).expect_err("it is closed").reason(),
            pool.spawn(|| ()).expect_err("it is closed").reason(),
            pool.try_execute(|| ()).expect_err("it is closed").reason(),
            pool.execute_timeout(|| (), Duration::MAX).expect_err("it is closed").reason(),
            pool.spawn_after(Duration::ZERO, || ()).expect_err("it is closed").reason(),
            winddown::execute(|| ()).expect_err("it is late").reason(),
            Pool::new(1).execute(|| ()).expect_err("it is late").reason(),
        ];
        pool.wait_idle();
        let mut scoped = 0;
        pool.scope(|s| drop(s.spawn(|| scoped = 3)));
        let mapped = pool.map(0..3, |n| n).filter(Result::is_ok).count();
        let is_over = pool.is_closed() && winddown::token().is_triggered() && Pool::current().is_none();
        let joined = (done.join().ok(), cancelled.join().is_err());
        println!("{refused:?}, {scoped}, {mapped}, {is_over}, {joined:?}");
    }
}

thread_local!(static AT_EXIT: RefCell<Option<AtExit>> = const { RefCell::new(None) });

fn destructors_use_pools_at_exit() -> Ended {
    let pool = Pool::builder().max_threads(1).keep_alive(Duration::MAX).build()?;
    let (give, take) = channel();
    pool.execute(move || {
        let at_exit = take.recv().expect("main sends it");
        AT_EXIT.with_borrow_mut(|slot| *slot = Some(at_exit));
    })?;
    let [done, cancelled] = [pool.spawn(|| 7)?, pool.spawn(|| 8)?];
    cancelled.cancel();
    give.send(AtExit(pool, Some([done, cancelled])))?;
    winddown::exit(0)
}

fn broken_pool_at_exit() -> Ended {
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let start = move || {
        let _ = wait.lock().map(|wait| wait.recv());
        panic!("no connection");
    };
    let pool = Pool::builder().max_threads(1).on_thread_start(start).build()?;
    let handles = [pool.spawn(|| ())?, pool.spawn(|| ())?, pool.spawn(|| ())?];
    drop(go);
    for handle in handles {
        println!("{:?}", handle.join().expect_err("it cannot run").kind());
    }
    println!("{:?}", pool.execute(|| ()).expect_err("it is broken").reason());
    if !cfg!(feature = "exit-hook") {
        winddown::shutdown();
    }
    Ok(())
}
