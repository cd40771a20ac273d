//! A log that forks is found out, and the proof of it stands alone.

use std::sync::Arc;

use bytes::Bytes;
use log::{
    Audit, AuditFinding, AuditReport, Auditor, Misbehaviour, MisbehaviourError, ObjectSource, Witness as _, audit,
};
use tlog::{EntryIndex, KeyKind, SignedCheckpoint};

use crate::kit::{Bench, append, entry, key};

#[derive(Default)]
struct Seen(Vec<(u64, Bytes)>);

impl Auditor for Seen {
    fn entry(&mut self, index: EntryIndex, entry: &Bytes) {
        self.0.push((index.get(), entry.clone()));
    }

    fn findings(&mut self) -> Vec<String> {
        self.0.iter().filter(|(_, entry)| *entry == "entry 666").map(|(index, _)| format!("evil at {index}")).collect()
    }
}

async fn look(bench: &Bench, last: Option<SignedCheckpoint>) -> (AuditReport, Seen) {
    let witnesses = bench.witnesses.iter().map(|witness| Arc::clone(witness) as Arc<dyn log::Witness>).collect();
    let parts = Audit {
        source: Arc::new(ObjectSource(Arc::new(bench.memory.clone()))),
        key: bench.signer.verifier().clone(),
        policy: bench.policy.clone(),
        witnesses,
        last,
    };
    let mut seen = Seen::default();
    (audit(&parts, &mut seen).await.unwrap(), seen)
}

/// The same log's key over other entries, with witnesses that know nothing of the first.
async fn fork(bench: &Bench, count: u64) -> Bench {
    let forked = Bench { memory: Default::default(), locks: Default::default(), ..Bench::new().await };
    let forked = Bench { signer: Arc::clone(&bench.signer), policy: bench.policy.clone(), ..forked };
    let witnesses = bench.witnesses.iter().map(Arc::clone).collect();
    let forked = Bench { witnesses, ..forked };
    let memories: Vec<_> = bench.witnesses.iter().map(|witness| witness.latest.lock().unwrap().take()).collect();
    log::Log::create(&forked.parts()).await.unwrap();
    let (log, mut sequencer) = forked.open().await.unwrap();
    sequencer.step().await.unwrap();
    append(&forked, &log, &mut sequencer, 1000..1000 + count).await;
    for (witness, memory) in bench.witnesses.iter().zip(memories) {
        *witness.latest.lock().unwrap() = memory;
    }
    forked
}

