//! All promises at once: random programmes over several pools and registries. `WINDDOWN_SOUP=600` plays for so many seconds,
//! `WINDDOWN_SEED=4711` one programme, `WINDDOWN_INPUT=file` the one that is in a file, again and again where both are given.

mod common;
#[path = "soup/mod.rs"]
mod soup;

use common::{tidy, Tidy};
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{env, fs};

/// How long fresh programmes are played, unless it is said.
const SHORT: Duration = Duration::from_secs(4);

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

fn play(tidy: &Tidy, bytes: &[u8], how: &str) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| soup::play(bytes, tidy))) {
        eprintln!("to play it again: {how} cargo test --test soup random");
        resume_unwind(payload);
    }
}

fn play_file(tidy: &Tidy, file: &Path) {
    play(tidy, &fs::read(file).unwrap(), &format!("WINDDOWN_INPUT={}", file.display()));
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

fn play_seed(tidy: &Tidy, seed: u64) {
    play(tidy, &bytes_of(seed), &format!("WINDDOWN_SEED={seed}"));
}

#[test]
fn random_programmes_keep_every_promise() {
    let _tidy = tidy();
    let time = number("WINDDOWN_SOUP").map(Duration::from_secs);
    let start = Instant::now();
    let mut plays = 0;
    let mut goes_on = |least| {
        plays += 1;
        plays == 1 || start.elapsed() < time.unwrap_or(least)
    };
    if let Some(file) = env::var_os("WINDDOWN_INPUT") {
        while goes_on(Duration::ZERO) {
            play_file(&_tidy, Path::new(&file));
        }
    } else if let Some(seed) = number("WINDDOWN_SEED") {
        while goes_on(Duration::ZERO) {
            play_seed(&_tidy, seed);
        }
    } else {
        let base = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        let mut seeds = base..;
        while goes_on(SHORT) {
            play_seed(&_tidy, seeds.next().unwrap());
        }
        println!("{} programmes from {base} on", seeds.start - base);
    }
}

/// Seeds of programmes that hung once.
const FOUND: [u64; 2] = [1795774750982554022, 1795775243848558156];

#[test]
fn fixed_programmes_keep_every_promise() {
    let _tidy = tidy();
    (0..40).chain(FOUND).for_each(|seed| play_seed(&_tidy, seed));
}

/// What the fuzzer has found to be worth keeping; published packages do not have it.
#[test]
fn the_corpus_of_the_fuzzer_keeps_every_promise() {
    let _tidy = tidy();
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/soup");
    for file in fs::read_dir(corpus).into_iter().flatten() {
        play_file(&_tidy, &file.unwrap().path());
    }
}
