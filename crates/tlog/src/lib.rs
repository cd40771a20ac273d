//! Transparency logs as the C2SP specifications define them: signed notes, checkpoints,
//! cosignatures, tiles, proofs, policies, and what is said to a witness.
//!
//! # In scope
//! Parsing, writing, signing and verifying these formats, and the Merkle tree beneath them
//! (RFC 6962 with SHA-256). Our profile of each format is `docs/formats/tlog.md`.
//!
//! # Out of scope
//! Input and output, clocks, and any opinion on who is to be trusted. Signature types other than
//! Ed25519 notes (0x01) and Ed25519 cosignatures (0x04): their lines are unknown keys, ignored.
//!
//! # Invariants
//! - A text has one accepted form: whatever parses is written back byte for byte.
//! - A signature that is returned was verified by the key that made it; a weak public key never
//!   becomes a [`VerifierKey`].
//! - Nothing from outside panics, and every size from outside has a limit.
//! - An index, a size and a hash have different types, so that a proof can't be checked against
//!   the wrong one.

mod hash;
mod size;

mod name;

mod key;

mod note;

mod cosignature;

mod checkpoint;

mod proof;

mod frontier;

mod tile;

mod tree;

mod log_proof;

mod policy;

pub mod witness_protocol;

mod text;

pub use checkpoint::{Checkpoint, CheckpointError, SignedCheckpoint};
pub use cosignature::{Cosignature, CosignatureError, cosign, verify_cosignature};
pub use frontier::Frontier;
pub use hash::{Hash, HashError, empty_root, leaf_hash, node_hash};
pub use key::{KeyError, KeyKind, Signature, SignatureError, SignerKey, VerifierKey};
pub use log_proof::{LogProof, LogProofError, MAX_EXTRA_BYTES, MAX_LOG_PROOF_BYTES};
pub use name::{KeyId, KeyName, MAX_NAME_BYTES, NameError, Origin};
pub use note::{MAX_NOTE_BYTES, MAX_SIGNATURES, Note, NoteError, NoteSignature, VerifiedSignature};
pub use policy::{
    Cosigned, FlatQuorum, LogPolicy, MAX_POLICY_BYTES, MAX_POLICY_ENTRIES, PolicyError, PolicyLog, PolicyWitness,
};
pub use proof::{ConsistencyProof, Growth, InclusionProof, MAX_PROOF_HASHES, ProofError, Subtree, TreeHead};
pub use size::{EntryIndex, NumberError, TreeSize};
pub use tile::{
    EntryBundleId, MAX_BUNDLE_BYTES, MAX_ENTRY_BYTES, TILE_WIDTH, TileError, TileId, bundles_for_growth, decode_bundle,
    encode_bundle, tiles_for_growth,
};
pub use tree::{
    MissingTile, TileReader, TileSet, Tree, TreeEdge, TreeError, tiles_for_consistency, tiles_for_edge,
    tiles_for_inclusion, tiles_for_root,
};
