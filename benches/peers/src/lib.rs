//! winddown side by side with other thread pools. `benches/compare.rs` says what is compared, and by which rules.
//!
//! ```text
//! contest         plays the scenes: processes, turns, medians
//! tables, floors  what is printed of a run
//! run             what a run has found, and its file
//! programme       the scenes: rounds and sizes
//! field, child    who takes part; one peer's process, from outside
//! - - - - - - - - in a peer's own process:
//! serve           reads requests and answers with figures
//! scenes          the scenes as one peer plays them
//! pools, peer     the peers behind one trait
//! task            tiny tasks, and how their end is noticed
//! ```

mod child;
mod contest;
pub mod field;
pub mod floors;
mod peer;
mod pools;
pub mod programme;
pub mod run;
mod scenes;
mod serve;
pub mod tables;
mod task;

pub use contest::{compare, Options};
pub use serve::serve;
