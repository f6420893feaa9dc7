// A result comes from another thread.

use std::rc::Rc;

fn main() {
    let pool = winddown::Pool::new(1);
    pool.scope(|s| {
        s.spawn(|| Rc::new(5));
    });
}
