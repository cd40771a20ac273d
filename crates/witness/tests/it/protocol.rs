//! Each answer of C2SP tlog-witness v1.0.0, with its status.

use std::time::Duration;

use tlog::witness_protocol::{AddCheckpoint, origin_hash};
use tlog::{ConsistencyProof, KeyKind, NoteSignature, SignedCheckpoint, TreeSize};
use witness::{ConfigError, Error, Witness, WitnessParts};

use crate::kit::{Bench, Log, NOW, key};

#[tokio::test]
async fn a_log_that_grows_is_cosigned_step_by_step() {
    let bench = Bench::new().await;
    assert_eq!(bench.size().await, None, "nothing was cosigned yet");
    for (old, new) in [(0, 0), (0, 0), (0, 1), (1, 1), (1, 2), (2, 255), (255, 257), (257, 700), (700, 700)] {
        assert_eq!(bench.add(&bench.log.request(old, new)).await.unwrap(), NOW);
        assert_eq!(bench.size().await, Some(new as u64));
    }
}

#[tokio::test]
async fn status_404_unknown_origin() {
    let bench = Bench::new().await;
    let stranger = Log { signer: key("other.example", KeyKind::Ed25519), ..Log::new(3) };
    let error = bench.add(&stranger.request(0, 3)).await.unwrap_err();
    assert!(matches!(error, Error::UnknownOrigin(_)), "{error}");
    assert_eq!(error.status(), 404);
    let error = bench.witness.checkpoint(&origin_hash(&stranger.origin())).await.unwrap_err();
    assert_eq!(error.status(), 404);
    assert_eq!(bench.witness.checkpoint(&origin_hash(&bench.log.origin())).await.unwrap_err().status(), 404);
}

#[tokio::test]
async fn status_403_no_trusted_signature() {
    let bench = Bench::new().await;
    // Another key of the same name.
    let error = bench.add(&Log::new(3).request(0, 3)).await.unwrap_err();
    assert!(matches!(error, Error::NotSigned { .. }), "{error}");
    assert_eq!(error.status(), 403);
    // The right key's line over another text.
    let (text, other) = (bench.log.checkpoint(3).to_string(), bench.log.checkpoint(4).to_string());
    let mixed = format!("{}\n\n{}", text.split_once("\n\n").unwrap().0, other.split_once("\n\n").unwrap().1);
    let error = bench.witness.add_checkpoint(format!("old 0\n\n{mixed}").as_bytes()).await.unwrap_err();
    assert_eq!(error.status(), 403);
    assert_eq!(bench.size().await, None);
}

#[tokio::test]
async fn status_400_malformed() {
    let bench = Bench::new().await;
    let good = bench.log.request(0, 3).to_string();
    for bad in [
        String::new(),
        good.replacen("old 0", "old 00", 1),
        good.replacen("old 0", "old 4", 1),
        good.replacen("old 0\n", "old 0 \n", 1),
        good.replacen("old 0\n\n", "old 0\n", 1),
        good.trim_end().to_owned(),
        format!("{good}\n"),
        good.replacen("old 0\n", &format!("old 0\n{}", format!("{}\n", tlog::empty_root()).repeat(64)), 1),
    ] {
        let error = bench.witness.add_checkpoint(bad.as_bytes()).await.unwrap_err();
        assert_eq!(error.status(), 400, "{bad:?}: {error}");
    }
    bench.witness.add_checkpoint(good.as_bytes()).await.unwrap();
}

#[tokio::test]
async fn status_409_with_the_size_when_old_is_not_the_latest() {
    let bench = Bench::new().await;
    let error = bench.add(&bench.log.request(3, 5)).await.unwrap_err();
    assert!(matches!(error, Error::Stale { latest } if latest == TreeSize::ZERO), "{error}");
    bench.add(&bench.log.request(0, 5)).await.unwrap();
    for (old, new) in [(0, 7), (4, 5), (4, 4), (6, 7), (0, 5)] {
        let error = bench.add(&bench.log.request(old, new)).await.unwrap_err();
        assert!(matches!(error, Error::Stale { latest } if latest.get() == 5), "{error}");
        assert_eq!(error.status(), 409);
    }
    assert_eq!(bench.size().await, Some(5));
}

