//! Tasks that borrow: each counts the words of one line of a text that stays where it is.
//!
//! ```text
//! $ cargo run --example scope
//! 4 the quick brown fox
//! 4 jumps over the lazy
//! 1 dog
//! 9 words
//! ```

fn main() -> Result<(), winddown::JoinError> {
    let pool = winddown::Pool::new(2);
    let text = String::from("the quick brown fox\njumps over the lazy\ndog");
    let words = pool.scope(|s| {
        let counts: Vec<_> = text.lines().map(|line| (line, s.spawn(|| line.split(' ').count()))).collect();
        let mut words = 0;
        for (line, count) in counts {
            let count = count.join()?;
            println!("{count} {line}");
            words += count;
        }
        Ok(words)
    })?; // every task has ended: nothing borrows from the text any more
    println!("{words} words");
    Ok(())
}