fn proof(report: &AuditReport) -> Misbehaviour {
    let found = report.findings.iter().find_map(|finding| match finding {
        AuditFinding::Misbehaviour(proof) => Some(Misbehaviour::clone(proof)),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("no proof in {report:?}"))
}

/// The proof survives being written and read, and no bit of it may change.
fn stands_alone(bench: &Bench, proof: &Misbehaviour) {
    let text = proof.to_string();
    let key = bench.signer.verifier();
    let read = Misbehaviour::parse(text.as_bytes()).unwrap();
    assert_eq!((&read, read.to_string()), (proof, text.clone()));
    read.verify(key).unwrap();
    let stranger = crate::kit::key(key.name().as_str(), KeyKind::Ed25519);
    assert!(read.verify(stranger.verifier()).is_err());
    for bit in 0..text.len() * 8 {
        let mut flipped = text.clone().into_bytes();
        flipped[bit / 8] ^= 1 << (bit % 8);
        if let Ok(read) = Misbehaviour::parse(&flipped) {
            // Cosignatures are not part of the contradiction, and a line of theirs may change;
            // but then it is another text, which still proves the same.
            if read.verify(key).is_ok() {
                let heads =
                    |proof: &Misbehaviour| proof.checkpoints().map(|checkpoint| *checkpoint.checkpoint().head());
                assert_eq!(heads(&read), heads(proof), "bit {bit}");
            }
        }
    }
    for length in 0..text.len() {
        let read = Misbehaviour::parse(&text.as_bytes()[..length]);
        assert!(read.is_err() || read.unwrap().verify(key).is_ok(), "length {length}");
    }
    assert_eq!(Misbehaviour::parse(b"clerestory-misbehaviour/2\n"), Err(MisbehaviourError::Form));
}

#[tokio::test]
async fn an_honest_log_passes_and_only_new_entries_are_seen() {
    let (bench, log, mut sequencer) = Bench::opened().await;
    append(&bench, &log, &mut sequencer, 0..300).await;
    let (report, seen) = look(&bench, None).await;
    assert!(report.findings.is_empty(), "{report:?}");
    assert!(report.cosigned.unwrap().by.len() >= 3);
    assert_eq!(seen.0, (0..300).map(|number| (number, entry(number))).collect::<Vec<_>>());
    append(&bench, &log, &mut sequencer, 300..310).await;
    append(&bench, &log, &mut sequencer, 666..667).await;
    let (report, seen) = look(&bench, Some(report.checkpoint)).await;
    assert_eq!(seen.0.len(), 11);
    assert_eq!(seen.0[0], (300, entry(300)));
    let [AuditFinding::Entries(found)] = &report.findings[..] else { panic!("{report:?}") };
    assert_eq!(found, "evil at 310");
}

#[tokio::test]
async fn a_fork_since_the_last_audit_is_proven() {
    let (bench, log, mut sequencer) = Bench::opened().await;
    append(&bench, &log, &mut sequencer, 0..300).await;
    let (report, _) = look(&bench, None).await;
    for count in [300, 301, 700] {
        let forked = fork(&bench, count).await;
        let (report, _) = look(&forked, Some(report.checkpoint.clone())).await;
        stands_alone(&bench, &proof(&report));
    }
    // A smaller one than shown before, but of another tree than the log has: also proven if the
    // larger one's tiles are those that are served; here they are not, but it has shrunk.
    let forked = fork(&bench, 200).await;
    let (report, _) = look(&forked, Some(report.checkpoint)).await;
    assert!(report.findings.iter().any(|finding| matches!(finding, AuditFinding::Shrunk { .. })), "{report:?}");
}

#[tokio::test]
async fn a_split_view_is_found_by_asking_the_witnesses() {
    let (bench, log, mut sequencer) = Bench::opened().await;
    append(&bench, &log, &mut sequencer, 0..300).await;
    // The auditor is shown another tree than the witnesses have cosigned last.
    for count in [300, 500] {
        let forked = fork(&bench, count).await;
        let (report, _) = look(&forked, None).await;
        stands_alone(&bench, &proof(&report));
    }
    let forked = fork(&bench, 200).await;
    let (report, _) = look(&forked, None).await;
    assert!(report.findings.iter().any(|finding| matches!(finding, AuditFinding::Withheld { .. })), "{report:?}");
}

#[tokio::test]
async fn a_stale_log_is_told_from_a_fork() {
    let (bench, log, mut sequencer) = Bench::opened().await;
    append(&bench, &log, &mut sequencer, 0..300).await;
    let old = bench.object("checkpoint").unwrap();
    append(&bench, &log, &mut sequencer, 300..400).await;
    let (now, _) = look(&bench, None).await;
    // An old checkpoint over the present tiles: no contradiction, but a step back.
    bench.memory.0.lock().unwrap().insert("checkpoint".to_owned(), old);
    let (report, _) = look(&bench, Some(now.checkpoint)).await;
    let [AuditFinding::Shrunk { before, now }] = &report.findings[..] else { panic!("{report:?}") };
    assert_eq!((before.get(), now.get()), (400, 300));
}

#[tokio::test]
async fn a_missing_quorum_a_silent_witness_and_a_damaged_entry_are_found() {
    let (bench, log, mut sequencer) = Bench::opened().await;
    append(&bench, &log, &mut sequencer, 0..300).await;
    bench.witnesses[2].set_silent(true);
    bench.flip("tile/entries/000", 80);
    let checkpoint = SignedCheckpoint::parse(bench.object("checkpoint").unwrap()).unwrap();
    let keys = [bench.signer.verifier().clone(), bench.witnesses[0].key().clone()];
    let poor = checkpoint.only_verified(&keys).unwrap().to_string();
    bench.memory.0.lock().unwrap().insert("checkpoint".to_owned(), poor.into());
    let (report, seen) = look(&bench, None).await;
    assert!(report.cosigned.is_none());
    assert!(
        matches!(
            &report.findings[..],
            [AuditFinding::NoQuorum(_), AuditFinding::Silent { .. }, AuditFinding::Unreadable(_)]
        ),
        "{report:?}"
    );
    assert!(seen.0.is_empty(), "nothing unverified is shown");
}

#[test]
fn checkpoints_that_agree_prove_nothing() {
    let signer = key("log.example/1", KeyKind::Ed25519);
    let head = tlog::TreeHead { size: tlog::TreeSize::new(1), root: tlog::leaf_hash(b"a") };
    let checkpoint = tlog::Checkpoint::new("log.example/1".parse().unwrap(), head).unwrap();
    let signed = SignedCheckpoint::sign(checkpoint, &signer).unwrap();
    let pair = || [signed.clone(), signed.clone()];
    let key = signer.verifier();
    assert_eq!(Misbehaviour::same_size(pair(), key), Err(MisbehaviourError::NoContradiction));
    let prefix = (tlog::leaf_hash(b"b"), tlog::ConsistencyProof::empty());
    assert!(matches!(Misbehaviour::not_grown(pair(), prefix, key), Err(MisbehaviourError::Sizes { .. })));
}
