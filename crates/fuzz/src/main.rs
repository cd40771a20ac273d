//! Every parser of foreign bytes, fed with anything. `CLERESTORY_FUZZ` names the target.
//!
//! Beyond "no panic": what is accepted is written back byte for byte where one form is canonical, and
//! is the same after another round where several are; memory stays within a bound that the size of the
//! input gives; where an independent implementation exists, both give the same answer; and no bytes but
//! the genuine ones are approved.
#![no_main]

mod agent_side;
mod assembly_side;
mod data_side;
mod edits;
mod evidence;
mod lookup_side;
mod memory;
mod metadata;
mod notes;
mod rules_side;
mod scanner_side;
mod statements;

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

/// A target: its name, which is its corpus folder's too, and what it does.
type Target = (&'static str, fn(&[u8]));

fn targets() -> Vec<Target> {
    [
        notes::TARGETS,
        statements::TARGETS,
        evidence::TARGETS,
        metadata::TARGETS,
        assembly_side::TARGETS,
        agent_side::TARGETS,
        scanner_side::TARGETS,
        lookup_side::TARGETS,
        rules_side::TARGETS,
        data_side::TARGETS,
    ]
    .concat()
}

static CHOSEN: OnceLock<fn(&[u8])> = OnceLock::new();

/// The target that `CLERESTORY_FUZZ` names; `list` prints all names.
fn choose() -> fn(&[u8]) {
    let name = std::env::var("CLERESTORY_FUZZ").unwrap_or_default();
    if name == "list" {
        targets().iter().for_each(|(name, _)| println!("{name}"));
        std::process::exit(0);
    }
    let found = targets().into_iter().find(|(target, _)| *target == name);
    let Some((_, target)) = found else {
        eprintln!("CLERESTORY_FUZZ names no target: `{name}`; `list` prints them");
        std::process::exit(2);
    };
    target
}

fuzz_target!(
    init: {
        CHOSEN.get_or_init(choose);
    },
    |bytes: &[u8]| {
        let target = CHOSEN.get_or_init(choose);
        memory::bounded(bytes.len(), || target(bytes));
    }
);