#[tokio::test]
async fn status_422_bad_proof() {
    let bench = Bench::new().await;
    let with_old_zero = AddCheckpoint::new(TreeSize::ZERO, bench.log.proof(2, 5), bench.log.checkpoint(5)).unwrap();
    assert_eq!(bench.add(&with_old_zero).await.unwrap_err().status(), 422, "a proof from size 0");
    bench.add(&bench.log.request(0, 5)).await.unwrap();
    let size = TreeSize::new(5);
    let checkpoint = bench.log.checkpoint(9);
    for proof in [ConsistencyProof::empty(), bench.log.proof(4, 9), bench.log.proof(5, 8)] {
        let error = bench.add(&AddCheckpoint::new(size, proof, checkpoint.clone()).unwrap()).await.unwrap_err();
        assert!(matches!(error, Error::BadProof(_)), "{error}");
        assert_eq!(error.status(), 422);
    }
    let equal = AddCheckpoint::new(size, bench.log.proof(4, 9), bench.log.checkpoint(5)).unwrap();
    assert_eq!(bench.add(&equal).await.unwrap_err().status(), 422, "a proof between equal sizes");
    let fork = bench.log.fork(9);
    let forked = AddCheckpoint::new(size, fork.proof(5, 9), fork.checkpoint(9)).unwrap();
    assert_eq!(bench.add(&forked).await.unwrap_err().status(), 422, "a tree that doesn't begin with the old one");
    assert_eq!(bench.size().await, Some(5));
}

#[tokio::test]
async fn status_422_size_zero_with_another_root() {
    let bench = Bench::new().await;
    let body = |origin: &str| format!("old 0\n\n{origin}\n0\n{}\n\n— x AAAAAAAA\n", tlog::leaf_hash(b""));
    let error = bench.witness.add_checkpoint(body("log.example/1").as_bytes()).await.unwrap_err();
    assert!(matches!(error, Error::EmptyRoot(_)), "{error}");
    assert_eq!(error.status(), 422);
    assert_eq!(bench.witness.add_checkpoint(body("stranger").as_bytes()).await.unwrap_err().status(), 404);
}

#[tokio::test]
async fn two_roots_for_one_size_are_an_alarm_and_evidence() {
    let bench = Bench::new().await;
    bench.add(&bench.log.request(0, 5)).await.unwrap();
    assert!(bench.witness.evidence(&bench.log.origin()).await.unwrap().is_none());
    let fork = bench.log.fork(5);
    let request = AddCheckpoint::new(TreeSize::new(5), ConsistencyProof::empty(), fork.checkpoint(5)).unwrap();
    let error = bench.add(&request).await.unwrap_err();
    assert!(matches!(error, Error::Fork { .. }), "{error}");
    assert_eq!(error.status(), 409);
    let evidence = bench.witness.evidence(&bench.log.origin()).await.unwrap().unwrap();
    for checkpoint in [&evidence.cosigned, &evidence.other] {
        checkpoint.verify_log(bench.log.signer.verifier()).unwrap();
        assert_eq!(checkpoint.checkpoint().size().get(), 5);
    }
    assert_ne!(evidence.cosigned.checkpoint().root(), evidence.other.checkpoint().root());
    assert_eq!(bench.size().await, Some(5), "the log may go on, if it goes on from what was cosigned");
    bench.add(&bench.log.request(5, 6)).await.unwrap();
}

#[tokio::test]
async fn evidence_is_kept_even_if_the_old_size_is_wrong() {
    let bench = Bench::new().await;
    bench.add(&bench.log.request(0, 5)).await.unwrap();
    let error = bench.add(&bench.log.fork(5).request(0, 5)).await.unwrap_err();
    assert!(matches!(error, Error::Stale { .. }), "{error}");
    assert!(bench.witness.evidence(&bench.log.origin()).await.unwrap().is_some());
}

