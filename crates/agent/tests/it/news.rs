//! What a mirror gives in advance is taken as what it would have given when asked, and believed no more.

use std::time::Duration;

use agent::{Ahead, Endpoint, Ports, RealDisk, Report, Watch};
use attest::Ring;
use channel::{News, Shown, layout};

use crate::scene::{Scene, write};
use crate::server::Manner;

/// An endpoint with the first of two releases; and what leads to the second.
fn scene() -> (Scene, Shown) {
    let mut scene = Scene::installed(b"first");
    let before = scene.channel.shown().unwrap();
    scene.release(b"second");
    scene.publish_status();
    (scene, before)
}

fn news(scene: &Scene, before: &Shown) -> News {
    let now = scene.channel.shown().unwrap();
    scene.channel.news(&now, Ring::All, &now.added(before)).unwrap().unwrap()
}

fn ahead(scene: &Scene, news: &News) -> Ahead {
    let url = |path: &String| scene.config.channel[0].join(&format!("/{path}"));
    let there = news.files.iter().map(|(path, bytes)| (url(path), Some(bytes.clone())));
    there.chain(news.absent.iter().map(|path| (url(path), None))).collect()
}

fn update(scene: &Scene, ahead: Ahead) -> Report {
    let client = scene.ports(&RealDisk).client.ahead(ahead);
    Endpoint::open(&scene.config, Ports { client: &client, ..scene.ports(&RealDisk) }).unwrap().update().unwrap()
}

#[test]
fn one_answer_is_all_that_an_endpoint_needs() {
    let (scene, before) = scene();
    scene.server.traffic();
    let report = update(&scene, ahead(&scene, &news(&scene, &before)));
    assert_eq!((report.exit_code(), scene.current().unwrap()), (0, b"second".to_vec()), "{report:?}");
    assert_eq!(scene.server.traffic().1, 0, "nothing is asked for");
    let (asked, before) = self::scene();
    drop(before);
    asked.server.traffic();
    assert_eq!(asked.update().exit_code(), 0);
    assert!(asked.server.traffic().1 >= 7, "and otherwise much is");
}

#[test]
fn nothing_in_it_is_believed_for_having_come_so() {
    let count = {
        let (scene, before) = scene();
        news(&scene, &before).files.len()
    };
    for place in 0..count {
        let (scene, before) = scene();
        let good = news(&scene, &before);
        let path = good.files.keys().nth(place).unwrap();
        let refused = |bad: &News, why: &str| {
            let report = update(&scene, ahead(&scene, bad));
            assert_eq!(scene.current().unwrap(), b"first", "{why} {path}: {report:?}");
            report.exit_code()
        };
        // What is said not to be there, as when the mirror withholds it.
        let mut bad = good.clone();
        bad.files.remove(path);
        bad.absent.insert(path.clone());
        assert_ne!(refused(&bad, "no"), 0, "{path}");
        let mut bad = good.clone();
        let bytes = bad.files.get_mut(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        assert_ne!(refused(&bad, "other"), 0, "{path}");
        // Each of these was a look at one mirror at one moment: the next finds everything.
        assert_eq!(scene.update().exit_code(), 0, "{path}");
        assert_eq!(scene.current().unwrap(), b"second", "{path}");
    }
}

/// What the watch says within half a minute, as far as it says anything that leads on.
fn told(watch: &Watch) -> Ahead {
    let mut told = watch.wait(Duration::from_secs(30)).unwrap();
    if told.is_empty() {
        told = watch.wait(Duration::from_secs(30)).unwrap();
    }
    told
}

#[test]
fn it_is_waited_for_where_a_server_keeps_the_question() {
    let (mut scene, before) = scene();
    scene.config.watch_s = Some(1);
    let state = before.state(Ring::All).unwrap();
    let folder = scene.channel.folder().to_owned();
    // The newest state leads nowhere: a server that has no news for it gives nothing.
    let news = news(&scene, &before);
    write(&folder, "news/all", &News::none(state).to_bytes());
    scene.server.misbehave(&layout::news(Ring::All, Some(&state)), Manner::Bytes(news.to_bytes()));
    scene.server.misbehave(&layout::news(Ring::All, Some(&news.state)), Manner::Bytes(Vec::new()));
    let watch = Watch::start(&scene.config, scene.ports(&RealDisk).client).unwrap().unwrap();
    let told = told(&watch);
    assert_eq!(told, ahead(&scene, &news));
    assert_eq!(update(&scene, told).exit_code(), 0);
    assert_eq!(scene.current().unwrap(), b"second");
    // A server that was started again, and is where it was, is nothing new.
    write(&folder, "news/all", &News::none(news.state).to_bytes());
    scene.server.behave();
    scene.server.misbehave(&layout::news(Ring::All, Some(&news.state)), Manner::Status(404));
    let mut asked = 0;
    while asked < 4 {
        assert_eq!(watch.wait(Duration::from_millis(100)), None);
        asked += scene.server.traffic().1;
    }
}

#[test]
fn where_no_server_keeps_the_question_it_is_asked_again() {
    for manner in [Manner::Bytes(b"no news".to_vec()), Manner::Status(404), Manner::Endless, Manner::CutShort] {
        let mut scene = Scene::installed(b"first");
        scene.config.watch_s = Some(1);
        scene.server.misbehave("news/", manner.clone());
        scene.server.traffic();
        let watch = Watch::start(&scene.config, scene.ports(&RealDisk).client).unwrap().unwrap();
        // A look has been before, and so it was seen what there was.
        let mut asked = 0;
        while asked < 4 {
            assert_eq!(watch.wait(Duration::from_millis(100)), None, "{manner:?}");
            asked += scene.server.traffic().1;
        }
        scene.pass(Duration::from_secs(1));
        assert_eq!(watch.wait(Duration::from_secs(30)), Some(Ahead::new()), "{manner:?}");
    }
}

#[test]
fn what_comes_while_a_server_that_had_news_keeps_no_question_is_not_missed() {
    // It is full, it is away, it gives something else: whether it was asked before something came, or after.
    for manner in [Manner::Status(503), Manner::Redirecting, Manner::Bytes(b"no news".to_vec())] {
        let mut scene = Scene::installed(b"first");
        scene.config.watch_s = Some(1);
        let state = scene.channel.shown().unwrap().state(Ring::All).unwrap();
        let known = layout::news(Ring::All, Some(&state));
        write(scene.channel.folder(), "news/all", &News::none(state).to_bytes());
        scene.server.misbehave(&known, Manner::Bytes(Vec::new()));
        let watch = Watch::start(&scene.config, scene.ports(&RealDisk).client).unwrap().unwrap();
        assert_eq!(watch.wait(Duration::from_secs(30)), Some(Ahead::new()), "{manner:?}");
        scene.server.behave();
        scene.server.misbehave("news/", manner.clone());
        assert_eq!(watch.wait(Duration::from_secs(30)), Some(Ahead::new()), "something may have come: {manner:?}");
        scene.pass(Duration::from_secs(1));
        assert_eq!(watch.wait(Duration::from_secs(30)), Some(Ahead::new()), "{manner:?}");
    }
}
