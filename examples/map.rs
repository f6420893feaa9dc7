//! Results in order, from an input without end: it is read just as far ahead as there are tasks under way.
//!
//! ```text
//! $ cargo run --example map
//! 7 is prime
//! 11 is prime
//! 13 is prime
//! the input was read up to 18
//! ```

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = winddown::Pool::new(2);
    let read = Arc::new(AtomicU64::new(0));
    let last = read.clone();
    let numbers = (7..).inspect(move |n| last.store(*n, Ordering::Relaxed));
    let is_prime = |n: u64| (2..n).all(|divisor| n % divisor != 0).then_some(n);

    // Tasks that are queued when the loop is left are cancelled.
    let mut primes = 0;
    for result in pool.map_with_lookahead(numbers, 6, is_prime) {
        // An error would be a panic in `is_prime`, or a pool that was closed.
        if let Some(prime) = result? {
            println!("{prime} is prime");
            primes += 1;
        }
        if primes == 3 {
            break;
        }
    }
    println!("the input was read up to {}", read.load(Ordering::Relaxed));
    Ok(())
}
