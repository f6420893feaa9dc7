//! What must not compile: programs that would have a borrowed task outlive its scope, or send what must not be sent.
//!
//! That they do not compile is checked with every compiler, by the doctests of `pool::scope`, which are made of the same files;
//! that they fail for the right reason is checked here, with the one whose messages are written beside them.

use std::process::Command;

/// Of which the messages are. `TRYBUILD=overwrite cargo test --test compile_fail` writes those of another.
const MESSAGES_OF: &str = "rustc 1.95.";

#[test]
fn borrowed_tasks_that_could_outlive_their_scope_do_not_compile() {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc).arg("--version").output().expect("rustc runs");
    let version = String::from_utf8_lossy(&version.stdout);
    if !version.starts_with(MESSAGES_OF) || version.contains("nightly") {
        eprintln!("the messages are those of {MESSAGES_OF}x and not compared with those of {version}");
        return;
    }
    trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
}
