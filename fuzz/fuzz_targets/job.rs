//! The inline cell of a closure, `src/queue/job.rs`: closures of all shapes, made in place, moved, run and dropped.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(
    init: {
        // The fuzzer's own ends the process at any panic, and closures that panic are part of the play.
        drop(std::panic::take_hook());
    },
    |input: &[u8]| winddown::fuzzing::job(input)
);
