//! From granted shares to open objects, and from the vault to headers.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;

use api::{GrantAnswer, PlannedObject};
use attest::{OrganisationId, StatementId};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use custody::grant_info;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use seal::{BatchId, DataKey, HEADER_BYTES_MAX, Header, OpenError, PrivateKey, Sealed, Share, Wrapped};
use stdx::Digest;

use crate::catalog::{Form, Located};
use crate::ciphertext::{Place, Vault, VaultError};
use crate::store::Opened;

/// Headers that lie nearer together are read at once, but not more than this at a time.
const GAP_BYTES: u64 = 256 << 10;
const READ_BYTES: u64 = 8 << 20;

/// So many reads at once.
const READS: usize = 8;

/// Why an object stays closed.
#[derive(Debug, thiserror::Error)]
pub enum GrantFault {
    /// A custodian's share is missing, or not for this.
    #[error("object {0}: custodian `{1}` gave no share that opens for this intent")]
    Share(BatchId, OrganisationId),
    /// What a worker has made, and should open.
    #[error("object {0}, which a worker has made, does not open")]
    Columns(BatchId),
    /// Its header is none.
    #[error(transparent)]
    Header(#[from] OpenError),
    /// The vault has another object there, or none.
    #[error("object {0} is not where the manifests have it")]
    Moved(BatchId),
    /// The vault failed.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// What the gateway sent can't be read.
    #[error("object `{0}`: its header is no base64")]
    Encoding(String),
}

/// A header, with the object's bytes up to its frames.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) header: Header,
    begin: Bytes,
}

impl Head {
    /// Reads what begins `bytes`.
    fn parse(bytes: Bytes) -> Result<Self, OpenError> {
        let (header, start) = Header::parse(&bytes)?;
        Ok(Self { header, begin: bytes.slice(..start) })
    }

    /// SHA-256 of the header, as manifests have it.
    fn digest(&self) -> Digest {
        Digest::of(self.begin.get(4..).unwrap_or_default())
    }

    fn check(self, located: &Located) -> Result<Self, GrantFault> {
        let bound = &self.header.bound;
        let same = bound.id == located.id
            && bound.country == located.country
            && bound.region == located.place.region
            && bound.class == located.place.class
            && self.digest() == located.header
            && self.begin.len() as u64 + self.header.frames_bytes() == located.bytes;
        if same { Ok(self) } else { Err(GrantFault::Moved(located.id)) }
    }

    pub(crate) fn planned(&self, located: &Located) -> PlannedObject {
        PlannedObject {
            id: located.id.to_string(),
            header: STANDARD.encode(self.begin.get(4..).unwrap_or_default()),
            segment: located.place.segment,
            at: located.at,
            bytes: located.bytes,
        }
    }
}

/// The headers of planned objects, as the gateway sent them.
pub(crate) fn sent_heads(objects: &[PlannedObject]) -> Result<Vec<Head>, GrantFault> {
    let head = |object: &PlannedObject| {
        let header = STANDARD.decode(&object.header).map_err(|_| GrantFault::Encoding(object.id.clone()))?;
        let length = u32::try_from(header.len()).map_err(|_| GrantFault::Encoding(object.id.clone()))?;
        Ok(Head::parse([&length.to_be_bytes()[..], &header].concat().into())?)
    };
    objects.iter().map(head).collect()
}

/// The headers of `objects` from the vault, in the same order.
pub(crate) async fn vault_heads(vault: &dyn Vault, objects: &[Located]) -> Result<Vec<Head>, GrantFault> {
    let mut by_place: BTreeMap<&Place, Vec<usize>> = BTreeMap::new();
    for (at, object) in objects.iter().enumerate() {
        by_place.entry(&object.place).or_default().push(at);
    }
    let mut reads = Vec::new();
    for (place, mut there) in by_place {
        there.sort_by_key(|at| objects.get(*at).map(|object| object.at));
        reads.extend(grouped(objects, there).into_iter().map(|(range, group)| (place, range, group)));
    }
    let read = |(place, range, group): (&Place, Range<u64>, Vec<usize>)| {
        let place = place.clone();
        async move {
            let bytes = vault.read(&place, range.clone()).await?;
            let heads = group.into_iter().filter_map(|at| objects.get(at).map(|object| (at, object)));
            let heads = heads.map(|(at, object)| Ok((at, head_in(&bytes, range.start, object)?)));
            heads.collect::<Result<Vec<_>, GrantFault>>()
        }
    };
    let found: Vec<Vec<(usize, Head)>> =
        stream::iter(reads.into_iter().map(read)).buffered(READS).try_collect().await?;
    let mut heads: Vec<(usize, Head)> = found.into_iter().flatten().collect();
    heads.sort_by_key(|(at, _)| *at);
    Ok(heads.into_iter().map(|(_, head)| head).collect())
}

