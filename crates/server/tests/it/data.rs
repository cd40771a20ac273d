//! Data that nobody opens without an entry: real custodians, a real log, real witnesses.

mod cloud;
mod custody;
mod gateway;
mod ledger;
mod proxy;
mod retire;
mod scene;
mod stand;
mod stops;
mod through;
