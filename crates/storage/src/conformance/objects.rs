//! The contract of [`ObjectStore`].

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::{RACERS, Violation, key, require};
use crate::{Error, Folder, Listing, Move, ObjectStore, Put};

/// Checks an empty object store.
///
/// # Errors
/// The first [`Violation`] seen.
pub async fn objects(store: Arc<dyn ObjectStore>) -> Result<(), Violation> {
    immutable(&*store).await?;
    pieces(&*store).await?;
    replaced(&*store).await?;
    batches(&*store).await?;
    moved(&*store).await?;
    listed(&*store).await?;
    deleted(&*store).await?;
    raced(store).await
}

async fn immutable(store: &dyn ObjectStore) -> Result<(), Violation> {
    let key = key("immutable/a")?;
    require("a missing object is none", store.get(&key).await?.is_none().into())?;
    let before = store.bytes().await?;
    require("the first put is new", (store.put(&key, Bytes::from_static(b"1")).await? == Put::New).into())?;
    require("the same again is the same", (store.put(&key, Bytes::from_static(b"1")).await? == Put::Same).into())?;
    require("it counts once", (store.bytes().await? == before + 1).into())?;
    let other = store.put(&key, Bytes::from_static(b"2")).await;
    require("other content is a conflict", matches!(other, Err(Error::Conflict { .. })).into())?;
    require("a conflict changes nothing", (store.get(&key).await?.as_deref() == Some(b"1")).into())?;
    let empty = super::key("immutable/empty")?;
    store.put(&empty, Bytes::new()).await?;
    require("an empty object is an object", (store.get(&empty).await?.as_deref() == Some(b"")).into())?;
    require("a folder is no object", store.get(&super::key("immutable")?).await?.is_none().into())?;
    require("nothing lies below an object", store.get(&super::key("immutable/a/b")?).await?.is_none().into())
}

async fn pieces(store: &dyn ObjectStore) -> Result<(), Violation> {
    let key = key("pieces/a")?;
    require("there is no piece of what is missing", store.get_piece(&key, 0..1).await?.is_none().into())?;
    store.put(&key, Bytes::from_static(b"0123456789")).await?;
    for (range, expected) in [(0..10, &b"0123456789"[..]), (3..5, b"34"), (8..100, b"89"), (10..12, b""), (50..60, b"")]
    {
        let piece = store.get_piece(&key, range).await?;
        let holds = piece.is_some_and(|piece| piece.bytes == expected && piece.size == 10);
        require("a piece is what lies there, and the size is the whole's", holds.into())?;
    }
    Ok(())
}

async fn replaced(store: &dyn ObjectStore) -> Result<(), Violation> {
    let key = key("replaced")?;
    for content in [&b"1"[..], b"22", b""] {
        store.replace(&key, Bytes::from_static(content)).await?;
        require("a replacement is read back", (store.get(&key).await?.as_deref() == Some(content)).into())?;
    }
    Ok(())
}

async fn batches(store: &dyn ObjectStore) -> Result<(), Violation> {
    let mut batch = Vec::new();
    for number in 0..100_u8 {
        batch.push((key(&format!("batch/x{:03}/{number:03}", number / 10))?, Bytes::from(vec![number; 300])));
    }
    store.put_all(Vec::new()).await?;
    store.put_all(batch.clone()).await?;
    store.put_all(batch.clone()).await?;
    for (key, bytes) in &batch {
        require("a batch is read back", (store.get(key).await?.as_ref() == Some(bytes)).into())?;
    }
    if let Some((_, bytes)) = batch.first_mut() {
        *bytes = Bytes::from_static(b"other");
    }
    let other = store.put_all(batch).await;
    require("a batch with other content is a conflict", matches!(other, Err(Error::Conflict { .. })).into())
}

