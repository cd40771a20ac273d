//! A worker: runs a query over sealed objects, for which custodians have opened their shares.
//!
//! # In scope
//! What tables there are and what of them may leave ([`Table`]); which objects a query needs, before any key is
//! asked for ([`Planned`]); what a worker checks by itself before it reads ([`admit`]); reading sealed objects a
//! frame at a time ([`SealedStore`]); results in four formats within a budget; the worker's keys and its HTTP.
//! `docs/formats/worker.md` says it all.
//!
//! # Out of scope
//! Asking custodians, logging intents and outcomes, and who may ask for what (the gateway, in `server`).
//!
//! # Invariants
//! - Nothing is opened but the objects that a logged, witnessed intent names, for the query that its request
//!   names, once; of several workers each opens its own slice.
//! - Nothing goes from worker to worker but in sessions ([`seal::Hop`]) between those that one intent names, and while
//!   both hold it. A plan from another worker reads the slice of who runs it, by known steps, and nothing else.
//! - A query reads one table. It writes nothing, names no file, and what is not allowed to leave its class is
//!   refused before a key is asked for.
//! - No plaintext goes to a disk: nothing spills, and a process that dies leaves no core.
//! - A result that is not whole says so.

mod table;

mod egress;

mod ciphertext;

mod choose;

mod catalog;

mod grants;

mod store;

mod raw;

mod scan;

mod leaf;

mod engine;

mod spread;

mod hold;

mod wire;

mod ask;

mod answer;

mod give;

mod columns;

mod rewrite;

mod output;

mod admit;

mod policies;

mod worker;

mod http;

mod config;

mod confine;

pub use admit::{Admitted, Ask, Reader, Refused, admit};
pub use catalog::{CatalogError, Form, Located, Taken};
pub use ciphertext::{HttpVault, Place, Vault, VaultError};
pub use config::{Config, ConfigError, Listen};
pub use confine::{confine, program_digest};
pub use egress::EgressError;
pub use engine::{EngineError, Memory, Planned, Query, Running, Stop};
pub use grants::GrantFault;
pub use http::router;
pub use output::{Budgeted, Output, OutputError, TextMax};
pub use policies::PolicyError;
pub use store::{Opened, SealedStore};
pub use table::Table;
pub use worker::{Frames, Host, Ports, Worker, WorkerError, schema};
