//! Data that nobody opens without an entry: real custodians, a real log, real witnesses.

mod cloud;
mod columns;
mod compaction;
mod custody;
pub(crate) mod erase;
mod fire;
pub(crate) mod gateway;
mod ledger;
mod proxy;
mod relay;
mod retire;
pub(crate) mod scene;
mod search;
mod several;
mod stand;
mod stops;
mod superuser;
mod through;
mod token;
mod units;
