//! What a worker checks by itself before it opens anything. Custodians check more, each for itself; a worker that
//! was fooled by its gateway alone would still read only what the log says.

use api::Parameters;
use attest::{
    AccessIntent, AccessRequest, Budget, Bundle, Opening, OrganisationId, Predicate, RegionId, StatementId, Subject,
    Workers,
};
use custody::objects_root;
use policy::{Residency, Role};
use seal::Header;
use stdx::{Digest, UnixTime};
use verify::{Evidence, Recorded, TrustedPolicy};

/// Why a worker does not read.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Not logged, not witnessed, not signed by whom it must be.
    #[error(transparent)]
    Evidence(#[from] verify::Refusal),
    /// The objects are not those of the intent.
    #[error(transparent)]
    Objects(#[from] custody::Refusal),
    /// The policy names no regions.
    #[error("the policy in force has no residency")]
    NoResidency,
    /// A statement that does not allow this.
    #[error("the {what} {id} {why}")]
    Unfit {
        /// Which.
        what: &'static str,
        /// Its identity.
        id: StatementId,
        /// Why.
        why: &'static str,
    },
    /// An object that the intent does not cover.
    #[error("object {0} is of another region, class or country than the intent")]
    Object(seal::BatchId),
    /// Values that are none.
    #[error("the values for the query can't be read")]
    Parameters,
    /// Writing anew without a request that stands for this code, or with rows or bytes to give out.
    #[error("the intent {0} does not allow to write anything anew: its request must stand, and give out nothing")]
    Rewriting(StatementId),
    /// Only one worker writes anything anew.
    #[error("the intent {0} names several workers, and what is written anew is written by one")]
    Several(StatementId),
    /// Others than the intent names.
    #[error("the intent {0} names other workers than came with it")]
    Workers(StatementId),
    /// Answered already.
    #[error("the intent {0} was used before")]
    Used(StatementId),
}

/// Who decides.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    /// The policy in force.
    pub policy: &'a TrustedPolicy,
    /// Where this worker is.
    pub region: &'a RegionId,
    /// SHA-256 of its program.
    pub code: Digest,
    /// The keys that it has now, by the SHA-256 of their text.
    pub keys: &'a [Digest],
    /// Its clock.
    pub now: UnixTime,
}

/// What a gateway brings.
#[derive(Clone, Copy)]
pub struct Ask<'a> {
    /// The bundle that the custodians got.
    pub evidence: &'a Bundle,
    /// The query.
    pub query: &'a str,
    /// Its values.
    pub parameters: Option<&'a Opening>,
    /// The headers of the objects, ascending by name.
    pub headers: &'a [Header],
}

/// What may be read. Only [`admit`] makes one.
#[derive(Debug)]
pub struct Admitted {
    pub(crate) intent: StatementId,
    /// This worker's key, and its place among the intent's workers.
    pub(crate) key: Digest,
    pub(crate) place: usize,
    pub(crate) workers: Workers,
    pub(crate) budget: Budget,
    pub(crate) expires: UnixTime,
    pub(crate) now: UnixTime,
    pub(crate) parameters: Parameters,
    /// What must come out, for a request that stands.
    pub(crate) schema: Option<Digest>,
}

/// Whether this worker reads what `ask` wants.
///
/// # Errors
/// [`Refused`], the first that is found.
pub fn admit(reader: &Reader<'_>, ask: &Ask<'_>) -> Result<Admitted, Refused> {
    let residency = reader.policy.policy().residency.as_ref().ok_or(Refused::NoResidency)?;
    let evidence = Evidence::open(reader.policy, ask.evidence)?;
    let now = reader.now.max(evidence.latest());
    let intent: Recorded<AccessIntent> = evidence.one(Role::Gateway)?;
    let request: Recorded<AccessRequest> = evidence.one(Role::Reader)?;
    in_log(&intent, residency)?;
    in_log(&request, residency)?;
    by(&intent, &residency.gateway)?;
    let (place, key) = check_intent(reader, &intent, now)?;
    let schema = check_request(reader, ask.query, &request, &intent)?;
    check_objects(ask.headers, &intent)?;
    let says = &intent.statement().predicate;
    Ok(Admitted {
        intent: intent.id(),
        key,
        place,
        workers: says.workers.clone(),
        budget: says.budget,
        expires: says.expires,
        now,
        parameters: parameters(ask.parameters, &intent)?,
        schema,
    })
}

