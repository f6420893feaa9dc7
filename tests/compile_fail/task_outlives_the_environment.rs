// What a task borrows from outside lives as long as the scope, and not only as long as the call that submits the task.

use winddown::Scope;

fn submit<'scope>(s: &'scope Scope<'scope, '_>, text: &str) {
    s.spawn(move || println!("{text}"));
}

fn main() {
    winddown::Pool::new(1).scope(|s| submit(s, "text"));
}
