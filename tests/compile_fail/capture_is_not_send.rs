// A task runs on another thread.

use std::rc::Rc;

fn main() {
    let pool = winddown::Pool::new(1);
    let shared = Rc::new(5);
    pool.scope(|s| {
        s.spawn(|| println!("{shared}"));
    });
}
