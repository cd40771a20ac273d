//! What readers and approvers have in common: who they are, where the gateway is, and their next place in the log.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use api::{BaseUrl, BodyLimit, Client, ClientError, DataRequestState, StreamEnd, path};
use attest::{
    AccessCall, AccessRequest, Commitment, Envelope, Opening, Position, PrivateField, Statement, StatementId,
};
use clap::Args;
use policy::Role;
use serde::Serialize;
use serde::de::DeserializeOwned;
use stdx::{Clock as _, Digest, Entropy as _, SystemClock, SystemEntropy};
use tlog::{Origin, SignerKey};
use verify::TrustedPolicy;

use crate::command::check_config::load_policy;
use crate::config::Config;
use crate::failure::Failure;
use crate::key_file;

/// A query, a dozen envelopes and openings, escaped.
const ANSWER_BYTES_MAX: BodyLimit = BodyLimit(16 << 20);
const END_BYTES_MAX: BodyLimit = BodyLimit(4096);
/// Waiting for the witnesses, and for custodians.
const PATIENCE: Duration = Duration::from_secs(60);
/// Others write to the same stream; each try is a few milliseconds.
const ATTEMPTS_MAX: usize = 16;

/// Arguments of whoever talks to the gateway.
#[derive(Debug, Args)]
pub(super) struct Common {
    /// Your organisation's configuration: who it is in the policy, and where that is
    #[arg(long, value_name = "FILE")]
    pub(super) config: PathBuf,
    /// Your key
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
}

/// Somebody with a key, and the gateway.
pub(crate) struct Asker {
    pub(crate) policy: Arc<TrustedPolicy>,
    pub(crate) key: SignerKey,
    organisation: attest::OrganisationId,
    log: Origin,
    url: BaseUrl,
    client: Client,
}

impl Asker {
    pub(super) fn open(common: &Common, role: Role) -> anyhow::Result<Self> {
        Self::of(&Config::load(&common.config)?, &common.key, role)
    }

    /// Somebody whom the policy gives a key in `role`.
    pub(crate) fn of(config: &Config, key: &Path, role: Role) -> anyhow::Result<Self> {
        let section = config.policy().ok_or_else(|| Failure::usage(format!("a {} has no policy", config.role())))?;
        let policy = Arc::new(load_policy(section)?);
        let residency = policy.policy().residency.as_ref().ok_or_else(|| {
            Failure::refused("the policy in force says nothing of data").hint("it needs a section `[residency]`")
        })?;
        let log = residency.log.clone();
        let logs = policy.witnessing().logs();
        let url = logs.iter().find(|it| log.is(it.key.name())).and_then(|it| it.url.clone());
        let url = url.with_context(|| format!("the policy gives no URL for log `{log}`"))?.parse()?;
        let path = key;
        let key = key_file::load(path)?;
        let holder = policy.policy().keys_of(role).find(|(_, it)| *it == key.verifier());
        let organisation = holder.map(|(organisation, _)| organisation.clone()).ok_or_else(|| {
            Failure::refused(format!("the policy names no `{role}` key like `{}`", path.display()))
                .hint(format!("a policy must list its public half under your organisation, as `{role}`"))
        })?;
        Ok(Self { policy, key, organisation, log, url, client: Client::new(PATIENCE) })
    }

