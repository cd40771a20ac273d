//! Turns a recipe and a source into artifacts, with a record of everything that went in.
//!
//! # In scope
//! Recipes and locks, sources as canonical trees, inputs by digest from upstream's own index,
//! content-addressed root file systems, builds and rebuilds in the sandbox, SBOMs, and results of
//! builders elsewhere.
//!
//! # Out of scope
//! Signing, logging and deciding: a [`BuildRecord`] is plain data, and whoever signs it is responsible.
//!
//! # Invariants
//! - Nothing is built from what was not resolved in upstream's index by this depot itself.
//! - No program of a product runs outside the sandbox, and none with a network.
//! - Nothing of the machine's configuration is changed.

mod archive;
mod build;
pub mod compare;
mod conditions;
mod content;
mod environment;
mod foreign;
mod inputs;
mod lock;
mod progress;
mod recipe;
mod record;
mod sbom;
mod source;
mod tool;
mod vendor;

pub use attest::tree::{Links, MANIFEST_BYTES_MAX, Mode, Node, Tree, TreeError, TreePath};
pub use build::{BuildError, Builder, FailedBuild};
pub use conditions::{Conditions, Listing, ShimError};
pub use content::{ContentError, ContentStore, Object};
pub use environment::{Environment, EnvironmentError, Origin};
pub use foreign::{ForeignBuild, ForeignError, KnownBuilder};
pub use inputs::{
    Asking, Checkout, Depot, Fetched, InputsError, Kind, Pinned, Resolved, ResolvedItem, Sdist, Transport, pin,
};
pub use lock::{LOCK_FILE, Lock, LockError, LockedCrate, LockedFile, LockedPackage, LockedWheel, parse_cargo_lock};
pub use progress::{Event, Progress, Silent};
pub use recipe::{
    BuildSpec, EnvironmentSpec, InputsSpec, LimitsSpec, OutputSpec, PackageName, Product, ProductId, Publisher,
    RECIPE_FILE, Recipe, RecipeError, SourceSpec, Version, WheelPin,
};
pub use record::{Agreed, Artifact, BuildRecord, Isolated, Made, RecordError, inputs_digest};
pub use sbom::{SbomError, sbom};
pub use source::{GitOrigin, GitRevision, Order, Source, SourceError, capture_folder, write_tar};
pub use tool::ToolError;

/// Doors for `crates/fuzz` to parsers that no caller needs.
#[cfg(fuzzing)]
pub mod fuzzing {
    /// Reads what apt prints.
    pub fn apt_answer(text: &str) {
        crate::inputs::apt_answer(text);
    }
}
