//! All promises at once: random programmes over several pools and registries. `WINDDOWN_SOUP=600` plays for so many seconds,
//! `WINDDOWN_SEED=4711` one programme, `WINDDOWN_INPUT=file` the one that is in a file, again and again where both are given.

mod common;
#[path = "soup/mod.rs"]
mod soup;

use std::panic::{catch_unwind, resume_unwind};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{env, fs};

/// How long fresh programmes are played, unless it is said.
const SHORT: Duration = Duration::from_secs(4);

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

/// Each play begins with [`tidy`](common::tidy), and so leaves nothing behind either.
fn play(bytes: &[u8], how: &str) {
    if let Err(payload) = catch_unwind(|| soup::play(bytes)) {
        eprintln!("to play it again: {how} cargo test --test soup random");
        resume_unwind(payload);
    }
}

fn play_seed(seed: u64) {
    play(&soup::bytes_of(seed), &format!("WINDDOWN_SEED={seed}"));
}

#[test]
fn random_programmes_keep_every_promise() {
    let time = number("WINDDOWN_SOUP").map(Duration::from_secs);
    let start = Instant::now();
    let again = || time.is_some_and(|time| start.elapsed() < time);
    if let Some(file) = env::var_os("WINDDOWN_INPUT") {
        let bytes = fs::read(&file).unwrap();
        play(&bytes, &format!("WINDDOWN_INPUT={}", file.to_string_lossy()));
        while again() {
            play(&bytes, &format!("WINDDOWN_INPUT={}", file.to_string_lossy()));
        }
        return;
    }
    if let Some(seed) = number("WINDDOWN_SEED") {
        play_seed(seed);
        while again() {
            play_seed(seed);
        }
        return;
    }
    let base = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let mut seeds = base..;
    while start.elapsed() < time.unwrap_or(SHORT) {
        play_seed(seeds.next().unwrap());
    }
    println!("{} programmes from {base} on", seeds.start - base);
}

#[test]
fn fixed_programmes_keep_every_promise() {
    (0..40).for_each(play_seed);
}
