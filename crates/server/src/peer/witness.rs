//! A witness over HTTP (C2SP tlog-witness v1.0.0, the client's side).

use std::sync::Arc;

use anyhow::Context as _;
use api::{BaseUrl, BodyLimit, Client, ClientError, ErrorClass};
use async_trait::async_trait;
use log::{WITNESS_TIMEOUT, Witness, WitnessError};
use tlog::witness_protocol::{AddCheckpoint, Cosignatures, LatestSize, SIZE_CONTENT_TYPE, origin_hash};
use tlog::{LogPolicy, MAX_NOTE_BYTES, NoteSignature, Origin, SignedCheckpoint, VerifierKey};

use crate::failure::Failure;
use crate::metrics::Counted;

/// A note, or lines of one.
const ANSWER_BYTES_MAX: BodyLimit = BodyLimit(MAX_NOTE_BYTES as u64);

/// A witness at a URL.
#[derive(Clone, Debug)]
pub struct HttpWitness {
    key: VerifierKey,
    url: BaseUrl,
    client: Client,
}

impl HttpWitness {
    /// The witness with this key at this submission prefix, which is its monitoring prefix too.
    #[must_use]
    pub fn new(key: VerifierKey, url: BaseUrl) -> Self {
        Self { key, url, client: Client::new(WITNESS_TIMEOUT) }
    }
}

/// Every witness of `policy`, where it says that they are.
///
/// # Errors
/// When one has no URL: a log must be able to ask all of them.
pub fn witnesses_of(policy: &LogPolicy) -> anyhow::Result<Vec<Arc<dyn Witness>>> {
    let witness = |witness: &tlog::PolicyWitness| {
        let url = witness.url.as_deref().ok_or_else(|| {
            Failure::refused(format!("the policy gives no URL for the witness `{}`", witness.name))
                .hint("write it behind the witness's key: `witness NAME VKEY URL`")
        })?;
        let url = url.parse().with_context(|| format!("the policy's URL for the witness `{}`", witness.name))?;
        let witness = Arc::new(HttpWitness::new(witness.key.clone(), url));
        Ok(Arc::new(Counted::new(witness)) as Arc<dyn Witness>)
    };
    policy.witnesses().iter().map(witness).collect()
}

#[async_trait]
impl Witness for HttpWitness {
    fn key(&self) -> &VerifierKey {
        &self.key
    }

    async fn add_checkpoint(&self, request: &AddCheckpoint) -> Result<Vec<NoteSignature>, WitnessError> {
        let (client, url, body) = (self.client.clone(), self.url.join("/add-checkpoint"), request.to_string());
        let posted = tokio::task::spawn_blocking(move || client.post(&url, body.as_bytes(), ANSWER_BYTES_MAX)).await;
        let answer = posted.map_err(|error| WitnessError::Silent(error.to_string()))?.map_err(refusal)?;
        let lines = Cosignatures::parse(answer).map_err(|error| WitnessError::Silent(error.to_string()))?;
        Ok(lines.into_lines())
    }

    async fn checkpoint(&self, origin: &Origin) -> Result<Option<SignedCheckpoint>, WitnessError> {
        let url = self.url.join(&format!("/{}/checkpoint", origin_hash(origin)));
        let client = self.client.clone();
        let found = tokio::task::spawn_blocking(move || client.find(&url, ANSWER_BYTES_MAX)).await;
        let found = found.map_err(|error| WitnessError::Silent(error.to_string()))?.map_err(refusal)?;
        let Some(bytes) = found else { return Ok(None) };
        SignedCheckpoint::parse(bytes).map(Some).map_err(|error| WitnessError::Silent(error.to_string()))
    }
}

/// What an error means, by the specification's statuses.
fn refusal(error: ClientError) -> WitnessError {
    match error {
        // Only a 409 of the specification's type, with a size and nothing else, says where to start
        // from; any other one is an alarm, like a proof that does not hold.
        ClientError::Status { status: 409, raw, .. } => match LatestSize::parse(&raw.bytes) {
            Ok(LatestSize(latest)) if raw.media_type == SIZE_CONTENT_TYPE => WitnessError::Stale { latest },
            _ => WitnessError::Inconsistent,
        },
        ClientError::Status { status: 422, .. } => WitnessError::Inconsistent,
        error if error.class() == ErrorClass::Rejected => WitnessError::Refused(error.to_string()),
        error => WitnessError::Silent(error.to_string()),
    }
}
