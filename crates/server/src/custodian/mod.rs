//! A custodian as a process: its keys, its ledger of each region, its reports.

mod erase;
mod keys;
mod probe;
mod report;
mod retire;
mod status;
mod token;

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use api::{CustodyState, GrantRequest, RegionCustody};
use attest::{AccessIntent, Bundle, Envelope, Opening, OrganisationId, RegionId, Statement, WORKERS_MAX};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use custody::{Ask, Custodian, Grant, GrantError, Ledger, LedgerError, OBJECTS_MAX, Refusal, conclude, decide};
use ledger::{Private, PrivateError};
use seal::Header;
use stdx::{Digest, SystemEntropy};
use tlog::SignerKey;
use tokio::task::JoinError;

pub(crate) use keys::KeyRing;
pub(crate) use probe::CustodyProbe;
pub(crate) use retire::Destroyed;
use status::StatusSource;

use crate::config::{Config, CustodianConfig};
use crate::domain::Domain;
use crate::failure::Failure;
use crate::key_file;
use crate::stores::{self, Access, State};

/// A custodian.
pub(crate) struct Desk {
    domain: Domain,
    config: CustodianConfig,
    signer: SignerKey,
    keys: Arc<KeyRing>,
    regions: BTreeMap<RegionId, (Ledger, StatusSource)>,
    /// What the statements say that it has seen: whoever reads is known here before a key is used.
    private: Private,
}

