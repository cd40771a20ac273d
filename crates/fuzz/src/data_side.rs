//! What lies in a vault, and what its readers say to each other.

use std::collections::BTreeSet;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use attest::StatementId;
use bytes::Bytes;
use ledger::{object_list_root, parse_object_list};
use seal::{
    Answered, BatchId, Bound, Custodian, Custodians, DataKey, ErasureFile, Header, Hop, Kem, PrivateKey, Sealed, Share,
};
use stdx::{Digest, Entropy, EntropyError};
use vault::{Chain, Lineage, SEGMENT_MARK, objects_of};

use crate::Target;
use crate::edits::edited;

pub(crate) const TARGETS: &[Target] = &[
    ("sealed-header", sealed_header),
    ("sealed-object", sealed_object),
    ("hop", hop),
    ("erasure-file", erasure_file),
    ("object-list", object_list),
    ("segment", segment),
    ("manifests", manifests),
];

/// The same bytes each time, so that an input does the same each time.
struct Counting(AtomicU64);

impl Entropy for Counting {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), EntropyError> {
        for part in buffer.chunks_mut(32) {
            let drawn = Digest::of(&self.0.fetch_add(1, Ordering::Relaxed).to_be_bytes());
            part.iter_mut().zip(drawn.as_bytes()).for_each(|(to, from)| *to = *from);
        }
        Ok(())
    }
}

const fn counting() -> Counting {
    Counting(AtomicU64::new(0))
}

/// A header lies where strangers write. What is accepted stands there as it was made, and says where its frames are.
fn sealed_header(bytes: &[u8]) {
    let Ok((header, start)) = Header::parse(bytes) else { return };
    assert_eq!(bytes.get(4..start), Some(&header.to_bytes()[..]));
    let whole = (0..header.frames()).filter_map(|number| header.place(number)).map(|place| place.end - place.start);
    assert_eq!(whole.sum::<u64>(), header.frames_bytes());
    assert_eq!(header.place(header.frames()), None);
    for share in &header.shares {
        let _ = share.wrapped();
    }
}

const PLAINTEXT: &[u8] = b"{\"event\":1}\n{\"event\":2}\n";

/// A sealed object, and its key.
static SEALED: LazyLock<(Vec<u8>, DataKey)> = LazyLock::new(|| {
    let entropy = counting();
    let keys = [("member", Kem::XWing), ("supervisor", Kem::P256)]
        .map(|(name, kem)| (name, PrivateKey::generate(kem, &entropy).expect("a key")));
    let custodian = |(organisation, key): &(&str, PrivateKey)| Custodian {
        organisation: organisation.parse().expect("a name"),
        key: key.public().clone(),
    };
    let custodians = Custodians::new(keys.iter().map(custodian).collect()).expect("two custodians");
    let bound = Bound {
        id: BatchId::draw(&entropy).expect("a name"),
        region: "zurich".parse().expect("a region"),
        country: "DE".parse().expect("a country"),
        class: "detections".parse().expect("a class"),
        policy: StatementId::of(b"a policy"),
    };
    let object = custodians.seal(bound, PLAINTEXT, &entropy).expect("an object");
    let (header, _) = Header::parse(&object).expect("genuine");
    let shares = header.shares.iter().zip(&keys).map(|(share, (_, key))| {
        let wrapped = share.wrapped().expect("genuine");
        Share::open(&wrapped, key, &header.bound.info(&share.custodian)).expect("genuine")
    });
    let key = DataKey::join(&shares.collect::<Vec<_>>());
    assert_eq!(Sealed::read(&object, &key).expect("genuine"), PLAINTEXT);
    (object, key)
});

/// Whatever is done to an object: what opens is what was sealed.
fn sealed_object(edits: &[u8]) {
    let (object, key) = &*SEALED;
    if let Ok(plaintext) = Sealed::read(&edited(object, edits), key) {
        assert_eq!(plaintext, PLAINTEXT);
    }
}

/// The keys of two workers.
static WORKERS: LazyLock<[PrivateKey; 2]> = LazyLock::new(|| {
    let entropy = counting();
    [0; 2].map(|_| PrivateKey::generate(Kem::XWing, &entropy).expect("a key"))
});

