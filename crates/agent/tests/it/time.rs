//! Clocks that are wrong, and trees that only grow.

use stdx::{Clock as _, UnixTime};
use testkit::{SUPERVISOR_LOG, VENDOR_LOG};

use crate::scene::{DAY, Scene, write};
use crate::server::{Manner, Server};

#[test]
fn a_clock_in_2099_refuses_what_is_new_and_breaks_nothing() {
    let mut scene = Scene::installed(b"first");
    scene.release(b"second");
    let now = scene.world.clock.now();
    scene.world.clock.set(UnixTime::from_seconds(4_080_000_000));
    let report = scene.update();
    assert!(report.has("out-of-time") || report.has("stale"), "{report:?}");
    assert_eq!((scene.current().unwrap(), scene.status().exit_code()), (b"first".to_vec(), 1));
    // The high-water mark moved by evidence only: with the right time all is well.
    scene.world.clock.set(now);
    assert_eq!(scene.update().exit_code(), 0);
    assert_eq!(scene.current().unwrap(), b"second");
}

#[test]
fn a_clock_in_1970_makes_nothing_fresh() {
    let mut scene = Scene::installed(b"first");
    let old = std::fs::read(scene.channel.folder().join("status/slow.bundle")).unwrap();
    scene.pass(3 * DAY);
    assert_eq!(scene.update().exit_code(), 0);
    scene.release(b"second");
    scene.world.clock.set(UnixTime::EPOCH);
    // It goes on with the time that the evidence gives.
    assert_eq!(scene.update().exit_code(), 0);
    assert_eq!(scene.current().unwrap(), b"second");
    scene.server.misbehave("status/", Manner::Bytes(old));
    let report = scene.update();
    assert!(report.has("stale") || report.has("out-of-time") || report.has("rollback"), "{report:?}");
}

#[test]
fn without_a_logs_mirror_the_gap_is_remembered_and_with_one_it_is_closed() {
    let mut scene = Scene::installed(b"first");
    scene.pass(DAY / 4);
    scene.update();
    assert!(scene.status().logs.iter().any(|log| log.gap));
    // A mirror of both logs' tiles.
    let mirrors = [VENDOR_LOG, SUPERVISOR_LOG].map(|origin| {
        let folder = scene.folder.path().join(format!("mirror-{}", origin.len()));
        serve_tiles(&scene, origin, &folder);
        (origin, Server::new(&folder), folder)
    });
    let config: String = mirrors
        .iter()
        .map(|(origin, server, _)| format!("[[log]]\norigin = \"{origin}\"\nurl = \"{}\"\n", server.url()))
        .collect();
    scene.reconfigure(&config);
    assert_eq!(scene.update().exit_code(), 0);
    assert!(scene.status().logs.iter().all(|log| !log.gap), "{:?}", scene.status().logs);
    assert!(scene.journal().contains("gap-closed"));
    // From now on each step is proven as it is taken.
    scene.pass(DAY / 4);
    scene.release(b"second");
    for (origin, _, folder) in &mirrors {
        serve_tiles(&scene, origin, folder);
    }
    assert_eq!(scene.update().exit_code(), 0);
    assert_eq!(scene.current().unwrap(), b"second");
    assert!(scene.status().logs.iter().all(|log| !log.gap), "{:?}", scene.status().logs);
    // Of the tile that it has, it fetches what was added only; if what it kept is damaged, all of it.
    let kept = scene.config.state.join("tiles");
    for damaged in [false, true] {
        let files = || std::fs::read_dir(&kept).unwrap().map(|file| file.unwrap().path());
        // Eight bytes of each say which tile it is.
        let hashes = || files().map(|path| std::fs::metadata(path).unwrap().len() - 8).sum::<u64>();
        assert_eq!(files().count(), 2, "one tile of each log");
        for path in files().filter(|_| damaged) {
            let length = std::fs::metadata(&path).unwrap().len() as usize;
            stdx::durable::write(&path, &[&[0; 8][..], &vec![7; length - 8]].concat()).unwrap();
        }
        let before = hashes();
        let traffic = || mirrors.iter().map(|(_, server, _)| server.traffic().0).sum::<u64>();
        traffic();
        scene.pass(DAY / 4);
        mirrors.iter().for_each(|(origin, _, folder)| serve_tiles(&scene, origin, folder));
        assert_eq!(scene.update().exit_code(), 0);
        assert!(scene.status().logs.iter().all(|log| !log.gap), "{:?}", scene.status().logs);
        let after = hashes();
        assert!(after > before);
        let bytes = traffic();
        if damaged {
            assert!(bytes > after - before, "{bytes} bytes for {before} and then {after}");
        } else {
            assert_eq!(bytes, after - before);
        }
    }
    // A mirror that lies gives no proof, and no alarm either: the quorum stands in again.
    scene.pass(DAY / 4);
    mirrors[1].1.misbehave("tile", Manner::Bytes(vec![7; 32]));
    assert_eq!(scene.update().exit_code(), 0);
    assert!(scene.status().logs.iter().any(|log| log.gap));
}

fn serve_tiles(scene: &Scene, origin: &str, folder: &std::path::Path) {
    let log = scene.world.log(origin);
    let size = log.head().size.get();
    for width in 1..=size {
        let id = tlog::TileId::new(0, 0, u16::try_from(width).unwrap()).unwrap();
        let hashes: Vec<u8> =
            log.entries()[..width as usize].iter().flat_map(|entry| *tlog::leaf_hash(entry).as_bytes()).collect();
        write(folder, &id.to_string(), &hashes);
    }
}
