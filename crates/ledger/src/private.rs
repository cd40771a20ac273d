//! What lies beside the log: openings of private fields, and which objects an intent names.

use std::collections::BTreeSet;
use std::sync::Arc;

use attest::{
    AccessApproval, AccessIntent, AccessRequest, AccessReview, Commitment, OPENING_BYTES_MAX, Opening, OpeningError,
};
use bytes::Bytes;
use policy::Role;
use stdx::Digest;
use storage::{Folder, Key, KeyError, Listing, ObjectStore};
use tlog::{TreeEdge, leaf_hash};
use verify::{Evidence, Recorded};

use crate::redaction::Redacting;

/// An intent names 4,096 objects at most, as `custody` has it.
const OBJECTS_MAX: usize = 4096;

/// A list of as many.
pub const OBJECT_LIST_BYTES_MAX: usize = 32 * OBJECTS_MAX;

/// Why private parts were not stored, or not found.
#[derive(Debug, thiserror::Error)]
pub enum PrivateError {
    /// The evidence does not hold.
    #[error(transparent)]
    Evidence(#[from] verify::Refusal),
    /// No statement that was brought commits to it.
    #[error("no statement that was brought commits to `{label}` as {commitment}")]
    Foreign {
        /// The field.
        label: String,
        /// The commitment.
        commitment: Commitment,
    },
    /// A statement commits to it, and nobody has brought it.
    #[error("nothing opens the statement's `{label}` ({commitment})")]
    Closed {
        /// The field.
        label: String,
        /// The commitment.
        commitment: Commitment,
    },
    /// It was deleted, for good.
    #[error("{0} was redacted")]
    Redacted(Commitment),
    /// The list is not the one that the intent names.
    #[error("the objects are not those that the intent names")]
    Objects,
    /// What is stored is not what was stored.
    #[error("`{0}` is damaged")]
    Damaged(Key),
    /// The store.
    #[error(transparent)]
    Store(#[from] storage::Error),
    /// The name of no object.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// Openings that were brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Brought {
    /// How many there are now.
    pub stored: usize,
}

/// The private parts that one holder has: the supervisor, a custodian, or a mirror.
#[derive(Clone)]
pub struct Private {
    store: Arc<dyn ObjectStore>,
}

impl Private {
    /// Those in `store`, which holds nothing else.
    #[must_use]
    pub fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self { store }
    }

    /// Stores openings of the statements in `evidence`. Whoever brings them need not be trusted: each opens what
    /// a recorded statement commits to. Durable when it returns; may be repeated.
    ///
    /// # Errors
    /// [`PrivateError`], before anything is stored unless it is the store's, or something was redacted.
    pub async fn bring(&self, evidence: &Evidence<'_>, openings: &[Opening]) -> Result<Brought, PrivateError> {
        let committed = committed(evidence)?;
        for opening in openings {
            let (label, commitment) = (opening.label().to_owned(), opening.commitment());
            if !committed.contains(&(label.clone(), commitment)) {
                return Err(PrivateError::Foreign { label, commitment });
            }
        }
        for opening in openings {
            self.keep(opening).await?;
        }
        Ok(Brought { stored: openings.len() })
    }

    /// Stores an opening for whoever has checked what it belongs to. What was redacted stays away, whoever brings
    /// it. Durable when it returns; may be repeated.
    ///
    /// # Errors
    /// [`PrivateError::Redacted`]; the store's.
    pub async fn keep(&self, opening: &Opening) -> Result<(), PrivateError> {
        let commitment = opening.commitment();
        let key = key("private", commitment.digest())?;
        self.check_redacted(&commitment).await?;
        self.store.put(&key, Bytes::from(opening.to_bytes())).await?;
        // Whoever redacts writes its mark first: one of the two sees the other.
        if let Err(redacted) = self.check_redacted(&commitment).await {
            self.store.delete(&key).await?;
            return Err(redacted);
        }
        Ok(())
    }

    /// Stores what opens `fields`, labels and commitments of statements that the caller has checked: `openings` are
    /// theirs, and what they leave out is here or was redacted. Durable when it returns; may be repeated.
    ///
    /// # Errors
    /// [`PrivateError::Foreign`], [`PrivateError::Closed`], before anything is stored; the store's.
    pub async fn keep_all(&self, fields: &[(&str, Commitment)], openings: &[Opening]) -> Result<(), PrivateError> {
        let opens = |it: &Opening, field: &(&str, Commitment)| it.label() == field.0 && it.commitment() == field.1;
        if let Some(foreign) = openings.iter().find(|it| !fields.iter().any(|field| opens(it, field))) {
            return Err(PrivateError::Foreign { label: foreign.label().to_owned(), commitment: foreign.commitment() });
        }
        let mut missing = Vec::new();
        for field in fields {
            let (label, commitment) = (field.0.to_owned(), field.1);
            if self.opening(&commitment).await?.is_some() || self.is_redacted(&commitment).await? {
                continue;
            }
            let opening = openings.iter().find(|it| opens(it, field));
            missing.push(opening.ok_or(PrivateError::Closed { label, commitment })?);
        }
        for opening in missing {
            self.keep(opening).await?;
        }
        Ok(())
    }

    /// What opens `commitment`, if it is here.
    ///
    /// # Errors
    /// [`PrivateError`].
    pub async fn opening(&self, commitment: &Commitment) -> Result<Option<Opening>, PrivateError> {
        let key = key("private", commitment.digest())?;
        let Some(bytes) = self.store.get(&key).await? else { return Ok(None) };
        let opening: Result<Opening, OpeningError> =
            if bytes.len() > OPENING_BYTES_MAX { Err(OpeningError::Form) } else { Opening::parse(&bytes) };
        match opening {
            Ok(opening) if opening.commitment() == *commitment => Ok(Some(opening)),
            _ => Err(PrivateError::Damaged(key)),
        }
    }

    /// Every commitment whose opening is here, in order, so many after `after`.
    ///
    /// # Errors
    /// [`PrivateError`].
    pub async fn list(&self, after: Option<&Commitment>, limit: usize) -> Result<Vec<Commitment>, PrivateError> {
        let mut listing = Listing::of(Folder::Below("private".parse()?));
        if let Some(after) = after {
            listing = listing.after(key("private", after.digest())?);
        }
        let mut found = Vec::new();
        loop {
            let page = self.store.list(&listing).await?;
            let Some(last) = page.last().cloned() else { return Ok(found) };
            for key in page {
                let name = key.as_str().rsplit('/').next().unwrap_or_default();
                found.push(name.parse().map_err(|_| PrivateError::Damaged(key.clone()))?);
                if found.len() == limit {
                    return Ok(found);
                }
            }
            listing = listing.after(last);
        }
    }

    /// Deletes what a redaction names, and takes it from nobody again. May be repeated.
    ///
    /// # Errors
    /// [`PrivateError`].
    pub async fn redact(&self, redacting: &Redacting) -> Result<(), PrivateError> {
        for commitment in redacting.fields() {
            let note = Bytes::from(format!("{}\n", redacting.redaction()));
            // The first redaction of several stays.
            match self.store.put(&key("redacted", commitment.digest())?, note).await {
                Ok(_) | Err(storage::Error::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            self.store.delete(&key("private", commitment.digest())?).await?;
        }
        Ok(())
    }

    /// Stores which objects an intent names: the SHA-256 of each header, in the order of the intent's tree.
    /// That is no secret; endpoints find theirs by it.
    ///
    /// # Errors
    /// [`PrivateError::Objects`] when they are others; the store's.
    pub async fn bring_objects(&self, intent: &Recorded<AccessIntent>, headers: &[Digest]) -> Result<(), PrivateError> {
        let root = object_list_root(headers).ok_or(PrivateError::Objects)?;
        if !intent.statement().subject.iter().any(|subject| subject.sha256() == root) {
            return Err(PrivateError::Objects);
        }
        self.keep_objects(headers).await
    }

    /// Stores the list for whoever has checked whose it is. May be repeated.
    ///
    /// # Errors
    /// [`PrivateError::Objects`] when there are none, or too many; the store's.
    pub async fn keep_objects(&self, headers: &[Digest]) -> Result<(), PrivateError> {
        let root = object_list_root(headers).ok_or(PrivateError::Objects)?;
        // One that is damaged is written anew.
        if matches!(self.objects(&root).await, Ok(Some(_))) {
            return Ok(());
        }
        let bytes: Vec<u8> = headers.iter().flat_map(|header| *header.as_bytes()).collect();
        self.store.put(&key("addenda", &root)?, bytes.into()).await?;
        Ok(())
    }

    /// The objects below `root`, if they are here.
    ///
    /// # Errors
    /// [`PrivateError`].
    pub async fn objects(&self, root: &Digest) -> Result<Option<Vec<Digest>>, PrivateError> {
        let key = key("addenda", root)?;
        let Some(bytes) = self.store.get(&key).await? else { return Ok(None) };
        parse_object_list(&bytes, root).map(Some).ok_or(PrivateError::Damaged(key))
    }

    async fn check_redacted(&self, commitment: &Commitment) -> Result<(), PrivateError> {
        if self.is_redacted(commitment).await? { Err(PrivateError::Redacted(*commitment)) } else { Ok(()) }
    }

    async fn is_redacted(&self, commitment: &Commitment) -> Result<bool, PrivateError> {
        Ok(self.store.get(&key("redacted", commitment.digest())?).await?.is_some())
    }
}

/// A list of objects as it is stored, if it is the one below `root`: 32 bytes each.
#[must_use]
pub fn parse_object_list(bytes: &[u8], root: &Digest) -> Option<Vec<Digest>> {
    let (headers, rest) = bytes.as_chunks::<32>();
    let headers: Vec<Digest> = headers.iter().map(|header| Digest::from_bytes(*header)).collect();
    (rest.is_empty() && object_list_root(&headers) == Some(*root)).then_some(headers)
}

/// The root of a Merkle tree (RFC 6962) over the SHA-256 of headers: what an intent names. `None` for none, or
/// for more than an intent can name.
#[must_use]
pub fn object_list_root(headers: &[Digest]) -> Option<Digest> {
    if headers.is_empty() || headers.len() > OBJECTS_MAX {
        return None;
    }
    let mut edge = TreeEdge::new();
    for header in headers {
        edge.append(&leaf_hash(header.as_bytes()), |_, _| {});
    }
    Some(Digest::from_bytes(*edge.head().root.as_bytes()))
}

/// Every private field of the access statements in a bundle.
fn committed(evidence: &Evidence<'_>) -> Result<BTreeSet<(String, Commitment)>, verify::Refusal> {
    let mut committed = BTreeSet::new();
    let mut add = |label: &str, commitment: Commitment| {
        committed.insert((label.to_owned(), commitment));
    };
    for request in evidence.all::<AccessRequest>(Role::Reader)? {
        let says = &request.statement().predicate;
        add("reader", says.reader);
        add("ticket", says.ticket);
    }
    for approval in evidence.all::<AccessApproval>(Role::Approver)? {
        add("comment", approval.statement().predicate.comment);
    }
    for intent in evidence.all::<AccessIntent>(Role::Gateway)? {
        let says = &intent.statement().predicate;
        let fields = [("reader", says.reader), ("parameters", says.parameters)];
        fields
            .into_iter()
            .filter_map(|(label, field)| Some((label, field?)))
            .for_each(|(label, field)| add(label, field));
    }
    for review in evidence.all::<AccessReview>(Role::Approver)? {
        let says = &review.statement().predicate;
        add("reviewer", says.reviewer);
        add("question", says.question);
    }
    Ok(committed)
}

/// C2SP tlog-addenda's layout: two folders of two digits.
fn key(folder: &str, digest: &Digest) -> Result<Key, KeyError> {
    let digest = digest.to_string();
    let (first, rest) = digest.split_at(2);
    let (second, _) = rest.split_at(2);
    format!("{folder}/{first}/{second}/{digest}").parse()
}
