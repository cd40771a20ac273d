//! What long work tells while it goes on.

/// One step of long work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Upstream's index is asked.
    Resolving {
        /// Which: `debian`, `cargo`, `pypi`.
        index: &'static str,
        /// How many packages.
        packages: usize,
    },
    /// Objects are fetched.
    Fetching {
        /// From where: `debian`, `cargo`, `pypi`.
        index: &'static str,
        /// How many are not here yet.
        missing: usize,
    },
    /// A root file system is unpacked.
    Unpacking {
        /// Packages done.
        done: usize,
        /// Of so many.
        total: usize,
    },
    /// A root file system is hashed before it is used.
    Checking {
        /// Its digest.
        environment: stdx::Digest,
    },
    /// The build runs.
    Building {
        /// The product.
        product: String,
        /// Its version.
        version: String,
    },
    /// The build printed something.
    Printed {
        /// The piece; not necessarily a whole line.
        text: String,
    },
}

/// Hears of [`Event`]s. It must not block.
pub trait Progress: Sync {
    /// Something happened.
    fn event(&self, event: Event);
}

/// Hears nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn event(&self, _: Event) {}
}