/// Why nothing was opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeskError {
    /// What came can't be read.
    #[error("{0}")]
    Form(String),
    /// What came does not suffice.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// What is stopped now is not known.
    #[error("nothing is opened without the region's newest status, and it can't be had: {0}")]
    Status(String),
    /// It can't be noted.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// It is not known who reads, or what for.
    #[error(transparent)]
    Private(#[from] PrivateError),
    /// It may be opened, and can't.
    #[error(transparent)]
    Grant(#[from] GrantError),
    /// It can't be erased now.
    #[error("nothing is promised, repeat it: {0}")]
    Erasure(String),
    /// A thread of this process has ended.
    #[error(transparent)]
    Thread(#[from] JoinError),
    /// What others were told who waited for the same answer.
    #[error(transparent)]
    Same(Arc<DeskError>),
}

fn form(what: &str, error: &dyn std::fmt::Display) -> DeskError {
    DeskError::Form(format!("{what}: {error}"))
}

/// What a gateway brings, read and not yet believed.
struct Brought {
    evidence: Bundle,
    workers: Vec<Envelope>,
    headers: Vec<Header>,
    openings: Vec<Opening>,
    region: RegionId,
}

impl Brought {
    fn read(request: &GrantRequest) -> Result<Self, DeskError> {
        if request.headers.len() > OBJECTS_MAX {
            return Err(DeskError::Form(format!("{} headers; at most {OBJECTS_MAX}", request.headers.len())));
        }
        let evidence = Bundle::parse(request.evidence.as_bytes()).map_err(|error| form("`evidence`", &error))?;
        if request.workers.len() > WORKERS_MAX {
            return Err(DeskError::Form(format!("{} workers; at most {WORKERS_MAX}", request.workers.len())));
        }
        let workers = request.workers.iter().map(|text| Envelope::parse(text.as_bytes()));
        let workers = workers.collect::<Result<_, _>>().map_err(|error| form("`workers`", &error))?;
        let header = |text: &String| {
            let bytes = STANDARD.decode(text).map_err(|error| form("`headers`", &error))?;
            Header::decode(&bytes).map_err(|error| form("`headers`", &error))
        };
        let headers = request.headers.iter().map(header).collect::<Result<_, _>>()?;
        // Only to find the ledger: `decide` checks that the intent is one, and of this region.
        let mut entries = evidence.entries().iter().map(|entry| &entry.envelope);
        let intent = entries.find_map(|it| Statement::<AccessIntent>::decode(it.payload()).ok());
        let intent = intent.ok_or_else(|| DeskError::Form("`evidence`: holds no `access-intent`".to_owned()))?;
        let region = intent.predicate.region;
        Ok(Self { evidence, workers, headers, openings: request.openings.clone(), region })
    }
}

impl Desk {
    /// Opens what `config` names, over this state, which the caller closes.
    ///
    /// # Errors
    /// When the policy is not trusted, does not name this custodian, or a key can't be read.
    pub(crate) async fn over(config: &Config, state: &State, access: Access) -> anyhow::Result<Arc<Self>> {
        let Config::Custodian(section) = config else {
            return Err(Failure::usage("only a custodian can do this")
                .hint("name the custodian's configuration")
                .into());
        };
        let domain = Domain::over(config, state).await?;
        let regions = regions_of(&domain);
        if regions.is_empty() {
            let who = &domain.organisation;
            return Err(Failure::refused(format!("`{who}` is no custodian by the policy in force"))
                .hint("compare `organisation` with the policy's `[[residency.regions.custodians]]`")
                .into());
        }
        let log = domain.policy.policy().residency.as_ref().map(|it| domain.log_url(&it.log)).transpose()?;
        let log = log.context("a policy with regions has a log for them")?;
        let with_parts = |region: RegionId| {
            let status = StatusSource::new(&log, &region, &domain.client, Arc::clone(&domain.clock));
            (region.clone(), (Ledger::new(state.lock_batch(), region), status))
        };
        let regions = regions.into_iter().map(with_parts).collect();
        let keys = Arc::new(KeyRing::open(section)?);
        let signer = key_file::load(&section.keys.custodian)?;
        let beside = stores::beside_objects(config, access).await;
        let private = Private::new(beside.with_context(|| format!("`{}`", config.data().beside().display()))?);
        Ok(Arc::new(Self { domain, config: (**section).clone(), signer, keys, regions, private }))
    }

    /// Opens this custodian's shares for the intent's workers: all checks, the note, the keys, in this order.
    ///
    /// # Errors
    /// [`DeskError`]; after a refusal of the ledger or of the keys, the intent may be used up.
    pub(crate) async fn grant(self: Arc<Self>, request: GrantRequest) -> Result<Grant, DeskError> {
        let brought = tokio::task::spawn_blocking(move || Brought::read(&request)).await??;
        let region = brought.region.clone();
        let (ledger, _) = self.region(&region)?;
        let asked = self.ask_status(&region).await?;
        let seen = ledger.seen().await?;
        let desk = Arc::clone(&self);
        let (admitted, openings) = tokio::task::spawn_blocking(move || {
            let Brought { evidence, workers, headers, openings, region } = brought;
            let domain = &desk.domain;
            let (organisation, policy, clock) = (&domain.organisation, &*domain.policy, &*domain.clock);
            let custodian = Custodian { organisation, region: &region, policy, clock, seen };
            let ask = Ask { evidence: &evidence, workers: &workers, headers: &headers };
            decide(&custodian, &asked, &ask).map(|admitted| (admitted, openings))
        })
        .await??;
        self.private.keep_all(admitted.fields(), &openings).await?;
        self.private.keep_objects(admitted.headers()).await?;
        let noted = ledger.note(admitted).await?;
        let desk = Arc::clone(&self);
        let open = move || {
            let is_over = |key: &Digest| desk.is_over(&region, key);
            noted.open(&*desk.keys, &is_over, &SystemEntropy)
        };
        Ok(tokio::task::spawn_blocking(open).await??)
    }

    /// Takes in a logged outcome.
    ///
    /// # Errors
    /// [`DeskError`].
    pub(crate) async fn close(&self, outcome: &str) -> Result<(), DeskError> {
        let bundle = Bundle::parse(outcome.as_bytes()).map_err(|error| form("`outcome`", &error))?;
        for (region, (ledger, _)) in &self.regions {
            let (organisation, policy) = (&self.domain.organisation, &*self.domain.policy);
            let (clock, seen) = (&*self.domain.clock, ledger.seen().await?);
            let concluded = conclude(&Custodian { organisation, region, policy, clock, seen }, &bundle)?;
            // The intent names the region, the outcome only the intent: who has no such lease has none to close.
            ledger.close(&concluded).await?;
        }
        Ok(())
    }

    /// How it stands.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn state(&self) -> Result<CustodyState, LedgerError> {
        let mut regions = Vec::new();
        for (region, (ledger, _)) in &self.regions {
            let totals = ledger.totals(self.domain.clock.now()).await?;
            regions.push(RegionCustody {
                region: region.clone(),
                uses: totals.uses,
                opened: totals.opened,
                head: totals.head,
                open: totals.open,
                missing: totals.missing,
            });
        }
        let (organisation, policy) = (self.domain.organisation.clone(), self.domain.policy.id());
        Ok(CustodyState { organisation, policy, regions })
    }

    /// Its copies of what lies beside the log, for the day on which others are gone.
    pub(crate) const fn private(&self) -> &Private {
        &self.private
    }

    fn region(&self, region: &RegionId) -> Result<&(Ledger, StatusSource), Refusal> {
        let not = || Refusal::NotCustodian(self.domain.organisation.clone(), region.clone());
        self.regions.get(region).ok_or_else(not)
    }
}

/// The regions of which the domain's organisation is a custodian.
fn regions_of(domain: &Domain) -> Vec<RegionId> {
    let is_ours = |organisation: &OrganisationId| *organisation == domain.organisation;
    let regions = domain.policy.policy().residency.iter().flat_map(|it| &it.regions);
    let ours = regions.filter(|region| region.custodians.iter().any(|it| is_ours(&it.organisation)));
    ours.map(|region| region.id.clone()).collect()
}
