//! The custodian's own table: what outlives a region's key, and what does not outlive a change.

use std::path::Path;

use custody::{Change, ClosedShare, FileKeys, Live, ShareKeys, Table, TableError, TableFolders, retire};
use seal::{DataKey, Header, PrivateKey, Sealed, Share};
use stdx::{Digest, SystemEntropy, durable};

use crate::grant::ledger;
use crate::scene::Scene;

fn folders(folder: &Path) -> TableFolders {
    let [keys, rows] = ["keys", "rows"].map(|name| folder.join(name));
    durable::create_folder(&keys).unwrap();
    durable::create_folder(&rows).unwrap();
    TableFolders { keys, rows }
}

fn copy(key: &PrivateKey) -> PrivateKey {
    PrivateKey::from_text(&key.to_text()).unwrap()
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "lock")
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_destroyed_keys_shares_open_from_the_table_and_leave_it_for_good() {
    let scene = Scene::new();
    let folder = tempfile::tempdir().unwrap();
    let ledger = ledger(folder.path(), "state.sqlite").await;
    let folders = folders(folder.path());
    let table = Table::open(folders.clone()).unwrap();
    let objects = scene.objects();
    let headers: Vec<Header> = objects.iter().map(|object| Header::parse(object).unwrap().0).collect();
    let supervisor = "supervisor".parse().unwrap();
    let mut closed: Vec<ClosedShare> = headers.iter().map(|it| ClosedShare::of(it, &supervisor).unwrap()).collect();
    // A vault may hold an object whose label was changed.
    let mut relabelled = headers[0].clone();
    relabelled.bound.country = "CH".parse().unwrap();
    closed.push(ClosedShare::of(&relabelled, &supervisor).unwrap());
    let key = copy(&scene.custody.supervisor_key);
    let id = key.public().id();
    let keys = FileKeys::new(vec![key]);
    let live = Live { manifest: (7, Digest::of(b"a manifest")), closed: &closed };
    let moved = retire(&ledger, (&keys, &table), &id, live, &SystemEntropy).await.unwrap();
    assert_eq!(ledger.vault().await.unwrap(), Some(live.manifest));
    assert_eq!((moved.moved, moved.false_ones), (2, 1));
    let totals = ledger.totals(scene.now()).await.unwrap();
    assert_eq!((totals.uses, totals.opened, totals.moved), (0, 0, 3), "on record, and nobody's use");
    // Again, by another process, after a crash before the key was destroyed.
    let again = Table::open(folders.clone()).unwrap();
    let moved = retire(&ledger, (&keys, &again), &id, live, &SystemEntropy).await.unwrap();
    assert_eq!(moved.moved, 2);
    // Without the key: what the table gives is the share.
    let other = FileKeys::new(vec![copy(&scene.custody.member_key)]);
    for (object, (header, closed)) in objects.iter().zip(headers.iter().zip(&closed)) {
        let ours = table.find(closed).unwrap().unwrap();
        let member = ClosedShare::of(header, &"member".parse().unwrap()).unwrap();
        let theirs: Vec<Share> = other.open(&[member]).unwrap().into_iter().map(Result::unwrap).collect();
        assert!(Sealed::read(object, &DataKey::join([&ours, &theirs[0]])).is_ok());
    }
    assert!(table.find(&closed[2]).unwrap().is_none(), "a false label finds nothing");
    assert_eq!(table.rows(), 2);
    // One is erased: the new table lacks it, and the old one can't be opened, not even by whoever has kept its rows.
    let number = files(&folders.keys)[0].trim_end_matches(".key").to_owned();
    let rows = std::fs::read(folders.rows.join(format!("{number}.rows"))).unwrap();
    let erased = headers[0].bound.id;
    assert_eq!(table.change(Change { add: &[], erase: &[erased] }, &SystemEntropy).unwrap(), 1);
    let is_erased = |table: &Table| matches!(table.find(&closed[0]), Err(TableError::Erased(id)) if id == erased);
    assert!(is_erased(&table) && table.find(&closed[1]).unwrap().is_some());
    assert!(is_erased(&again), "the other process sees it");
    // A vault that still has it gets nobody to move it again, with the key still there.
    let moved = retire(&ledger, (&keys, &table), &id, live, &SystemEntropy).await.unwrap();
    assert_eq!((moved.moved, moved.false_ones, table.rows()), (1, 0, 1));
    let share = keys.open(&closed[..1]).unwrap().remove(0).unwrap();
    table.change(Change { add: &[(closed[0].clone(), share)], erase: &[] }, &SystemEntropy).unwrap();
    assert!(is_erased(&table) && table.rows() == 1);
    assert_eq!((files(&folders.keys).len(), files(&folders.rows).len()), (1, 1), "the old ones are gone");
    let next = files(&folders.rows)[0].clone();
    durable::write(&folders.rows.join(&next), &rows).unwrap();
    let restored = Table::open(folders.clone()).unwrap();
    assert!(matches!(restored.find(&closed[0]), Err(TableError::Damaged(_))), "old rows under the new key");
}

#[test]
fn a_table_that_was_not_finished_is_none_and_a_damaged_one_says_so() {
    let scene = Scene::new();
    let folder = tempfile::tempdir().unwrap();
    let folders = folders(folder.path());
    let table = Table::open(folders.clone()).unwrap();
    assert_eq!(table.rows(), 0);
    let header = Header::parse(&scene.objects()[0]).unwrap().0;
    let closed = ClosedShare::of(&header, &"supervisor".parse().unwrap()).unwrap();
    let keys = FileKeys::new(vec![copy(&scene.custody.supervisor_key)]);
    let share = || keys.open(std::slice::from_ref(&closed)).unwrap().remove(0).unwrap();
    table.change(Change { add: &[(closed.clone(), share())], erase: &[] }, &SystemEntropy).unwrap();
    // Killed between the rows and their key: the rows before count.
    durable::write(&folders.rows.join("2.rows"), b"clerestory-table 1\nhalf").unwrap();
    let table = Table::open(folders.clone()).unwrap();
    assert!(table.find(&closed).unwrap().is_some());
    table.change(Change { add: &[(closed.clone(), share())], erase: &[] }, &SystemEntropy).unwrap();
    assert_eq!((files(&folders.keys), table.rows()), (vec!["2.key".to_owned()], 1));
    let path = folders.rows.join("2.rows");
    let whole = std::fs::read(&path).unwrap();
    durable::write(&path, &whole[..whole.len() - 1]).unwrap();
    assert!(matches!(Table::open(folders.clone()), Err(TableError::Damaged(_))));
    durable::remove(&path).unwrap();
    assert!(matches!(Table::open(folders), Err(TableError::File { .. })));
}
