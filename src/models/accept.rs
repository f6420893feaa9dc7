//! Accept against close: what is accepted settles, what is refused comes back.

use super::*;

/// Submits so many tasks; says how many were accepted. What is refused is dropped here, unrun.
fn submit(pool: &Pool, trace: &Trace, tasks: usize) -> usize {
    (0..tasks).filter(|_| pool.execute(trace.task()).is_ok()).count()
}

/// Two threads submit while a third does `close`. Where there was a task `before`, the pool has a thread, and so they need no
/// lock for it.
fn submit_against(max_threads: usize, before: usize, close: impl Fn(&Pool) + Send + Sync + Copy + 'static) {
    explore(move || {
        let (registry, pool) = pool(max_threads);
        let trace = Trace::default();
        assert_eq!(submit(&pool, &trace, before), before);
        let submitters = [(); 2].map(|()| {
            let (pool, trace) = (pool.clone(), trace.clone());
            thread::spawn(move || submit(&pool, &trace, 1))
        });
        close(&pool);
        // From here on none is.
        let accepted = pool.stats().accepted as usize;
        let told: usize = submitters.map(|submitter| submitter.join().unwrap()).iter().sum();
        assert_eq!(before + told, accepted);
        let report = pool.shutdown();
        let stats = report.stats();
        assert_adds_up(stats);
        assert_eq!(stats.accepted as usize, accepted);
        assert_eq!(stats.completed as usize, trace.ran());
        assert_eq!(trace.ran() + stats.cancelled as usize + stats.returned as usize, accepted);
        assert_eq!(stats.rejected as usize, before + 2 - accepted);
        drop(pool);
        assert!(registry.stats().is_empty());
        trace.assert_no_captures();
    });
}

#[test]
fn every_task_accepted_while_the_pool_closes_runs() {
    submit_against(1, 1, Pool::close);
    submit_against(2, 0, Pool::close);
}

#[test]
fn a_shutdown_waits_for_every_task_accepted_before_it() {
    let shut_down = |pool: &Pool| {
        let stats = pool.shutdown().stats().clone();
        assert_eq!(stats.queued + stats.running, 0);
        assert_eq!(stats.completed, stats.accepted);
        assert_eq!(stats.threads, 0);
    };
    submit_against(1, 1, shut_down);
    submit_against(2, 0, shut_down);
}

#[test]
fn what_shutdown_now_hands_back_is_what_no_thread_runs() {
    let hand_back = |pool: &Pool| {
        let (report, unstarted) = pool.shutdown_now();
        assert_eq!(report.stats().returned as usize, unstarted.len());
    };
    submit_against(1, 1, hand_back);
    submit_against(2, 0, hand_back);
}

#[test]
fn tasks_of_a_pool_that_closes_may_submit_to_it_until_it_is_empty() {
    explore(|| {
        let (_registry, pool) = pool(2);
        let trace = Trace::default();
        let submit = |pool: &Pool| {
            let (inner, trace) = (pool.clone(), trace.clone());
            move || {
                inner.execute(trace.task()).unwrap();
                trace.leave();
            }
        };
        let tasks = [submit(&pool), submit(&pool)];
        tasks.into_iter().for_each(|task| pool.execute(task).unwrap());
        pool.close();
        let stats = pool.shutdown().stats().clone();
        assert_eq!((trace.ran(), stats.completed, stats.panicked), (4, 4, 0));
        drop(pool);
        trace.assert_no_captures();
    });
}