    /// Has `make` sign for the next place in the organisation's stream, and brings it to the gateway.
    pub(crate) fn bring<T: Serialize>(
        &self,
        path: &str,
        mut make: impl FnMut(Position) -> anyhow::Result<T>,
    ) -> anyhow::Result<DataRequestState> {
        let stream = format!("data/{}", self.organisation);
        for _ in 0..ATTEMPTS_MAX {
            let end = self.url.join(&format!("{}/{stream}", path::STREAMS));
            let end: StreamEnd = self.client.post_json(&end, &(), END_BYTES_MAX)?;
            let (epoch, sequence, previous) =
                end.last.map_or((0, 0, None), |(at, id)| (at.epoch, at.sequence + 1, Some(id)));
            let (log, time) = (self.log.clone(), SystemClock::new().now());
            let position = Position { log, stream: stream.parse()?, epoch, sequence, previous, time };
            match self.client.post_json(&self.url.join(path), &make(position)?, ANSWER_BYTES_MAX) {
                Err(ClientError::Status { body, .. }) if body.code == "entry-position" => {}
                answer => return Ok(answer?),
            }
        }
        Err(Failure::unavailable(format!("others write to `{stream}` all the time")).hint("try again").into())
    }

    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        Ok(self.client.get_json(&self.url.join(path), ANSWER_BYTES_MAX)?)
    }

    /// A request with its private parts, as far as the gateway shows them to the holder of this key.
    pub(crate) fn request(&self, id: StatementId) -> anyhow::Result<(DataRequestState, Statement<AccessRequest>)> {
        let plain: DataRequestState = self.get(&format!("{}/{id}", path::DATA_REQUESTS))?;
        let statement = statement(&plain, id)?;
        let call = self.call(&statement, id, statement.predicate.reader, None)?;
        let url = self.url.join(&format!("{}/{id}", path::DATA_REQUESTS));
        let answer = self.client.post(&url, &call.to_bytes(), ANSWER_BYTES_MAX)?;
        let state: DataRequestState = serde_json::from_slice(&answer).context("the gateway's answer can't be read")?;
        let private = state.private.as_ref().context("the gateway did not show the query")?;
        let named = statement.subject.first().map(attest::Subject::sha256);
        if named != Some(Digest::of(private.query.as_bytes())) {
            return Err(Failure::refused("the gateway shows another query than the request is about").into());
        }
        let openings = private.request.iter().map(Opening::commitment).collect::<Vec<_>>();
        let says = &statement.predicate;
        if openings.iter().any(|it| *it != says.reader && *it != says.ticket) {
            return Err(Failure::refused("the gateway shows another reader or ticket than the request has").into());
        }
        Ok((state, statement))
    }

    /// The request as it stands in the log, without its private parts.
    pub(crate) fn public(&self, id: StatementId) -> anyhow::Result<(DataRequestState, Statement<AccessRequest>)> {
        let state: DataRequestState = self.get(&format!("{}/{id}", path::DATA_REQUESTS))?;
        let statement = statement(&state, id)?;
        Ok((state, statement))
    }

    /// "It is me, now."
    pub(crate) fn call(
        &self,
        of: &Statement<AccessRequest>,
        request: StatementId,
        reader: Commitment,
        parameters: Option<Commitment>,
    ) -> anyhow::Result<Envelope> {
        let mut nonce = [0; 32];
        SystemEntropy.fill(&mut nonce)?;
        let (time, nonce) = (SystemClock::new().now(), Digest::from_bytes(nonce));
        let predicate = AccessCall { request, reader, parameters, time, nonce };
        let statement = Statement { subject: of.subject.clone(), predicate };
        Ok(Envelope::sign(statement.encode()?, &[&self.key])?)
    }

    /// Runs a query; what comes is its result stream.
    pub(crate) fn query(&self, query: &api::DataQuery, patience: Duration) -> anyhow::Result<Box<dyn std::io::Read>> {
        let client = self.client.with_timeout(patience);
        Ok(client.post_open(&self.url.join(path::DATA_QUERIES), query)?)
    }
}

/// What the request says: the one that the id is of, whatever the gateway says.
fn statement(state: &DataRequestState, id: StatementId) -> anyhow::Result<Statement<AccessRequest>> {
    let envelope = Envelope::parse(state.envelope.as_bytes()).context("the gateway's request can't be read")?;
    if envelope.id() != id {
        return Err(Failure::refused(format!("the gateway shows another request than {id}")).into());
    }
    Ok(Statement::decode(envelope.payload())?)
}

/// A private field, with a key of its own.
pub(crate) fn private(label: &str, value: &str) -> anyhow::Result<Opening> {
    let field = PrivateField { label, value };
    Opening::new(field, &SystemEntropy).with_context(|| format!("`{label}` can't be kept in private"))
}

pub(crate) fn text(envelope: &Envelope) -> anyhow::Result<String> {
    Ok(String::from_utf8(envelope.to_bytes())?)
}
