// Through a scope that is over, tasks could be submitted that nobody waits for.

fn main() {
    let pool = winddown::Pool::new(1);
    let mut kept = None;
    pool.scope(|s| kept = Some(s));
    kept.unwrap().spawn(|| ());
}
