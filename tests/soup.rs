//! All promises at once: random programmes over several pools and registries. `WINDDOWN_SOUP=600` plays for so many seconds,
//! `WINDDOWN_SEED=4711` one programme, `WINDDOWN_INPUT=file` the one that is in a file, again and again where both are given.

mod common;
#[path = "soup/mod.rs"]
mod soup;

use std::panic::{catch_unwind, resume_unwind};
use std::path::Path;
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

/// As many bytes as make a programme of some dozens of tasks, the same for the same seed.
fn bytes_of(seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = move || {
        // SplitMix64.
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    };
    let length = 100 + next() as usize % 1500;
    (0..length).map(|_| next() as u8).collect()
}

fn play_seed(seed: u64) {
    play(&bytes_of(seed), &format!("WINDDOWN_SEED={seed}"));
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

/// What the fuzzer has found to be worth keeping; published packages do not have it.
#[test]
fn the_corpus_of_the_fuzzer_keeps_every_promise() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/soup");
    for file in fs::read_dir(corpus).into_iter().flatten() {
        let file = file.unwrap().path();
        play(&fs::read(&file).unwrap(), &format!("WINDDOWN_INPUT={}", file.display()));
    }
}
