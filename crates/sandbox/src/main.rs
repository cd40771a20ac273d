//! The stages of the sandbox, each a fresh start of this program.

fn main() {}
