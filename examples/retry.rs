//! Exponential backoff that holds no thread while it waits, and gives up cleanly when shutdown begins.
//!
//! ```text
//! $ cargo run --example retry
//! mail 1: attempt 1: the server is busy
//! mail 1: attempt 2: the server is busy
//! mail 1: sent at attempt 3
//! mail 2: attempt 1: no such address
//! mail 2: attempt 2: no such address
//! mail 2: given up: no such address
//! mail 3: attempt 1: the server is down
//! shutdown begins
//! mail 3: given up, as the program ends: the server is down
//! shutdown took less than a minute: clean
//! ```
//!
//! An attempt that fails submits the next one with [`Pool::spawn_after`]; [`backon`] says how long to wait. When the pool
//! closes, the delay is cancelled and its captures are dropped, the [`Retry`] among them, which tells whoever waits for the
//! answer. An attempt that runs at that moment ends, and finds that the next one is refused.

use backon::{BackoffBuilder, ExponentialBuilder};
use std::error::Error;
use std::fmt;
use std::process::ExitCode;
use std::sync::mpsc::{channel, Receiver, Sender};
use std::time::{Duration, Instant};
use winddown::Pool;

/// What comes of it.
enum Answer<T, E> {
    Done(T),
    /// Each of the attempts failed; the last one's error.
    GivenUp(E),
    /// The pool closed while there were attempts left; the last one's error, if there was any.
    Closed(Option<E>),
}

/// Attempts that are still to be made.
struct Retry<T, E> {
    attempt: Box<dyn FnMut() -> Result<T, E> + Send>,
    delays: Box<dyn Iterator<Item = Duration> + Send>,
    last: Option<E>,
    answer: Sender<Answer<T, E>>,
    is_answered: bool,
}

impl<T: Send + 'static, E: Send + 'static> Retry<T, E> {
    /// Makes one attempt, as a task of the pool, and puts off the next one if it fails.
    fn run(mut self) {
        match (self.attempt)() {
            Ok(value) => self.answer(Answer::Done(value)),
            Err(error) => match self.delays.next() {
                None => self.answer(Answer::GivenUp(error)),
                Some(delay) => {
                    self.last = Some(error);
                    let pool = Pool::current().expect("it runs as a task");
                    // Nobody joins it. Where it is refused, what is dropped here is the closure, which answers.
                    drop(pool.spawn_after(delay, move || self.run()));
                }
            },
        }
    }

    fn answer(mut self, answer: Answer<T, E>) {
        self.is_answered = true;
        // Where nobody waits for the answer any more, it is nobody's.
        let _ = self.answer.send(answer);
    }
}

impl<T, E> Drop for Retry<T, E> {
    fn drop(&mut self) {
        if !self.is_answered {
            let _ = self.answer.send(Answer::Closed(self.last.take()));
        }
    }
}

/// Has `pool` call `attempt` until it succeeds, with `delays` in between, for as long as there are any. There is always an
/// answer.
fn retry<T: Send + 'static, E: Send + 'static>(
    pool: &Pool,
    delays: impl BackoffBuilder<Backoff = impl Iterator<Item = Duration> + Send + 'static>,
    attempt: impl FnMut() -> Result<T, E> + Send + 'static,
) -> Receiver<Answer<T, E>> {
    let (answer, answered) = channel();
    let (attempt, delays) = (Box::new(attempt), Box::new(delays.build()));
    let retry = Retry { attempt, delays, last: None, answer, is_answered: false };
    // Refused, it answers, too.
    drop(pool.execute(move || retry.run()));
    answered
}

#[derive(Clone, Copy)]
struct SmtpError(&'static str);

impl fmt::Display for SmtpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// A server that fails so many times, and says each time why.
fn send(mail: u32, failures: u32, error: SmtpError) -> impl FnMut() -> Result<u32, SmtpError> {
    let mut attempts = 0;
    move || {
        attempts += 1;
        if attempts > failures {
            return Ok(attempts);
        }
        println!("mail {mail}: attempt {attempts}: {error}");
        Err(error)
    }
}

fn say(mail: u32, answer: Answer<u32, SmtpError>) {
    match answer {
        Answer::Done(attempts) => println!("mail {mail}: sent at attempt {attempts}"),
        Answer::GivenUp(error) => println!("mail {mail}: given up: {error}"),
        Answer::Closed(Some(error)) => println!("mail {mail}: given up, as the program ends: {error}"),
        Answer::Closed(None) => println!("mail {mail}: never tried, as the program ends"),
    }
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let pool = Pool::builder().name("mail").max_threads(2).build()?;
    // 10 ms, 20 ms, 40 ms and so on, each up to twice as long, so that many that failed together do not come back together.
    let soon = ExponentialBuilder::new().with_min_delay(Duration::from_millis(10)).with_jitter();

    say(1, retry(&pool, soon, send(1, 2, SmtpError("the server is busy"))).recv()?);
    say(2, retry(&pool, soon.with_max_times(1), send(2, 9, SmtpError("no such address"))).recv()?);

    let hours = ExponentialBuilder::new()
        .with_min_delay(Duration::from_secs(3600))
        .with_max_delay(Duration::from_secs(24 * 3600));
    let answered = retry(&pool, hours, send(3, 9, SmtpError("the server is down")));
    // Until the first attempt has failed, and nothing runs: the next one is an hour away.
    pool.wait_idle();

    println!("shutdown begins");
    let start = Instant::now();
    let report = winddown::shutdown();
    say(3, answered.recv()?);
    let minute = if start.elapsed() < Duration::from_secs(60) { "less" } else { "more" };
    let verdict = if report.is_clean() { "clean" } else { "not clean" };
    println!("shutdown took {minute} than a minute: {verdict}");
    Ok(ExitCode::from(&report))
}
