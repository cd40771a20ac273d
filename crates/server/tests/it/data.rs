//! Data that nobody opens without an entry: real custodians, a real log, real witnesses.

mod cloud;
mod columns;
mod compaction;
mod custody;
mod erase;
pub(crate) mod gateway;
mod ledger;
mod proxy;
mod retire;
pub(crate) mod scene;
mod stand;
mod stops;
mod through;
mod token;
mod units;
