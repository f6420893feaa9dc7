// A scope ends after its closure, and with it what the closure owns.

fn main() {
    let pool = winddown::Pool::new(1);
    pool.scope(|s| {
        let local = 5;
        s.spawn(|| println!("{local}"));
    });
}