async fn moved(store: &dyn ObjectStore) -> Result<(), Violation> {
    let mut moves = Vec::new();
    for number in 0..20_u8 {
        let (from, to) = (key(&format!("ready/{number:03}"))?, key(&format!("moved/x{:03}/{number:03}", number / 10))?);
        moves.push(Move { from, to, bytes: Bytes::from(vec![number; 300]) });
    }
    let (first, rest) = moves.split_at(7);
    store.put_all(moves.iter().map(|it| (it.from.clone(), it.bytes.clone())).collect()).await?;
    store.move_all(Vec::new()).await?;
    store.move_all(first.to_vec()).await?;
    // All again, as after a crash in between; one of them as if it had been written in both places.
    for it in rest.iter().take(1) {
        store.put(&it.to, it.bytes.clone()).await?;
    }
    for _ in 0..2 {
        store.move_all(moves.clone()).await?;
    }
    for it in &moves {
        require("what was moved is in its place", (store.get(&it.to).await?.as_ref() == Some(&it.bytes)).into())?;
        require("and no longer where it was", store.get(&it.from).await?.is_none().into())?;
    }
    let left = store.list(&Listing::of(Folder::Below(key("ready")?))).await?;
    require("nothing is left behind", left.is_empty().into())?;
    let other: Vec<Move> =
        moves.into_iter().take(1).map(|it| Move { bytes: Bytes::from_static(b"other"), ..it }).collect();
    for it in &other {
        store.put(&it.from, it.bytes.clone()).await?;
    }
    let conflict = store.move_all(other).await;
    require("moving over other content is a conflict", matches!(conflict, Err(Error::Conflict { .. })).into())?;
    store.delete(&key("ready/000")?).await?;
    Ok(())
}

async fn listed(store: &dyn ObjectStore) -> Result<(), Violation> {
    // In byte order `.` comes before `/`, and `/` before digits.
    let sorted = ["list/a.p/1", "list/a/1", "list/a/2", "list/a0", "list/b/c/d", "list/b1"];
    for text in sorted.iter().rev() {
        store.put(&key(text)?, Bytes::from_static(b"x")).await?;
    }
    let folder = Folder::Below(key("list")?);
    let all = store.list(&Listing::of(folder.clone())).await?;
    require("keys come in byte order", all.iter().map(|key| key.as_str()).eq(sorted).into())?;
    for limit in 1..=sorted.len() {
        let mut listing = Listing { folder: folder.clone(), after: None, limit };
        let mut pages = Vec::new();
        loop {
            let page = store.list(&listing).await?;
            require("a page is within its limit", (page.len() <= limit).into())?;
            let Some(last) = page.last() else { break };
            listing = listing.after(last.clone());
            pages.extend(page);
        }
        require("pages join to the whole", (pages == all).into())?;
    }
    let below = store.list(&Listing::of(Folder::Below(key("list/a")?))).await?;
    require("a folder holds only its own", below.iter().map(|key| key.as_str()).eq(["list/a/1", "list/a/2"]).into())?;
    let none = store.list(&Listing::of(Folder::Below(key("nowhere")?))).await?;
    require("a missing folder is empty", none.is_empty().into())?;
    let root = store.list(&Listing::of(Folder::Root)).await?;
    require("the root holds everything", (all.iter().all(|key| root.contains(key)) && root.is_sorted()).into())
}

async fn deleted(store: &dyn ObjectStore) -> Result<(), Violation> {
    let key = key("deleted/a")?;
    store.delete(&key).await?;
    store.put(&key, Bytes::from_static(b"1")).await?;
    store.delete(&key).await?;
    require("a deleted object is gone", store.get(&key).await?.is_none().into())?;
    let folders = [Folder::Root, Folder::Below(super::key("deleted")?)];
    for folder in folders {
        let listed = store.list(&Listing::of(folder)).await?;
        let left = listed.iter().any(|key| key.as_str().starts_with("deleted"));
        require("nothing is left of a folder that was emptied", (!left).into())?;
    }
    require("its key is free again", (store.put(&key, Bytes::from_static(b"2")).await? == Put::New).into())
}

async fn raced(store: Arc<dyn ObjectStore>) -> Result<(), Violation> {
    for round in 0..8 {
        let key = key(&format!("race/{round}"))?;
        let mut racers = JoinSet::new();
        for racer in 0..RACERS {
            let (store, key) = (Arc::clone(&store), key.clone());
            racers.spawn(async move { (racer, store.put(&key, Bytes::from(racer.to_string())).await) });
        }
        let mut winners = Vec::new();
        while let Some(outcome) = racers.join_next().await {
            match outcome? {
                (racer, Ok(Put::New)) => winners.push(racer.to_string()),
                (_, Err(Error::Conflict { .. })) => {}
                (_, Ok(Put::Same)) => require("a loser's content is another", false.into())?,
                (_, Err(error)) => return Err(error.into()),
            }
        }
        require("exactly one put wins", (winners.len() == 1).into())?;
        let found = store.get(&key).await?.unwrap_or_default();
        require("the winner's content stays", winners.iter().any(|winner| winner.as_bytes() == found).into())?;
    }
    Ok(())
}
