//! Plays one peer at one width; `cargo bench -p peers` starts it.

use std::io;
use std::process::ExitCode;

fn main() -> io::Result<ExitCode> {
    peers::serve(None)
}
