#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "tests"
)]

mod bench;
mod compare;
mod compare_elf;
mod compare_hostile;
mod compare_pack;
mod inputs;
mod poisoned;
mod products;
