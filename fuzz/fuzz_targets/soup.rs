//! Operation soup, as `tests/soup.rs` plays it, with programmes that the fuzzer makes up.
#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../../tests/soup/mod.rs"]
mod soup;

use common::Tidy;
use libfuzzer_sys::fuzz_target;

thread_local! {
    static TIDY: Tidy = common::tidy();
}

fuzz_target!(
    init: {
        // The fuzzer's own ends the process at any panic, and tasks that panic are part of the programmes.
        drop(std::panic::take_hook());
    },
    |input: &[u8]| TIDY.with(|tidy| soup::play(input, tidy))
);
