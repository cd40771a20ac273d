//! Trees of rules, bundles, and what is decided of them.

mod decide;
mod diff;
mod git;
mod index;
mod patch;
mod report;
mod settings;
mod text;
mod tree;

pub use decide::{Decision, Reason, ReasonCode, decide};
pub use diff::{Changed, Collecting, Diff, Firing, Reports, diff};
pub use index::{
    BUNDLE_FILE, BUNDLE_FORMAT, Cause, Cost, INDEX_BYTES_MAX, INDEX_FILE, Index, IndexError, IndexHead, IndexedHashes,
    IndexedRule, MetaValue, Pin, Rejected, SET_FILE,
};
pub use patch::{PATCH_BYTES_MAX, Patch, PatchError, Step};
pub use report::{Behaviour, HashesReport, KNOWN_GOOD_NAMED_MAX, REPORT_BYTES_MAX, Report, Run};
pub use settings::{
    BUNDLE_BYTES_MAX, Corpora, FILE_BYTES_MAX, Module, RULE_BYTES_MAX, RULES_MAX, RuleLimits, SETTINGS_FILE, Settings,
    SettingsError,
};
pub use text::{hidden_character, skeleton, visible};
pub use tree::{Revision, RulesTree, RulesTreeError, TREE_BYTES_MAX, TREE_FILES_MAX, parse_manifest};
