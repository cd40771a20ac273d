//! The contract of [`Catalog`].

use std::sync::Arc;

use bytes::Bytes;
use stdx::UnixTime;
use tokio::task::JoinSet;

use super::{RACERS, Violation, key, name, require};
use crate::{Catalog, Enqueued, Error, Folder, Job, JobKey, Listing, RecordKey, Term};

/// Checks an empty catalog.
///
/// # Errors
/// The first [`Violation`] seen.
pub async fn catalog(store: Arc<dyn Catalog>) -> Result<(), Violation> {
    records(&*store).await?;
    listed(&*store).await?;
    jobs(&*store).await?;
    raced(store).await
}

async fn records(store: &dyn Catalog) -> Result<(), Violation> {
    let (one, other) =
        (RecordKey { table: name("one")?, key: key("a/b")? }, RecordKey { table: name("other")?, key: key("a/b")? });
    require("a missing record is none", store.record(&one).await?.is_none().into())?;
    for content in [&b"1"[..], b""] {
        store.put(&one, Bytes::from_static(content)).await?;
        require("a record is read back", (store.record(&one).await?.as_deref() == Some(content)).into())?;
    }
    require("tables are apart", store.record(&other).await?.is_none().into())?;
    store.remove(&one).await?;
    store.remove(&one).await?;
    require("a removed record is gone", store.record(&one).await?.is_none().into())
}

async fn listed(store: &dyn Catalog) -> Result<(), Violation> {
    let table = name("listed")?;
    let sorted = ["a.b", "a/1", "a/2/3", "a0", "b"];
    for text in sorted.iter().rev() {
        store.put(&RecordKey { table: table.clone(), key: key(text)? }, Bytes::from_static(text.as_bytes())).await?;
    }
    let listing = Listing::of(Folder::Root);
    let all = store.list(&table, &listing).await?;
    require("records come in byte order", all.iter().map(|record| record.key.as_str()).eq(sorted).into())?;
    let whole = all.iter().all(|record| record.bytes == record.key.as_str());
    require("records come with their content", whole.into())?;
    let below = store.list(&table, &Listing::of(Folder::Below(key("a")?))).await?;
    require("a folder holds only its own", below.iter().map(|r| r.key.as_str()).eq(["a/1", "a/2/3"]).into())?;
    let page = store.list(&table, &Listing { limit: 2, ..listing.after(key("a/1")?) }).await?;
    require("a page starts after the last", page.iter().map(|r| r.key.as_str()).eq(["a/2/3", "a0"]).into())
}

fn term(holder: &str, times: std::ops::Range<u64>) -> Result<Term, Violation> {
    let (now, until) = (UnixTime::from_seconds(times.start), UnixTime::from_seconds(times.end));
    Ok(Term { holder: name(holder)?, now, until })
}

fn claimed(job: Option<Job>) -> Result<Job, Violation> {
    job.ok_or_else(|| Violation::Contract("a free job was not given out".to_owned()))
}

async fn jobs(store: &dyn Catalog) -> Result<(), Violation> {
    let queue = name("queue")?;
    let [first, second] =
        [JobKey { queue: queue.clone(), id: key("z")? }, JobKey { queue: queue.clone(), id: key("a")? }];
    require("an empty queue gives nothing", store.claim(&queue, &term("w1", 0..10)?).await?.is_none().into())?;
    require("a job is new", (store.enqueue(&first, Bytes::from_static(b"1")).await? == Enqueued::New).into())?;
    store.enqueue(&second, Bytes::from_static(b"2")).await?;
    let again = store.enqueue(&first, Bytes::from_static(b"3")).await?;
    require("an unfinished job is not added again", (again == Enqueued::Existed).into())?;

    let mine = claimed(store.claim(&queue, &term("w1", 0..10)?).await?)?;
    require("held jobs are not finished", (store.unfinished(&queue).await? == 2).into())?;
    require("the oldest job comes first", (mine.lease.job == first && mine.bytes == b"1"[..]).into())?;
    let other = claimed(store.claim(&queue, &term("w2", 0..20)?).await?)?;
    require("a held job is not given out", (other.lease.job == second).into())?;
    require("all jobs are held", store.claim(&queue, &term("w3", 9..20)?).await?.is_none().into())?;
    store.renew(&mine.lease, &term("w1", 9..15)?).await?;
    require("a renewed lease holds", store.claim(&queue, &term("w3", 14..20)?).await?.is_none().into())?;

    let taken = claimed(store.claim(&queue, &term("w3", 15..30)?).await?)?;
    require("a lease that ran out is free", (taken.lease.job == first && taken.lease != mine.lease).into())?;
    let late = store.finish(&mine.lease).await;
    require("who lost a lease can't finish", matches!(late, Err(Error::LeaseLost { .. })).into())?;
    let late = store.renew(&mine.lease, &term("w1", 16..40)?).await;
    require("who lost a lease can't renew", matches!(late, Err(Error::LeaseLost { .. })).into())?;
    store.finish(&taken.lease).await?;
    store.finish(&other.lease).await?;
    require("finished jobs don't count", (store.unfinished(&queue).await? == 0).into())?;
    require("finished jobs are gone", store.claim(&queue, &term("w1", 90..99)?).await?.is_none().into())?;

    require("an id is free again", (store.enqueue(&first, Bytes::new()).await? == Enqueued::New).into())?;
    let rerun = claimed(store.claim(&queue, &term("w1", 100..110)?).await?)?;
    let old = store.finish(&mine.lease).await;
    require("a lease on an earlier run is lost", matches!(old, Err(Error::LeaseLost { .. })).into())?;
    Ok(store.finish(&rerun.lease).await?)
}

async fn raced(store: Arc<dyn Catalog>) -> Result<(), Violation> {
    let queue = name("raced")?;
    let count = RACERS / 2;
    for number in 0..count {
        store.enqueue(&JobKey { queue: queue.clone(), id: key(&number.to_string())? }, Bytes::new()).await?;
    }
    let mut racers = JoinSet::new();
    for racer in 0..RACERS {
        let (store, queue, term) = (Arc::clone(&store), queue.clone(), term(&format!("w{racer}"), 1..10)?);
        racers.spawn(async move { store.claim(&queue, &term).await });
    }
    let mut taken = std::collections::BTreeSet::new();
    while let Some(outcome) = racers.join_next().await {
        if let Some(job) = outcome?? {
            require("a job has one holder", taken.insert(job.lease.job.id).into())?;
        }
    }
    require("every job finds a holder", (taken.len() == count).into())
}
