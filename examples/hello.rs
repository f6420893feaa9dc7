//! Nothing waits for the task, and nothing is lost.
use winddown::Pool;
fn main() {
    let pool = Pool::new(2);
    for n in 1..=5 {
        let _ = pool.execute(move || {
            std::thread::sleep(std::time::Duration::from_millis(50));
            println!("task {n} done")
        });
    }
    println!("main returns");
}
