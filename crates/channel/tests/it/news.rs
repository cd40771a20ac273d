//! What is new, in one answer.

use std::collections::BTreeSet;

use attest::Ring;
use channel::{NEWS_BYTES_MAX, News, NewsError};
use proptest::prelude::any;
use proptest::{prop_assert_eq, proptest};
use stdx::Digest;
use testkit::{PRODUCT, ReleaseOptions};

use crate::vendor::Vendor;

/// What the channel tells of itself from a moment on.
struct Moment(channel::Shown);

impl Moment {
    fn of(vendor: &Vendor) -> Self {
        Self(vendor.channel.shown().unwrap())
    }

    fn news(&self, vendor: &Vendor, ring: Ring) -> Option<News> {
        let now = vendor.channel.shown().unwrap();
        if now.state(ring) == self.0.state(ring) {
            return None;
        }
        vendor.channel.news(&now, ring, &now.added(&self.0)).unwrap()
    }
}

#[test]
fn what_was_published_is_in_it_and_what_was_there_is_not() {
    let mut vendor = Vendor::new();
    vendor.publish(PRODUCT, b"content").1.unwrap();
    let before = Moment::of(&vendor);
    assert_eq!(before.news(&vendor, Ring::All), None);
    vendor.publish(PRODUCT, b"newer").1.unwrap();
    let news = before.news(&vendor, Ring::All).unwrap();
    assert_eq!(Some(news.state), vendor.channel.shown().unwrap().state(Ring::All));
    let absent = ["metadata/2.root.json", "policy/2.bundle"];
    assert_eq!(news.absent, absent.map(str::to_owned).into(), "what an endpoint would ask for in vain");
    let begin = |path: &String| path.split(|byte: char| byte.is_ascii_hexdigit()).next().unwrap().to_owned();
    let folders: Vec<String> = news.files.keys().map(begin).collect();
    assert!(news.files.contains_key("metadata/timestamp.json"), "{folders:?}");
    assert!(news.files.keys().any(|path| path.ends_with(".snapshot.json")));
    assert!(news.files.values().any(|file| file == b"newer") && !news.files.values().any(|file| file == b"content"));
    for (path, bytes) in &news.files {
        assert_eq!(std::fs::read(vendor.channel.folder().join(path)).unwrap(), *bytes, "{path}");
    }
    // Of what was replaced twice the newest is enough.
    vendor.publish(PRODUCT, b"the third").1.unwrap();
    let news = before.news(&vendor, Ring::All).unwrap();
    let of = |end: &str| news.files.keys().filter(|path| path.ends_with(end)).count();
    assert_eq!((of(".snapshot.json"), of(".products.json"), of(".bundle")), (1, 1, 1), "{:?}", news.files.keys());
    assert_eq!(News::parse(&news.to_bytes()).unwrap(), news);
}

#[test]
fn endpoints_of_a_ring_are_told_of_what_is_for_them() {
    let mut vendor = Vendor::new();
    vendor.publish(PRODUCT, b"content").1.unwrap();
    let before = Moment::of(&vendor);
    vendor.with(|channel, signing| channel.refresh(signing)).unwrap();
    assert_eq!(before.news(&vendor, Ring::Canary), None, "a renewed timestamp is none");
    let options = ReleaseOptions { ring: Ring::Canary, ..ReleaseOptions::default() };
    let mut released = vendor.world.release_with(PRODUCT, "1.0", &[("a", b"for canaries")], &options);
    let (approved, artifacts) = (vendor.approve(&released), vendor.artifacts(&[b"for canaries"]));
    let publication = channel::Publication { approved: &approved, bundle: &released.bundle, artifacts: &artifacts };
    vendor.with(|channel, signing| channel.publish(&publication, signing)).unwrap();
    assert!(before.news(&vendor, Ring::Canary).is_some());
    assert_eq!((before.news(&vendor, Ring::Early), before.news(&vendor, Ring::All)), (None, None));
    // A machine may have another product in a later ring: what gets there is for it too.
    let before_early = Moment::of(&vendor);
    vendor.promote(&mut released, Ring::Early);
    assert!(before_early.news(&vendor, Ring::Canary).is_some() && before_early.news(&vendor, Ring::Early).is_some());
    assert_eq!(before.news(&vendor, Ring::All), None);
    // What forbids is for all of them.
    let (status, bundle) = vendor.status();
    vendor.channel.publish_status(&status, &bundle).unwrap();
    let news = before.news(&vendor, Ring::All).unwrap();
    assert_eq!(news.files["status/slow.bundle"], bundle.to_bytes());
    assert!(!news.files.values().any(|file| file == b"for canaries"), "which nobody else takes yet");
}

