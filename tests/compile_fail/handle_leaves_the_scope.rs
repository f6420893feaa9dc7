// Outside of the scope a handle could give a result that borrows what is gone.

fn main() {
    let pool = winddown::Pool::new(1);
    let handle = pool.scope(|s| s.spawn(|| 5));
    handle.join().unwrap();
}
