//! The gateway to customers' data: takes requests and approvals, announces each access in the log, brings the
//! custodians what they must see, has a worker read, and logs what came of it.
//!
//! It holds no key that opens anything. Whatever it does wrong, custodians refuse: what it checks itself is so
//! that nothing is announced which can't be.

mod access;
mod beside;
mod call;
mod error;
mod peers;
mod request;
mod rules;
mod run;
mod settle;
mod stream;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use attest::StatementId;
use tlog::SignerKey;

pub use access::Reading;
pub(crate) use access::SEALED_BYTES_MAX;
pub use error::DataError;
pub use settle::AccessProbe;

use beside::Beside;
use call::Calls;
use peers::Peers;
use rules::Rules;
use stream::AccessStream;

use crate::config::{AccessSection, Config};
use crate::domain::Domain;
use crate::failure::Failure;
use crate::{key_file, stores};

/// The gateway.
pub struct Gateway {
    domain: Domain,
    key: Arc<SignerKey>,
    rules: Rules,
    beside: Beside,
    peers: Peers,
    calls: Calls,
    stream: AccessStream,
    /// Accesses that this process is at.
    active: Arc<Mutex<BTreeSet<StatementId>>>,
}

impl Gateway {
    /// The gateway that `section` of `config` describes, with these tools.
    ///
    /// # Errors
    /// When a key or store is missing, the rules are others than the policy names, or the policy names another
    /// gateway.
    pub async fn of(config: &Config, section: &AccessSection, domain: Domain) -> anyhow::Result<Arc<Self>> {
        let residency = domain.policy.policy().residency.as_ref();
        let residency = residency.filter(|it| it.gateway == domain.organisation).ok_or_else(|| {
            Failure::refused(format!("the policy does not name `{}` as the gateway of data", domain.organisation))
                .hint("take `[access]` out of the configuration, or compare it with the policy's `[residency]`")
        })?;
        let rules = Rules::load(&section.rules, residency.rules)?;
        let peers = Peers::new(section, residency, domain.client.clone(), &domain.clock)?;
        let stream = AccessStream::new(domain.stream(&format!("access/{}", domain.organisation))?);
        let objects = stores::beside_objects(config, stores::Access::Write).await?;
        let (key, calls) = (Arc::new(key_file::load(&section.key)?), Calls::new(domain.clock.now()));
        Ok(Arc::new(Self {
            domain,
            key,
            rules,
            beside: Beside::new(objects),
            peers,
            calls,
            stream,
            active: Arc::default(),
        }))
    }

    /// What lies beside the log here: reviewers are answered from it, too.
    pub(crate) const fn private(&self) -> &ledger::Private {
        self.beside.private()
    }
}
