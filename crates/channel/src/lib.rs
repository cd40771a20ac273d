//! The channel: a static tree that carries releases, their evidence, status and policies.
//!
//! # In scope
//! Where things lie in the tree ([`layout`]), the list of a product's releases ([`Releases`]),
//! publishing into a folder under TUF metadata ([`Channel`]), what is new since then in one answer ([`News`]), and the
//! one-file form for machines without a network ([`write_export`], [`Export`]).
//!
//! # Out of scope
//! Serving the tree (any web server does), fetching from it (`agent`), and trust: TUF metadata is
//! transport and grants nothing; endpoints decide by the evidence in the bundles.
//!
//! # Invariants
//! - A release gets in only by an `Approved<Release>`, with artifacts that have its digests.
//! - Files are durable before anything names them; the timestamp is replaced last, so that a
//!   reader and a crash see the old state or the new.
//! - Files with a digest or version in their name never change; `metadata/timestamp.json` and
//!   `status/` are replaced in place.

mod error;
mod export;
pub mod layout;
mod news;
mod publish;
mod releases;
mod tree;

pub use error::Error;
pub use export::{Export, ExportError, ExportRequest, Member, write_export};
pub use news::{NEWS_BYTES_MAX, News, NewsError, Shown};
pub use publish::{Channel, Delegates, Keys, Lifetimes, Publication, Published, Signing};
pub use releases::{Listed, RELEASES_BYTES_MAX, Releases, ReleasesError};
