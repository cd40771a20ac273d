//! Locks and the catalog in SQLite.

use std::fs;
use std::sync::Arc;

use bytes::Bytes;
use stdx::durable;
use storage::{Error, LockStore as _, SqliteStore, Swap, conformance};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sqlite_keeps_the_contracts() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::create(&folder.path().join("db")).await.unwrap();
    conformance::locks(Arc::new(store.clone())).await.unwrap();
    conformance::catalog(Arc::new(store)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_connections_contend_for_one_lock() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let stores = [SqliteStore::create(&path).await.unwrap(), SqliteStore::open(&path).await.unwrap()];
    let key: storage::Key = "lock".parse().unwrap();
    let mut racers = tokio::task::JoinSet::new();
    for racer in 0..32_usize {
        let (store, key) = (stores[racer % 2].clone(), key.clone());
        racers.spawn(async move { store.compare_and_swap(&key, None, Bytes::from(racer.to_string())).await });
    }
    let won = racers.join_all().await.into_iter().filter(|swap| matches!(swap, Ok(Swap::Won(_)))).count();
    assert_eq!(won, 1);
}

#[tokio::test]
async fn locks_outlive_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let key = "lock".parse().unwrap();
    let store = SqliteStore::create(&path).await.unwrap();
    let Swap::Won(version) = store.compare_and_swap(&key, None, Bytes::from_static(b"1")).await.unwrap() else {
        panic!("nobody else is there");
    };
    store.close().await;
    let found = SqliteStore::open(&path).await.unwrap().get(&key).await.unwrap().unwrap();
    assert_eq!((found.bytes, found.version), (Bytes::from_static(b"1"), version));
}

#[tokio::test]
async fn a_store_is_never_created_implicitly_nor_over_something() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    assert!(matches!(SqliteStore::open(&path).await, Err(Error::NotAStore { .. })));
    assert!(!path.exists());
    SqliteStore::create(&path).await.unwrap().close().await;
    assert!(matches!(SqliteStore::create(&path).await, Err(Error::Exists { .. })));
    let other = folder.path().join("other");
    durable::write(&other, &[b'x'; 9000]).unwrap();
    assert!(matches!(SqliteStore::open(&other).await, Err(Error::NotAStore { .. })));
    durable::write(&other, b"").unwrap();
    assert!(matches!(SqliteStore::open(&other).await, Err(Error::NotAStore { .. })));
    SqliteStore::create(&other).await.unwrap();
}

#[tokio::test]
async fn damage_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let store = SqliteStore::create(&path).await.unwrap();
    for number in 0..2000 {
        let key = format!("lock/{number}").parse().unwrap();
        let _ = store.compare_and_swap(&key, None, Bytes::from(vec![7; 100])).await.unwrap();
    }
    assert!(store.check().await.unwrap().is_empty());
    store.close().await;
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 4096].fill(0xff);
    durable::write(&path, &bytes).unwrap();
    let damaged = SqliteStore::open(&path).await.unwrap();
    assert!(damaged.check().await.map_or(true, |found| !found.is_empty()));
}
