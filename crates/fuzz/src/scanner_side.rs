//! Containers, as `clerestory-scan` takes them apart.

use std::cell::Cell;
use std::ops::ControlFlow;

use detection::{Note, Unpacking};
use scanner::{Visitor, unpack};

use crate::Target;

pub(crate) const TARGETS: &[Target] = &[("unpack", containers)];

/// Small, so that every bound is met by small inputs, too.
fn limits() -> Unpacking {
    Unpacking {
        depth: 5,
        members: 500,
        member_bytes: 2 << 20,
        bytes: 8 << 20,
        held_bytes: 4 << 20,
        ratio: 50,
        free_bytes: 1 << 20,
        window_bytes: 4 << 20,
        notes: 20,
    }
}

/// What came out, and the bounds that it must keep.
#[derive(Default)]
struct Seen {
    members: u64,
    bytes: u64,
    notes: u64,
}

impl Visitor for Seen {
    fn member(&mut self, inside: &[String], bytes: &[u8]) -> ControlFlow<()> {
        let limits = limits();
        // What a document's stream holds is one level deeper than the stream.
        assert!((1..=limits.depth as usize + 1).contains(&inside.len()));
        assert!(inside.iter().all(|name| !name.is_empty() && !name.contains(['!', '\n', '\0'])));
        assert!(bytes.len() as u64 <= limits.member_bytes);
        self.members += 1;
        self.bytes += bytes.len() as u64;
        ControlFlow::Continue(())
    }

    fn note(&mut self, note: Note) {
        assert!(!note.message.is_empty());
        self.notes += 1;
    }
}

/// Every bound holds, and it ends within so many looks at the clock.
fn containers(bytes: &[u8]) {
    const LOOKS_MAX: u64 = 100_000;
    let limits = limits();
    let looks = Cell::new(0u64);
    let is_late = || {
        looks.set(looks.get() + 1);
        looks.get() > LOOKS_MAX
    };
    let mut seen = Seen::default();
    let totals = unpack("file", bytes, &limits, &is_late, &mut seen);
    assert_eq!((totals.members, totals.notes.min(limits.notes)), (seen.members, seen.notes));
    assert!(totals.members <= limits.members);
    let justified = limits.bytes.min(limits.justified(bytes.len() as u64));
    assert!(seen.bytes <= justified, "{} bytes, of {justified}", seen.bytes);
}
