//! Nothing waits for the tasks, and nothing is lost.
//!
//! ```text
//! $ cargo run --example hello
//! main returns
//! the task that was running has ended
//! the task that was queued has run
//! ```

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = winddown::Pool::new(1);
    pool.execute(|| {
        std::thread::sleep(std::time::Duration::from_millis(500)); // Work that takes a while.
        println!("the task that was running has ended");
    })?;
    pool.execute(|| println!("the task that was queued has run"))?;
    println!("main returns");
    Ok(())
}
