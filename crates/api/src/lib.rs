//! What the domains say to each other over HTTP: requests, responses, error codes, and one client.
//!
//! # In scope
//! The JSON bodies, the paths they go to, the error body, and a blocking typed [`Client`] over a
//! [`Transport`], which is HTTP.
//!
//! # Out of scope
//! C2SP's own wire formats (`tlog`), TUF's (`tuf`), serving (`server`), and trust: nothing that
//! arrives here is believed; statements are verified by `verify`, content by its digest.
//!
//! # Invariants
//! - Every response is read up to a limit that the caller's request implies.
//! - A status code maps to exactly one [`ErrorClass`], and back.

mod client;
mod data;
mod error;
mod message;
mod transport;

pub use client::{BaseUrl, BodyLimit, Change, Client, ClientError, RawBody, UrlError, entity_tag};
pub use data::{
    CustodyState, DataApproval, DataQuery, DataRequest, DataRequestState, ErasureAnswer, ErasureNote, GrantAnswer,
    GrantRequest, GrantedShare, Made, OutcomeNote, Parameter, Parameters, Plan, PlanRequest, PlannedObject,
    PrivateParts, RESULT_FRAME_BYTES_MAX, RegionCustody, Replaced, ResultEnd, ResultFormat, ResultPiece, ResultReader,
    Rewrite, RunRequest, RunWorker, StatusNote, StreamEnd, VaultErased, VaultErasure, Worker, result_end, result_frame,
};
pub use error::{ErrorBody, ErrorClass, TOO_MUCH, TOO_MUCH_HINT};
pub use message::{
    Appended, Baked, DraftRequest, Health, RebuildRequest, RebuildState, ReleaseRequest, RulesRequest, RulesState, path,
};
pub use transport::{Answer, Body, MediaType, Request, Transport};