#[tokio::test]
async fn only_verified_lines_are_kept() {
    let bench = Bench::new().await;
    let request = bench.log.request(0, 5);
    // A line that claims to be this witness's, and one of a stranger.
    let own = bench.witness.key();
    let [log_line] = request.checkpoint().signatures() else { panic!("one line") };
    let stranger = key("stranger", KeyKind::Ed25519);
    let mut note = request.checkpoint().note().clone();
    note.sign(&stranger).unwrap();
    let forged: NoteSignature = {
        use base64_line::line;
        line(own.name().as_str(), own.id().as_bytes(), &[7; 72]).parse().unwrap()
    };
    note.add(forged.clone()).unwrap();
    let checkpoint = SignedCheckpoint::parse(note.to_string()).unwrap();
    let request = AddCheckpoint::new(TreeSize::ZERO, ConsistencyProof::empty(), checkpoint).unwrap();
    bench.add(&request).await.unwrap();
    let kept = bench.witness.checkpoint(&origin_hash(&bench.log.origin())).await.unwrap();
    assert_eq!(kept.signatures().len(), 2);
    assert!(kept.signatures().contains(log_line) && !kept.signatures().contains(&forged));
}

mod base64_line {
    //! A signature line with any content, which `tlog` has no way to make.

    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    pub fn line(name: &str, id: &[u8], signature: &[u8]) -> String {
        let bytes: Vec<u8> = id.iter().chain(signature).copied().collect();
        let mut text = String::new();
        for chunk in bytes.chunks(3) {
            let word = chunk.iter().fold(0_u32, |word, &byte| word << 8 | u32::from(byte)) << (8 * (3 - chunk.len()));
            for position in 0..4 {
                let letter = ALPHABET[(word >> (18 - 6 * position)) as usize & 63];
                text.push(if position <= chunk.len() { char::from(letter) } else { '=' });
            }
        }
        format!("— {name} {text}\n")
    }
}

#[tokio::test]
async fn the_time_never_goes_back() {
    let mut bench = Bench::new().await;
    bench.add(&bench.log.request(0, 5)).await.unwrap();
    bench.clock.advance(Duration::from_secs(60));
    let later = bench.add(&bench.log.request(5, 5)).await.unwrap();
    assert_eq!(later, NOW.after(Duration::from_secs(60)));
    bench.clock.set(NOW);
    assert_eq!(bench.add(&bench.log.request(5, 6)).await.unwrap(), later);
    bench.restart();
    assert_eq!(bench.add(&bench.log.request(6, 7)).await.unwrap(), later, "not even after a restart");
    bench.clock.set(stdx::UnixTime::EPOCH);
    assert_eq!(bench.add(&bench.log.request(7, 8)).await.unwrap(), later);
}

#[tokio::test]
async fn without_a_clock_nothing_is_cosigned() {
    let bench = Bench::new().await;
    bench.clock.set(stdx::UnixTime::EPOCH);
    let error = bench.add(&bench.log.request(0, 5)).await.unwrap_err();
    assert!(matches!(error, Error::Cosign(_)), "{error}");
    assert_eq!(bench.size().await, None);
}

#[tokio::test]
async fn one_key_has_one_role() {
    let bench = Bench::new().await;
    let build = |signer, logs| {
        let locks = std::sync::Arc::clone(&bench.store) as std::sync::Arc<dyn storage::LockStore>;
        let clock = std::sync::Arc::clone(&bench.clock) as std::sync::Arc<dyn stdx::Clock>;
        Witness::new(WitnessParts { locks, clock, signer, logs }).err()
    };
    let log = bench.log.signer.verifier();
    let name = log.name().clone();
    let witness = key("w", KeyKind::Cosignature);
    let other = witness.verifier().clone();
    assert_eq!(build(key("w", KeyKind::Ed25519), vec![]), Some(ConfigError::NotACosigner("w".parse().unwrap())));
    assert_eq!(build(key(name.as_str(), KeyKind::Cosignature), vec![log.clone()]), Some(ConfigError::Shared(name)));
    let name = other.name().clone();
    assert_eq!(build(key("v", KeyKind::Cosignature), vec![other]), Some(ConfigError::NotALog(name)));
    assert_eq!(build(witness, vec![log.clone(), log.clone()]), None);
}
