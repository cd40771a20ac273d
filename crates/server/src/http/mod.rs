//! HTTP: one router for each thing that is served, merged per role.

pub(crate) mod custody;
pub(crate) mod data;
pub mod error;
pub mod forward;
pub(crate) mod gateway;
pub mod health;
pub(crate) mod ledger;
pub mod listener;
pub mod log;
pub(crate) mod news;
mod range;
pub(crate) mod relay;
pub mod stream;
pub mod supervisor;
pub mod tree;
pub mod vault;
pub mod witness;

mod server;
mod unread;

pub use server::{Stop, serve, stopped};