#[test]
fn it_is_as_long_as_it_may_be_and_no_longer() {
    let mut vendor = Vendor::new();
    let before = Moment::of(&vendor);
    vendor.publish(PRODUCT, &vec![7; NEWS_BYTES_MAX]).1.unwrap();
    let news = before.news(&vendor, Ring::All).unwrap();
    assert!(news.files.values().all(|file| file.len() < NEWS_BYTES_MAX / 2), "what is large is asked for");
    assert!(news.to_bytes().len() <= NEWS_BYTES_MAX);
    assert!(news.files.keys().any(|path| path.ends_with("bundle")));
    assert!(matches!(News::parse(&vec![0; NEWS_BYTES_MAX + 1]), Err(NewsError::TooLong(_))));
}

#[test]
fn other_bytes_are_refused() {
    let state = Digest::of(b"a state");
    let none = News::none(state).to_bytes();
    let golden = format!("clerestory-news/v1\n{{\"state\":\"{state}\",\"absent\":[],\"files\":{{}}}}\n");
    assert_eq!(String::from_utf8(none.clone()).unwrap(), golden);
    let news = News {
        state,
        absent: BTreeSet::from(["policy/2.bundle".to_owned()]),
        files: [("metadata/timestamp.json".to_owned(), b"{}".to_vec())].into(),
    };
    let good = news.to_bytes();
    assert!(matches!(News::parse(b"clerestory-news/v2\n"), Err(NewsError::Version)));
    assert!(matches!(News::parse(&good[..good.len() - 1]), Err(NewsError::OtherContent)));
    assert!(matches!(News::parse(&[&good[..], b"x"].concat()), Err(NewsError::OtherContent)));
    let text = String::from_utf8(good).unwrap();
    for (from, to) in [(",\"files\"", ", \"files\""), ("[\"policy", "[\"status/\",\"policy"), (":2}", ":2,\"a\":1}")] {
        let bad = text.replace(from, to);
        assert!(bad != text && matches!(News::parse(bad.as_bytes()), Err(NewsError::Header(_))), "{bad}");
    }
    for outside in ["tile/0", "../policy", "policy", "/policy/2.bundle", ""] {
        let bad = text.replace("policy/2.bundle", outside);
        assert!(matches!(News::parse(bad.as_bytes()), Err(NewsError::Header(_))), "{bad}");
    }
    let endless = text.replace("{}", &" ".repeat(100)).replace('}', &" ".repeat(100 << 10));
    assert!(matches!(News::parse(endless.as_bytes()), Err(NewsError::Header(_))));
    let huge = text.replace(":2}", &format!(":{}}}", u64::MAX));
    assert!(matches!(News::parse(huge.as_bytes()), Err(NewsError::OtherContent)));
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        files in proptest::collection::btree_map("(metadata|patches|policy|status|targets)/[a-z/.]{1,20}", proptest::collection::vec(any::<u8>(), 0..200), 0..9),
        absent in proptest::collection::btree_set("policy/[a-z/.]{1,20}", 0..4),
    ) {
        let news = News { state: Digest::of(b"s"), absent, files };
        prop_assert_eq!(News::parse(&news.to_bytes()).unwrap(), news);
    }
}
