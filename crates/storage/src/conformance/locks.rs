//! The contract of [`LockStore`].

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::{RACERS, Violation, key, require};
use crate::{LockBatch, LockStore, Swap, Swapping, Version};

/// Checks an empty lock store.
///
/// # Errors
/// The first [`Violation`] seen.
pub async fn locks(store: Arc<dyn LockBatch>) -> Result<(), Violation> {
    swapped(&*store).await?;
    versions(&*store).await?;
    all_or_none(&*store).await?;
    overlapping(&store).await?;
    raced(store).await
}

fn swapping(name: &str, expected: Option<&Version>, bytes: &'static [u8]) -> Result<Swapping, Violation> {
    Ok(Swapping { key: key(name)?, expected: expected.cloned(), bytes: Bytes::from_static(bytes) })
}

async fn all_or_none(store: &dyn LockBatch) -> Result<(), Violation> {
    let present = |name: &'static str| async move { Ok::<_, Violation>(store.get(&key(name)?).await?) };
    let made = [swapping("all/b", None, b"1")?, swapping("all/a", None, b"2")?];
    require("new locks are made together", store.swap_all(&made).await?.is_empty().into())?;
    let (a, b) = (present("all/a").await?, present("all/b").await?);
    let (Some(a), Some(b)) = (a, b) else { return Err(Violation::Contract("a swap that won is not there".to_owned())) };
    require("each has its value", (a.bytes == b"2"[..] && b.bytes == b"1"[..]).into())?;
    let foreign = Version::new("77".to_owned());
    let other = Version::new("of another store".to_owned());
    let mixed = [
        swapping("all/c", None, b"3")?,
        swapping("all/a", None, b"3")?,
        swapping("all/b", Some(&b.version), b"3")?,
        swapping("all/d", Some(&foreign), b"3")?,
        swapping("all/e", Some(&other), b"3")?,
    ];
    let mut lost = store.swap_all(&mixed).await?;
    lost.sort_unstable();
    require("those that are lost are named", (lost == [1, 3, 4]).into())?;
    let unchanged = present("all/c").await?.is_none() && present("all/b").await?.as_ref() == Some(&b);
    require("if one is lost none is put in place", unchanged.into())?;
    let both = [swapping("all/a", Some(&a.version), b"4")?, swapping("all/b", Some(&b.version), b"5")?];
    require("both go on", store.swap_all(&both).await?.is_empty().into())?;
    require("and not from there again", (store.swap_all(&both).await?.len() == 2).into())?;
    require("nothing at all is in place", store.swap_all(&[]).await?.is_empty().into())
}

/// Many take the same two locks, in either order: one after the other, and nobody waits for ever.
async fn overlapping(store: &Arc<dyn LockBatch>) -> Result<(), Violation> {
    let mut racers = JoinSet::new();
    for racer in 0..RACERS {
        let store = Arc::clone(store);
        racers.spawn(async move {
            let mut names = ["both/a", "both/b"];
            if racer % 2 == 1 {
                names.reverse();
            }
            let swaps = [swapping(names[0], None, b"x")?, swapping(names[1], None, b"x")?];
            Ok::<_, Violation>(store.swap_all(&swaps).await?.is_empty())
        });
    }
    let mut winners = 0;
    while let Some(outcome) = racers.join_next().await {
        winners += usize::from(outcome??);
    }
    require("of overlapping swaps exactly one wins", (winners == 1).into())
}

async fn swapped(store: &dyn LockStore) -> Result<(), Violation> {
    let key = key("swapped")?;
    require("a new lock has no value", store.get(&key).await?.is_none().into())?;
    let foreign = Version::new("77".to_owned());
    let lost = store.compare_and_swap(&key, Some(&foreign), Bytes::from_static(b"x")).await?;
    require("a swap from a version that never was is lost", (lost == Swap::Lost).into())?;
    let first = won(store.compare_and_swap(&key, None, Bytes::from_static(b"1")).await?)?;
    let again = store.compare_and_swap(&key, None, Bytes::from_static(b"2")).await?;
    require("a lock is created once", (again == Swap::Lost).into())?;
    let found = store.get(&key).await?;
    let same = found.is_some_and(|found| found.bytes == b"1"[..] && found.version == first);
    require("a lost swap changes nothing", same.into())?;
    let second = won(store.compare_and_swap(&key, Some(&first), Bytes::from_static(b"2")).await?)?;
    let stale = store.compare_and_swap(&key, Some(&first), Bytes::from_static(b"3")).await?;
    require("a swap from an old version is lost", (stale == Swap::Lost).into())?;
    let found = store.get(&key).await?;
    let same = found.is_some_and(|found| found.bytes == b"2"[..] && found.version == second);
    require("the value and its version are read back", same.into())
}

/// A-B-A: the same bytes again are another version.
async fn versions(store: &dyn LockStore) -> Result<(), Violation> {
    let key = key("versions")?;
    let mut seen: Vec<Version> = Vec::new();
    for content in [b"A", b"B", b"A", b"A"] {
        let version = won(store.compare_and_swap(&key, seen.last(), Bytes::from_static(content)).await?)?;
        require("a version is never used again", (!seen.contains(&version)).into())?;
        seen.push(version);
    }
    let stale = store.compare_and_swap(&key, seen.first(), Bytes::from_static(b"C")).await?;
    require("A-B-A is no A", (stale == Swap::Lost).into())
}

async fn raced(store: Arc<dyn LockBatch>) -> Result<(), Violation> {
    let key = key("folder/raced")?;
    let mut version: Option<Version> = None;
    for round in 0..16 {
        let mut racers = JoinSet::new();
        for racer in 0..RACERS {
            let (store, key, from) = (Arc::clone(&store), key.clone(), version.clone());
            let bytes = Bytes::from(format!("{round} {racer}"));
            racers.spawn(async move { (bytes.clone(), store.compare_and_swap(&key, from.as_ref(), bytes).await) });
        }
        let mut winners = Vec::new();
        while let Some(outcome) = racers.join_next().await {
            let (bytes, swap) = outcome?;
            if let Swap::Won(version) = swap? {
                winners.push((bytes, version));
            }
        }
        require("exactly one swap wins", (winners.len() == 1).into())?;
        let found = store.get(&key).await?;
        let same = found.is_some_and(|found| winners.iter().all(|(b, v)| *b == found.bytes && *v == found.version));
        require("the winner's value stays", same.into())?;
        version = winners.pop().map(|(_, version)| version);
    }
    Ok(())
}

fn won(swap: Swap) -> Result<Version, Violation> {
    match swap {
        Swap::Won(version) => Ok(version),
        Swap::Lost => Err(Violation::Contract("a swap from the present version was lost".to_owned())),
    }
}
