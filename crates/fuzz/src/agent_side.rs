//! What the endpoint reads from its own disk: its owner's configuration and its memory.

use agent::Config;

use crate::Target;

pub(crate) const TARGETS: &[Target] = &[("agent-config", config), ("agent-state", agent::fuzzing::state)];

fn config(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Config::parse(text);
    }
}