/// The first byte says which message of a conversation is edited: it is refused, unless it was left as it was.
fn hop(bytes: &[u8]) {
    let Some((place, edits)) = bytes.split_first() else { return };
    let (entropy, [asks, answers]) = (counting(), &*WORKERS);
    let hop = Hop { intent: StatementId::of(b"an intent"), asks: asks.public(), answers: answers.public() };
    let carried = |number: u8, message: Vec<u8>| {
        let there = if place % 5 == number { edited(&message, edits) } else { message.clone() };
        (there == message, there)
    };
    let (begun, message) = hop.begin(&entropy).expect("randomness");
    let (genuine, there) = carried(0, message);
    let answered = hop.answer(answers, &there, &entropy);
    assert_eq!(answered.is_ok(), genuine);
    let Ok((answering, message)) = answered else { return };
    let (genuine, there) = carried(1, message);
    let finished = hop.finish(begun, asks, &there);
    assert_eq!(finished.is_ok(), genuine);
    let Ok(asking) = finished else { return };
    let (question, mut reader) = asking.ask(b"a question").expect("the first");
    let (genuine, there) = carried(2, question);
    let taken = answering.take(&there);
    assert_eq!(taken.is_ok(), genuine);
    let Ok((question, mut replies)) = taken else { return };
    assert_eq!(question, b"a question");
    let frame = replies.frame(b"a frame").expect("the first");
    for (number, frame, genuinely) in
        [(3, frame, Answered::Frame(b"a frame".to_vec())), (4, replies.last(b""), Answered::Last(Vec::new()))]
    {
        let (genuine, there) = carried(number, frame);
        let read = reader.read(&there);
        assert_eq!(read.is_ok(), genuine);
        let Ok(read) = read else { return };
        assert_eq!(read, genuinely);
    }
    assert!(reader.is_ended());
}

fn erasure_file(bytes: &[u8]) {
    let Ok(file) = ErasureFile::parse(bytes) else { return };
    let again = ErasureFile::parse(&file.to_bytes()).expect("what was written");
    assert_eq!(again.to_bytes(), file.to_bytes());
    let _: BTreeSet<BatchId> = file.owners.iter().map(seal::OwnerSecret::name).collect();
}

/// A list is taken for the root of its own objects only.
fn object_list(bytes: &[u8]) {
    let (objects, _) = bytes.as_chunks::<32>();
    let objects: Vec<Digest> = objects.iter().map(|object| Digest::from_bytes(*object)).collect();
    let Some(root) = object_list_root(&objects) else { return };
    let is_whole = bytes.len() == objects.len() * 32;
    assert_eq!(parse_object_list(bytes, &root), is_whole.then_some(objects));
    assert_eq!(parse_object_list(bytes, &Digest::of(bytes)), None);
}

/// What is there in a segment lies in it, in its order.
fn segment(bytes: &[u8]) {
    let segment = Bytes::copy_from_slice(bytes);
    let Ok(objects) = objects_of(&segment) else { return };
    let mut rest = bytes.strip_prefix(SEGMENT_MARK).expect("a segment has its mark");
    for object in &objects {
        let length = u32::try_from(object.len()).expect("it lies in the input").to_be_bytes();
        while let Some(after) = rest.strip_prefix(&[0; 4]) {
            rest = after;
        }
        rest = rest.strip_prefix(&length).and_then(|rest| rest.strip_prefix(&object[..])).expect("the next object");
    }
    assert!(rest.iter().all(|byte| *byte == 0));
}

/// Manifests, a line each. What is refused changes nothing, and everybody who reads them sees the same.
fn manifests(bytes: &[u8]) {
    let region = || "zurich".parse().expect("a region");
    let (mut chain, mut lineage) = (Chain::new(region()), Lineage::new(region(), |_| true));
    for manifest in bytes.split(|byte| *byte == b'\n') {
        let next = chain.next();
        let read = chain.read(manifest);
        assert_eq!(read.is_ok(), lineage.read(manifest).is_ok());
        assert_eq!(chain.next(), next + u64::from(read.is_ok()));
        assert_eq!(chain.next(), lineage.chain().next());
        assert!(lineage.there().is_subset(&lineage.found().map(|(id, _)| *id).collect()));
    }
}
