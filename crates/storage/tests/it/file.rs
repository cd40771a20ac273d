//! Objects as files.

use std::fs;
use std::sync::Arc;

use bytes::Bytes;
use stdx::durable;
use storage::{Error, FileObjects, Folder, Listing, ObjectStore as _, conformance};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn files_keep_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileObjects::create(&folder.path().join("store")).await.unwrap();
    conformance::objects(Arc::new(store)).await.unwrap();
    assert_eq!(fs::read_dir(folder.path().join("store/incoming")).unwrap().count(), 0, "no temporary file is left");
}

#[tokio::test]
async fn a_store_is_never_created_implicitly_nor_over_something() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    assert!(matches!(FileObjects::open(&path).await, Err(Error::NotAStore { .. })));
    assert!(!path.exists());
    drop(FileObjects::create(&path).await.unwrap());
    assert!(matches!(FileObjects::create(&path).await, Err(Error::Exists { .. })));
    durable::write(&path.join("store"), b"clerestory objects 2\n").unwrap();
    assert!(matches!(FileObjects::open(&path).await, Err(Error::Newer { found: 2, known: 1, .. })));
    durable::write(&folder.path().join("file"), b"").unwrap();
    assert!(matches!(FileObjects::open(&folder.path().join("file")).await, Err(Error::NotAStore { .. })));
}

#[tokio::test]
async fn one_writer_and_any_number_of_readers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let writer = FileObjects::create(&path).await.unwrap();
    assert!(matches!(FileObjects::open(&path).await, Err(Error::Busy { .. })));
    let reader = FileObjects::open_read_only(&path).await.unwrap();
    let key = "a/b".parse().unwrap();
    writer.put(&key, Bytes::from_static(b"1")).await.unwrap();
    assert_eq!(reader.get(&key).await.unwrap().unwrap(), b"1"[..]);
    assert!(matches!(reader.put(&key, Bytes::from_static(b"1")).await, Err(Error::ReadOnly)));
    assert!(matches!(reader.put_all(Vec::new()).await, Err(Error::ReadOnly)));
    assert!(matches!(reader.replace(&key, Bytes::new()).await, Err(Error::ReadOnly)));
    assert!(matches!(reader.delete(&key).await, Err(Error::ReadOnly)));
    drop(writer);
    FileObjects::open(&path).await.unwrap();
}

#[tokio::test]
async fn what_a_crash_left_is_swept_and_never_listed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    drop(FileObjects::create(&path).await.unwrap());
    durable::write(&path.join("incoming/.tmp-1-1"), b"half").unwrap();
    let store = FileObjects::open(&path).await.unwrap();
    assert_eq!(fs::read_dir(path.join("incoming")).unwrap().count(), 0);
    assert!(store.list(&Listing::of(Folder::Root)).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn empty_folders_go_and_writers_do_not_mind() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let store = Arc::new(FileObjects::create(&path).await.unwrap());
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..8 {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            let key = format!("a/b/{task}").parse().unwrap();
            for _ in 0..50 {
                store.put(&key, Bytes::from_static(b"1")).await.unwrap();
                assert_eq!(store.get(&key).await.unwrap().unwrap(), b"1"[..]);
                store.delete(&key).await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    assert!(!path.join("objects/a/b").exists());
}
