//! Objects on SeaweedFS.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use remote::{S3Objects, S3Settings};
use stdx::{Clock as _, SystemClock};
use storage::{Error, Folder, Listing, ObjectStore as _, Put, conformance};
use testkit::{ACCESS_KEY_ID, SECRET_ACCESS_KEY, Seaweed};

fn settings(endpoint: String, bucket: &str) -> S3Settings {
    S3Settings {
        endpoint,
        region: "eu-central-1".to_owned(),
        bucket: bucket.to_owned(),
        prefix: "domain/log".parse().unwrap(),
        access_key_id: ACCESS_KEY_ID.to_owned(),
        secret_access_key: SECRET_ACCESS_KEY.to_owned(),
    }
}

/// A bucket of one's own.
fn bucket(server: &Seaweed, name: &str) -> S3Settings {
    server.make_bucket(name);
    settings(server.endpoint(), name)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn s3_keeps_the_contract() {
    let server = Seaweed::shared();
    let store = S3Objects::create(&bucket(&server, "conformance")).await.unwrap();
    conformance::objects(Arc::new(store)).await.unwrap();
}

#[tokio::test]
async fn a_store_is_never_created_implicitly_nor_over_something() {
    let server = Seaweed::shared();
    let settings = bucket(&server, "once");
    assert!(matches!(S3Objects::open(&settings).await, Err(Error::NotAStore { .. })));
    drop(S3Objects::create(&settings).await.unwrap());
    assert!(matches!(S3Objects::create(&settings).await, Err(Error::Exists { .. })));
    let inside = S3Settings { prefix: "domain".parse().unwrap(), ..settings.clone() };
    assert!(matches!(S3Objects::create(&inside).await, Err(Error::Exists { .. })), "not around another either");
    S3Objects::open(&settings).await.unwrap();
    let beside = S3Settings { prefix: "domain/log2".parse().unwrap(), ..settings };
    S3Objects::create(&beside).await.unwrap();
}

#[tokio::test]
async fn what_is_wrong_with_the_service_is_said_at_once() {
    let server = Seaweed::shared();
    let good = bucket(&server, "wrong");
    let cases = [
        ("bucket", S3Settings { bucket: "nowhere".to_owned(), ..good.clone() }),
        ("secret", S3Settings { secret_access_key: "another".to_owned(), ..good.clone() }),
        ("user", S3Settings { access_key_id: "nobody".to_owned(), ..good }),
    ];
    for (name, settings) in cases {
        for error in [S3Objects::open(&settings).await.unwrap_err(), S3Objects::create(&settings).await.unwrap_err()] {
            let Error::Setup { problem, .. } = &error else { panic!("{name}: {error:?}") };
            let expected = if name == "bucket" { "no such bucket" } else { "refuses these credentials" };
            assert!(problem.contains(expected), "{name}: {problem}");
        }
    }
}

/// Nobody listens: as long as that may be a restart, it is tried again. Waits are drawn, so several try.
#[tokio::test]
async fn a_service_that_is_away_is_waited_for() {
    let away = settings("http://127.0.0.1:1".to_owned(), "away");
    let clock = SystemClock::new();
    let waited = join_all((0..16).map(|_| async {
        assert!(matches!(S3Objects::open(&away).await, Err(Error::Service { .. })));
        clock.monotonic()
    }));
    let waited = waited.await;
    assert!(waited.iter().all(|it| *it >= Duration::from_secs(5)), "{waited:?}");
}

/// Two processes replace the same object: the one that was asleep is told so.
#[tokio::test]
async fn nobody_replaces_what_he_has_not_seen() {
    let server = Seaweed::shared();
    let settings = bucket(&server, "replaced");
    let early = S3Objects::create(&settings).await.unwrap();
    let later = S3Objects::open(&settings).await.unwrap();
    let key = "checkpoint".parse().unwrap();
    early.replace(&key, Bytes::from_static(b"1")).await.unwrap();
    early.replace(&key, Bytes::from_static(b"2")).await.unwrap();
    // The later one takes over.
    assert_eq!(later.get(&key).await.unwrap().unwrap(), b"2"[..]);
    later.replace(&key, Bytes::from_static(b"3")).await.unwrap();
    let refused = early.replace(&key, Bytes::from_static(b"2b")).await;
    assert!(matches!(refused, Err(Error::Conflict { .. })), "{refused:?}");
    let again = early.replace(&key, Bytes::from_static(b"2c")).await;
    assert!(matches!(again, Err(Error::Conflict { .. })), "trying again is no seeing");
    assert_eq!(later.get(&key).await.unwrap().unwrap(), b"3"[..]);
    // Writing what is there is no harm, and having looked is having seen.
    early.replace(&key, Bytes::from_static(b"3")).await.unwrap();
    early.replace(&key, Bytes::from_static(b"4")).await.unwrap();
    assert_eq!(later.get(&key).await.unwrap().unwrap(), b"4"[..]);
}

#[tokio::test]
async fn listings_longer_than_a_page_are_whole() {
    let server = Seaweed::shared();
    let store = S3Objects::create(&bucket(&server, "pages")).await.unwrap();
    let all: Vec<storage::Key> = (0..1100).map(|n| format!("history/{n:06}").parse().unwrap()).collect();
    store.put_all(all.iter().map(|key| (key.clone(), Bytes::from_static(b"x"))).collect()).await.unwrap();
    let mut listing = Listing::of(Folder::Below("history".parse().unwrap()));
    let mut found = Vec::new();
    loop {
        let page = store.list(&listing).await.unwrap();
        let Some(last) = page.last() else { break };
        listing = listing.after(last.clone());
        found.extend(page);
    }
    assert_eq!(found, all);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_service_that_dies_under_load_loses_nothing_it_took() {
    let server = Seaweed::start();
    let store = Arc::new(S3Objects::create(&bucket(&server, "load")).await.unwrap());
    let (enough, taken) = tokio::sync::oneshot::channel();
    let writer = Arc::clone(&store);
    let writing = tokio::spawn(async move {
        let mut enough = Some(enough);
        for number in 0_u32.. {
            if number == 50 {
                enough.take().unwrap().send(()).unwrap();
            }
            let key = format!("object/{number}").parse().unwrap();
            if writer.put(&key, Bytes::from(vec![number as u8; 5000])).await.is_err() {
                return number;
            }
        }
        unreachable!()
    });
    taken.await.unwrap();
    tokio::task::block_in_place(|| server.kill());
    let failed = writing.await.unwrap();
    tokio::task::block_in_place(|| server.resume());
    for number in 0..failed {
        let key = format!("object/{number}").parse().unwrap();
        assert_eq!(store.get(&key).await.unwrap().unwrap(), vec![number as u8; 5000], "{key}");
    }
    // The one that failed may be there, or not; putting it again settles it.
    let key = format!("object/{failed}").parse().unwrap();
    let put = store.put(&key, Bytes::from(vec![failed as u8; 5000])).await.unwrap();
    assert!(matches!(put, Put::New | Put::Same));
}
