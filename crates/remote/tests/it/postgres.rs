//! Locks and the catalog in PostgreSQL.

use std::sync::Arc;

use bytes::Bytes;
use remote::{PostgresSettings, PostgresStore};
use storage::{Catalog as _, Error, LockStore as _, Swap, conformance};
use testkit::Postgres;

fn settings(server: &Postgres, schema: &str) -> PostgresSettings {
    PostgresSettings {
        url: server.url(),
        password: Some(server.password().to_owned()),
        schema: schema.parse().unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn postgresql_keeps_the_contracts() {
    let server = Postgres::shared();
    let store = PostgresStore::create(&settings(&server, "conformance")).await.unwrap();
    conformance::locks(Arc::new(store.clone())).await.unwrap();
    conformance::catalog(Arc::new(store.clone())).await.unwrap();
    assert!(store.check().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn several_processes_contend_for_one_lock() {
    let server = Postgres::shared();
    let settings = settings(&server, "contended");
    let stores = [PostgresStore::create(&settings).await.unwrap(), PostgresStore::open(&settings).await.unwrap()];
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
async fn a_store_is_never_created_implicitly_nor_over_something() {
    let server = Postgres::shared();
    let settings = settings(&server, "once");
    assert!(matches!(PostgresStore::open(&settings).await, Err(Error::NotAStore { .. })));
    assert!(matches!(PostgresStore::open(&settings).await, Err(Error::NotAStore { .. })), "opening made nothing");
    PostgresStore::create(&settings).await.unwrap().close().await;
    assert!(matches!(PostgresStore::create(&settings).await, Err(Error::Exists { .. })));
    PostgresStore::open(&settings).await.unwrap();
}

#[tokio::test]
async fn domains_share_a_server_and_nothing_else() {
    let server = Postgres::shared();
    let one = PostgresStore::create(&settings(&server, "one")).await.unwrap();
    let other = PostgresStore::create(&settings(&server, "other-1.x")).await.unwrap();
    let key = "lock".parse().unwrap();
    assert!(matches!(one.compare_and_swap(&key, None, Bytes::new()).await, Ok(Swap::Won(_))));
    assert!(other.get(&key).await.unwrap().is_none());
}

#[tokio::test]
async fn what_is_wrong_with_the_server_is_said_at_once() {
    let server = Postgres::shared();
    let good = settings(&server, "wrong");
    let cases = [
        ("password", PostgresSettings { password: Some("another".to_owned()), ..good.clone() }),
        ("no password", PostgresSettings { password: None, ..good.clone() }),
        ("database", PostgresSettings { url: server.url().replace("/postgres", "/nowhere"), ..good.clone() }),
        ("nobody there", PostgresSettings { url: "postgres://me@%2Fnonexistent/x".to_owned(), ..good.clone() }),
        ("no URL", PostgresSettings { url: "mysql".to_owned(), ..good }),
    ];
    for (name, settings) in cases {
        let error = PostgresStore::open(&settings).await.unwrap_err();
        let expected = match (name, &error) {
            ("password" | "no password", Error::Setup { problem, .. }) => problem.contains("credentials"),
            ("database", Error::Setup { problem, .. }) => problem.contains("no such database"),
            ("nobody there" | "no URL", Error::Service { .. }) => true,
            _ => false,
        };
        assert!(expected, "{name}: {error:?}");
    }
}

#[tokio::test]
async fn a_server_that_forgets_is_refused() {
    let server = Postgres::start_with(&["fsync=off"]);
    let Err(Error::Setup { problem, .. }) = PostgresStore::create(&settings(&server, "store")).await else {
        panic!("taken");
    };
    assert!(problem.contains("`fsync` is `off`"), "{problem}");
    // What a connection alone can set, it sets itself.
    let server = Postgres::start_with(&["synchronous_commit=off"]);
    PostgresStore::create(&settings(&server, "store")).await.unwrap();
}

/// The swap may or may not have happened: only reading tells, and what was won is still there.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_that_dies_under_load_loses_no_swap() {
    let server = Postgres::start();
    let settings = settings(&server, "load");
    let store = PostgresStore::create(&settings).await.unwrap();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..8_u32 {
        let store = store.clone();
        writers.spawn(async move {
            let key = format!("lock/{writer}").parse().unwrap();
            let mut version = None;
            for round in 0_u32.. {
                match store.compare_and_swap(&key, version.as_ref(), Bytes::from(round.to_string())).await {
                    Ok(Swap::Won(won)) => version = Some(won),
                    Ok(Swap::Lost) => panic!("nobody else writes {key}"),
                    Err(_) => return (key, round),
                }
            }
            unreachable!()
        });
    }
    // Under load means: some swaps are through, others are on their way.
    let probe = "lock/7".parse().unwrap();
    while store.get(&probe).await.unwrap().is_none_or(|found| found.bytes.len() < 2) {}
    server.kill();
    let stopped = writers.join_all().await;
    server.resume();
    for (key, failed) in stopped {
        let found = store.get(&key).await.unwrap();
        let rounds = found.map_or(0, |found| std::str::from_utf8(&found.bytes).unwrap().parse::<u32>().unwrap() + 1);
        // Rounds 0 to `failed - 1` were won; the one that failed may have happened.
        assert!(rounds == failed || rounds == failed + 1, "{key}: {rounds}, failed {failed}");
    }
    let record = storage::RecordKey { table: "t".parse().unwrap(), key: "k".parse().unwrap() };
    store.put(&record, Bytes::from_static(b"1")).await.unwrap();
}
