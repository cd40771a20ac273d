//! What is asked of `clerestory-scan`, the one program that parses rules and files of foreign
//! origin, and what it answers.
//!
//! # In scope
//! The messages between the scanner and who uses it, and [`Worker`]: a handle on a confined child
//! that assembles rules, loads them and scans with them, and that survives the child's end. The
//! documents about rules: the tree that they come from ([`RulesTree`]), what a bundle has
//! ([`Index`]) and finds ([`Report`]), which lane a release goes through ([`decide`]), what changes
//! ([`diff`]) and the way from one bundle to the next ([`Patch`]).
//!
//! # Out of scope
//! Parsing rules or files (crate `scanner`, which runs as another process), and what follows from
//! a match.
//!
//! # Invariants
//! - Nothing here interprets a byte of a rule or of a scanned file.
//! - The child gets descriptors, never paths that it could open.
//! - A file that was given is reported once, whatever happens to the child; what was not looked at
//!   is said, with the reason.
//! - What is decided of rules follows from documents alone, which have one encoding each.
//! - Every wait for the child, and all that it says, has a named limit.

mod rules;
mod worker;

pub use rules::{
    BUNDLE_BYTES_MAX, BUNDLE_FILE, BUNDLE_FORMAT, Behaviour, Cause, Changed, Collecting, Corpora, Cost, Decision, Diff,
    FILE_BYTES_MAX, Firing, HashesReport, INDEX_BYTES_MAX, INDEX_FILE, Index, IndexError, IndexHead, IndexedHashes,
    IndexedRule, KNOWN_GOOD_NAMED_MAX, MetaValue, Module, PATCH_BYTES_MAX, Patch, PatchError, Pin, REPORT_BYTES_MAX,
    RULE_BYTES_MAX, RULES_MAX, Reason, ReasonCode, Rejected, Report, Reports, Revision, RuleLimits, RulesTree,
    RulesTreeError, Run, SET_FILE, SETTINGS_FILE, Settings, SettingsError, Step, TREE_BYTES_MAX, TREE_FILES_MAX,
    decide, diff, hidden_character, parse_manifest, skeleton, visible,
};
pub use worker::{
    Answer, Assembled, Connection, Declared, FileReport, Isolation, Item, Limits, Listed, Loaded, Match, Note,
    NoteCode, Received, RejectedFile, Request, RulesFile, Scanned, SelfTest, StringHit, Unpacking, WireError, Worker,
    WorkerError, beside_this_program, decode_files, encode_files,
};