/// Gives the worker's place, and the key that the intent names there.
fn check_intent(
    reader: &Reader<'_>,
    intent: &Recorded<AccessIntent>,
    now: UnixTime,
) -> Result<(usize, Digest), Refused> {
    let says = &intent.statement().predicate;
    let unfit = |why| Refused::Unfit { what: "intent", id: intent.id(), why };
    if says.policy != reader.policy.id() {
        return Err(unfit("was made under another policy than the one in force"));
    }
    if says.region != *reader.region {
        return Err(unfit("is for another region"));
    }
    let mut named = says.workers.keys().iter().copied().enumerate();
    let own = named.find(|(_, key)| reader.keys.contains(key));
    let own = own.ok_or_else(|| unfit("names another worker's key"))?;
    if now >= says.expires { Err(unfit("is over")) } else { Ok(own) }
}

/// Gives the schema that a standing request is bound to.
fn check_request(
    reader: &Reader<'_>,
    query: &str,
    request: &Recorded<AccessRequest>,
    intent: &Recorded<AccessIntent>,
) -> Result<Option<Digest>, Refused> {
    let (says, by) = (&request.statement().predicate, &intent.statement().predicate);
    let unfit = |why| Refused::Unfit { what: "request", id: request.id(), why };
    if by.request != request.id() {
        return Err(unfit("is not the one that the intent names"));
    }
    let digest = Digest::of(query.as_bytes());
    if request.statement().subject.iter().map(Subject::sha256).collect::<Vec<_>>() != [digest] {
        return Err(unfit("is for another query"));
    }
    if says.region != by.region || says.class != by.class {
        return Err(unfit("is for another region or class than the intent"));
    }
    if by.countries.iter().any(|country| !says.countries.contains(country)) {
        return Err(unfit("is for fewer countries than the intent"));
    }
    if !by.budget.is_within(&says.budget) {
        return Err(unfit("has a smaller budget than the intent"));
    }
    match &says.standing {
        Some(standing) if standing.code != reader.code => Err(unfit("stands for other code than this worker's")),
        Some(standing) => Ok(Some(standing.schema)),
        None => Ok(None),
    }
}

fn check_objects(headers: &[Header], intent: &Recorded<AccessIntent>) -> Result<(), Refused> {
    let says = &intent.statement().predicate;
    let unfit = |why| Refused::Unfit { what: "intent", id: intent.id(), why };
    let root = objects_root(headers)?;
    if intent.statement().subject.iter().map(Subject::sha256).collect::<Vec<_>>() != [root] {
        return Err(unfit("names other objects"));
    }
    if headers.len() as u64 != says.budget.objects {
        return Err(unfit("is for another number of objects"));
    }
    let covers = |header: &&Header| {
        let bound = &header.bound;
        bound.region == says.region && bound.class == says.class && says.countries.contains(&bound.country)
    };
    match headers.iter().find(|header| !covers(header)) {
        Some(other) => Err(Refused::Object(other.bound.id)),
        None => Ok(()),
    }
}

/// The values that the intent commits to, and no others.
fn parameters(opening: Option<&Opening>, intent: &Recorded<AccessIntent>) -> Result<Parameters, Refused> {
    let committed = intent.statement().predicate.parameters;
    if opening.map(Opening::commitment) != committed {
        return Err(Refused::Unfit { what: "intent", id: intent.id(), why: "commits to other values for the query" });
    }
    let Some(opening) = opening else { return Ok(Parameters::new()) };
    let values: Parameters = serde_json::from_str(opening.value()).map_err(|_| Refused::Parameters)?;
    let again = serde_json::to_string(&values).map_err(|_| Refused::Parameters)?;
    if again == opening.value() { Ok(values) } else { Err(Refused::Parameters) }
}

fn in_log<P: Predicate>(recorded: &Recorded<P>, residency: &Residency) -> Result<(), Refused> {
    if *recorded.checkpoint().origin() == residency.log {
        return Ok(());
    }
    let (id, expected) = (recorded.id(), residency.log.to_string());
    Err(verify::Refusal::WrongLog { id, expected, found: recorded.checkpoint().origin().clone() }.into())
}

fn by<P: Predicate>(recorded: &Recorded<P>, organisation: &OrganisationId) -> Result<(), Refused> {
    if recorded.signers().iter().any(|signer| signer.organisation == *organisation) {
        return Ok(());
    }
    Err(verify::Refusal::NotSigned { id: recorded.id(), role: Role::Gateway }.into())
}
