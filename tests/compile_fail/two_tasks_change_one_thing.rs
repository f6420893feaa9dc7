// Tasks of a scope run at the same time.

fn main() {
    let pool = winddown::Pool::new(1);
    let mut count = 0;
    pool.scope(|s| {
        s.spawn(|| count += 1);
        s.spawn(|| count += 1);
    });
}
