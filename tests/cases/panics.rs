use super::hooks::print_report_at_exit;
use crate::{Case, Ended};
use std::process::exit;
use winddown::Pool;

pub const CASES: &[Case] = &[("all_tasks_panic_at_exit", all_tasks_panic)];

extern "C" fn print_totals() {
    let report = winddown::wait_finished();
    let totals = report.totals();
    println!("panicked: {}, completed: {}, clean: {}", totals.panicked, totals.completed, report.is_clean());
}

/// Fifty, every other with a handle that nobody holds.
fn all_tasks_panic() -> Ended {
    print_report_at_exit(print_totals);
    let pool = Pool::builder().name("mail").max_threads(2).build()?;
    for n in 0..50 {
        let task = move || {
            winddown::token().wait();
            println!("task {n}");
            panic!("no luck with {n}");
        };
        match n % 2 {
            0 => pool.execute(task)?,
            _ => drop(pool.spawn(task)?),
        }
    }
    exit(3)
}
