//! What owners have erased.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use attest::{BatchId, Bundle, Envelope, Erasure, RegionId, Statement};
use custody::{Custodian, Erasable, Erasing, Refusal, Seen, erasable};
use seal::OwnerSecret;
use stdx::{SystemEntropy, UnixTime};
use storage::{Key, Swap};

use super::retire::{LATE, LOOK};
use super::{Desk, DeskError, form};
use crate::failure::Failure;

/// Clocks differ by so much: a key whose time begins now may have been used.
const CLOCKS_DIFFER_MAX: Duration = Duration::from_secs(60);

impl Desk {
    /// Erases what a logged request names, and gives this custodian's logged word on it: the same each time.
    ///
    /// # Errors
    /// [`DeskError`]; repeat it then.
    pub(crate) async fn erase(self: &Arc<Self>, note: &api::ErasureNote) -> Result<Bundle, DeskError> {
        let bundle = Bundle::parse(note.evidence.as_bytes()).map_err(|error| form("`evidence`", &error))?;
        let owners = note.owners.iter().map(|text| text.parse::<OwnerSecret>());
        let owners: Vec<_> = owners.collect::<Result<_, _>>().map_err(|error| form("`owners`", &error))?;
        let (desk, region) = (Arc::clone(self), note.region.clone());
        let erasable = tokio::task::spawn_blocking(move || {
            let domain = &desk.domain;
            let (organisation, policy, clock) = (&domain.organisation, &*domain.policy, &*domain.clock);
            let seen = Seen::default();
            erasable(&Custodian { organisation, region: &region, policy, clock, seen }, &bundle, &owners)
        });
        let erasable = erasable.await??;
        let failed = |error: anyhow::Error| DeskError::Erasure(format!("{error:#}"));
        let key = receipt_key(&note.region, &erasable).map_err(failed)?;
        let kept = self.domain.locks().get(&key).await.map_err(|error| failed(error.into()))?;
        if let Some(kept) = kept {
            return Bundle::parse(&kept.bytes).map_err(|error| failed(error.into()));
        }
        self.refuse_living(&note.region, &erasable).await?;
        self.erase_now(&note.region, &erasable, &key).await.map_err(failed)
    }

    /// What a worker has made is erased when others have taken its place. On the way to the vault its gateway sees what its
    /// name was made of, and could have it erased before anything has.
    async fn refuse_living(&self, region: &RegionId, erasable: &Erasable) -> Result<(), DeskError> {
        let (ledger, _) = self.region(region)?;
        let seen = ledger.vault().await?;
        let failed = |error: anyhow::Error| DeskError::Erasure(format!("{error:#}"));
        let vault = self.config.vault.as_ref().ok_or_else(|| failed(no_vault().into()))?;
        let (_, chain) = tokio::task::block_in_place(|| self.chain(vault, region, seen)).map_err(failed)?;
        let columns = chain.segments().flat_map(|it| it.objects.iter().filter(|kept| !it.has_lines(&kept.id)));
        let columns: BTreeSet<BatchId> = columns.map(|kept| kept.id).collect();
        match erasable.objects().iter().find(|object| columns.contains(*object)) {
            Some(living) => {
                Err(Refusal::Object(*living, "a worker has made it, and the vault has it".to_owned()).into())
            }
            None => Ok(()),
        }
    }

    async fn erase_now(&self, region: &RegionId, erasable: &Erasable, key: &Key) -> anyhow::Result<Bundle> {
        let (ledger, _) = self.region(region)?;
        let erasing = tokio::task::block_in_place(|| self.erasing(region, erasable))?;
        let Erasing { rows, horizon } = erasable.erase((ledger, self.keys.table()), erasing, &SystemEntropy).await?;
        let stream = self.domain.stream(&format!("custody/{}", self.domain.organisation))?;
        let make = |position: attest::Position| {
            let request = erasable.request();
            let predicate = Erasure { position, request, region: region.clone(), rows, horizon };
            let statement = Statement { subject: vec![erasable.subject()], predicate };
            Ok(Envelope::sign(statement.encode()?, &[&self.signer])?)
        };
        let bundle = Bundle::new(vec![stream.write(make).await?])?;
        // Who was faster has said the same.
        let (Swap::Won(_) | Swap::Lost) =
            self.domain.locks().compare_and_swap(key, None, bundle.to_bytes().into()).await?;
        tracing::info!(region = %region, request = %erasable.request(), horizon = %horizon, "objects were erased");
        Ok(bundle)
    }

    /// Whatever is in the table goes with the table's key. What is not may be sealed to any key whose time has begun
    /// and that is still here; nobody is believed which one that is.
    fn erasing(&self, region: &RegionId, erasable: &Erasable) -> anyhow::Result<Erasing> {
        let rows = self.keys.table().rows_of(erasable.objects())?;
        let all_moved = rows.iter().all(|rows| *rows > 0);
        let (here, now) = (self.keys.all()?, self.domain.clock.now());
        let mut horizon = now;
        for (key, time) in self.times(region)? {
            let gone_at = time.until.after(LATE);
            let could = time.from <= now.after(CLOCKS_DIFFER_MAX) && here.contains(&key);
            if could && !(all_moved && gone_at >= now) {
                horizon = horizon.max(gone_at.max(now).after(LOOK));
            }
        }
        Ok(Erasing { rows: rows.iter().sum(), horizon })
    }
}

fn no_vault() -> Failure {
    Failure::refused("no key is ever destroyed here, so nothing can be erased")
        .hint("set `vault` in the custodian's configuration to the vendor's URL")
}

fn receipt_key(region: &RegionId, erasable: &Erasable) -> anyhow::Result<Key> {
    Ok(format!("custody/{region}/erased/{}", erasable.request()).parse()?)
}

/// When a key's time begins and ends, by whichever policies name it.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyTime {
    pub(super) from: UnixTime,
    pub(super) until: UnixTime,
}