fn head_in(bytes: &Bytes, start: u64, object: &Located) -> Result<Head, GrantFault> {
    let moved = || GrantFault::Moved(object.id);
    let range = head_range(object);
    let within = |at: u64| usize::try_from(at - start).map_err(|_| moved());
    let (from, to) = (within(range.start)?, within(range.end)?);
    if to > bytes.len() {
        return Err(moved());
    }
    Head::parse(bytes.slice(from..to))?.check(object)
}

fn head_range(object: &Located) -> Range<u64> {
    object.at..object.at + object.bytes.min(4 + HEADER_BYTES_MAX as u64)
}

/// Objects of one segment, ascending, in groups that are read at once.
fn grouped(objects: &[Located], there: Vec<usize>) -> Vec<(Range<u64>, Vec<usize>)> {
    let mut groups: Vec<(Range<u64>, Vec<usize>)> = Vec::new();
    for at in there {
        let Some(object) = objects.get(at) else { continue };
        let range = head_range(object);
        match groups.last_mut() {
            Some((all, group)) if range.start <= all.end + GAP_BYTES && range.end - all.start <= READ_BYTES => {
                all.end = all.end.max(range.end);
                group.push(at);
            }
            _ => groups.push((range, vec![at])),
        }
    }
    groups
}

/// What a grant has opened.
#[derive(Default)]
pub(crate) struct OpenedAll {
    pub(crate) opened: Vec<Opened>,
    /// Where they lie, in the same order.
    pub(crate) located: Vec<Located>,
    /// What nobody can open.
    pub(crate) closed: Vec<Located>,
}

/// What opens a grant.
pub(crate) struct Grants<'a> {
    pub(crate) intent: StatementId,
    pub(crate) key: &'a PrivateKey,
    pub(crate) given: &'a BTreeMap<OrganisationId, GrantAnswer>,
}

impl Grants<'_> {
    /// Opens objects; this takes a tenth of a millisecond for each share. Those that an endpoint has sealed so that nobody can
    /// open them are left out, and counted. Of columns, which workers make, none is left out.
    pub(crate) fn open(&self, objects: Vec<(Located, Head)>) -> Result<OpenedAll, GrantFault> {
        let mut shares: HashMap<(&OrganisationId, &str), &api::GrantedShare> = HashMap::new();
        let mut closed: HashSet<(&OrganisationId, &str)> = HashSet::new();
        for (custodian, answer) in self.given {
            shares.extend(answer.granted.iter().map(|share| ((custodian, share.object.as_str()), share)));
            closed.extend(answer.closed.iter().map(|object| (custodian, object.as_str())));
        }
        let mut all = OpenedAll::default();
        for (located, head) in objects {
            let id = located.id.to_string();
            let mut parts = Vec::new();
            for sealed in &head.header.shares {
                let of = (&sealed.custodian, id.as_str());
                let Some(share) = shares.get(&of) else {
                    if closed.contains(&of) {
                        continue;
                    }
                    return Err(GrantFault::Share(located.id, sealed.custodian.clone()));
                };
                parts.push(self.part(located.id, &sealed.custodian, share)?);
            }
            let is_whole = parts.len() == head.header.shares.len();
            let sealed = if is_whole { Sealed::open(&head.begin, &DataKey::join(&parts)).ok() } else { None };
            match sealed {
                Some(sealed) => {
                    let frames_at = located.at + head.begin.len() as u64;
                    let (place, segment_bytes) = (located.place.clone(), located.segment_bytes);
                    all.opened.push(Opened { place, segment_bytes, frames_at, sealed });
                    all.located.push(located);
                }
                None if located.taken.form == Form::Columns => return Err(GrantFault::Columns(located.id)),
                None => {
                    tracing::warn!(data.object = %located.id, "was sealed so that it does not open, and is passed over");
                    all.closed.push(located);
                }
            }
        }
        Ok(all)
    }

    fn part(
        &self,
        object: BatchId,
        custodian: &OrganisationId,
        share: &api::GrantedShare,
    ) -> Result<Share, GrantFault> {
        let odd = || GrantFault::Share(object, custodian.clone());
        let decode = |text: &String| STANDARD.decode(text).map_err(|_| odd());
        let wrapped = Wrapped { encapsulated: decode(&share.encapsulated)?, sealed: decode(&share.sealed)? };
        Share::open(&wrapped, self.key, &grant_info(self.intent, object, custodian)).ok_or_else(odd)
    }
}

/// Pairs each header with where its object lies.
pub(crate) fn locate(heads: Vec<Head>, known: Vec<Located>) -> Result<Vec<(Located, Head)>, GrantFault> {
    let mut known: HashMap<BatchId, Located> = known.into_iter().map(|located| (located.id, located)).collect();
    let found = heads.into_iter().map(|head| {
        let id = head.header.bound.id;
        let located = known.remove(&id).ok_or(GrantFault::Moved(id))?;
        Ok((located.clone(), head.check(&located)?))
    });
    found.collect()
}
