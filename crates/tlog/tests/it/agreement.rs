//! The same answers as four implementations by others.

use signed_note::{Note as TheirNote, Signer as _, StandardSigner, StandardVerifier, VerifierList};
use tlog::{ConsistencyProof, EntryIndex, Growth, Hash, LogPolicy, Note, Tree, TreeHead, TreeSize};
use tlog_tiles::{HashReader, prove_record, prove_tree, stored_hashes, tree_hash};

use crate::{head, leaves, log_key, signed, witness_key};

/// All stored hashes of a tree in tlog_tiles' order.
struct Stored(Vec<tlog_tiles::Hash>);

impl HashReader for Stored {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<tlog_tiles::Hash>, tlog_tiles::Error> {
        Ok(indexes.iter().map(|index| self.0[*index as usize]).collect())
    }
}

fn ours(hashes: &[tlog_tiles::Hash]) -> Vec<Hash> {
    hashes.iter().map(|hash| Hash::from_bytes(hash.0)).collect()
}

#[test]
fn tlog_tiles_computes_the_same_roots_proofs_and_paths() {
    let leaves = leaves(300);
    let (mut stored, mut set, mut edge) = (Stored(Vec::new()), tlog::TileSet::new(), tlog::TreeEdge::new());
    for index in 0..300_u64 {
        let new = stored_hashes(index, format!("entry {index}").as_bytes(), &stored).unwrap();
        stored.0.extend(new);
        edge.append(&leaves[index as usize], |tile, bytes| set.insert(tile, bytes.to_vec()));
        let size = index + 1;
        let root = tree_hash(size, &stored).unwrap();
        assert_eq!(Hash::from_bytes(root.0), edge.root());
        if size % 37 != 0 && size < 255 {
            continue;
        }
        let mut now = set.clone();
        edge.partial_tiles().for_each(|(tile, bytes)| now.insert(tile, bytes.to_vec()));
        for (tile, bytes) in now.iter() {
            let path = format!("tile/8/{}", tile.path().strip_prefix("tile/").unwrap());
            let theirs = tlog_tiles::Tile::from_path(&path).unwrap();
            assert_eq!(theirs.read_data(&stored).unwrap(), bytes, "{path}");
        }
        let tree = Tree::new(&now, edge.head());
        for index in (0..size).step_by(11) {
            let (_, proof) = tree.inclusion(EntryIndex::new(index)).unwrap();
            assert_eq!(proof.hashes(), ours(&prove_record(size, index, &stored).unwrap()));
        }
        for old in (1..=size).step_by(7) {
            let (before, proof) = tree.consistency(TreeSize::new(old)).unwrap();
            let theirs = prove_tree(size, old, &stored).unwrap();
            assert_eq!(proof.hashes(), ours(&theirs));
            let before = tlog_tiles::Hash(*before.root.as_bytes());
            tlog_tiles::check_tree(&theirs, size, root, old, before).unwrap();
        }
    }
}

#[test]
fn ct_merkle_accepts_our_proofs_and_we_accept_its() {
    use ct_merkle::mem_backed_tree::MemoryBackedTree;
    let leaves = leaves(66);
    let mut theirs = MemoryBackedTree::<sha2::Sha256, Vec<u8>>::new();
    for size in 1..=66_u64 {
        theirs.push(format!("entry {}", size - 1).into_bytes());
        let new = head(&leaves[..size as usize]);
        assert_eq!(theirs.root().as_bytes().as_slice(), new.root.as_bytes());
        for index in 0..size {
            let proof = theirs.prove_inclusion(index as usize);
            let hashes = split(proof.as_bytes());
            let proof = tlog::InclusionProof::new(hashes).unwrap();
            proof.verify(EntryIndex::new(index), &leaves[index as usize], &new).unwrap();
        }
        for old in 1..size {
            let proof = theirs.prove_consistency((size - old) as usize);
            let old = head(&leaves[..old as usize]);
            let proof = ConsistencyProof::new(split(proof.as_bytes())).unwrap();
            proof.verify(Growth { old: &old, new: &new }).unwrap();
        }
    }
}

fn split(bytes: &[u8]) -> Vec<Hash> {
    bytes.as_chunks::<32>().0.iter().map(|hash| Hash::from_bytes(*hash)).collect()
}

#[test]
fn signed_note_reads_ours_and_we_read_its() {
    let key = log_key();
    let verifier = StandardVerifier::new(&key.verifier().to_string()).unwrap();
    let signer = StandardSigner::new(&key.to_secret_text()).unwrap();
    assert_eq!(signer.key_id(), u32::from_be_bytes(*key.verifier().id().as_bytes()));
    let mut note = Note::new("one\n\ntwo\n").unwrap();
    note.sign(&key).unwrap();
    let theirs = TheirNote::from_bytes(note.to_string().as_bytes()).unwrap();
    assert_eq!(theirs.text(), note.text().as_bytes());
    assert_eq!(theirs.verify(&VerifierList::new(vec![Box::new(verifier)])).unwrap().0.len(), 1);
    let mut theirs = TheirNote::new(b"one\n\ntwo\n", &[]).unwrap();
    theirs.add_sigs(&[&signer]).unwrap();
    assert_eq!(theirs.to_bytes(), note.to_string().as_bytes(), "Ed25519 is deterministic");
}

#[test]
fn tlog_tiles_reads_our_checkpoints() {
    for size in [0, 1, 3, 300] {
        let signed = signed(size);
        let text = signed.checkpoint().to_text();
        let theirs = tlog_tiles::Checkpoint::from_bytes(text.as_bytes()).unwrap();
        assert_eq!((theirs.origin(), theirs.size()), ("log.example/one", size));
        assert_eq!(&theirs.hash().0, signed.checkpoint().root().as_bytes());
        assert_eq!(theirs.to_bytes(), text.as_bytes());
    }
}

/// sigsum has the same syntax with raw keys for vkeys.
#[test]
fn sigsum_has_the_same_quorums() {
    for lines in [
        "group G 3 1 2 3 4\nquorum G\n",
        "group G all 1 2\nquorum G\n",
        "group A 2 1 2 3\ngroup G any A 4\nquorum G\n",
        "quorum 3\n",
    ] {
        let (mut us, mut them) = (String::new(), String::new());
        for number in 1..=4 {
            let key = witness_key(number);
            us += &format!("witness {number} {}\n", key.verifier());
            them += &format!("witness {number} {}\n", stdx::Digest::from_bytes(*key.verifier().public_key()));
        }
        let us = LogPolicy::parse(us + lines).unwrap();
        let them = sigsum::Policy::parse(&(them + lines)).unwrap();
        for set in 0..16_u8 {
            let chosen: Vec<u8> = (1..=4).filter(|number| set >> (number - 1) & 1 == 1).collect();
            let names: Vec<String> = chosen.iter().map(ToString::to_string).collect();
            let keys: Vec<_> =
                chosen.iter().map(|number| sigsum::Hash::new(witness_key(*number).verifier().public_key())).collect();
            let ours = us.is_satisfied(&names.iter().map(String::as_str).collect());
            assert_eq!(ours, them.check_quorum(&keys), "{lines} {chosen:?}");
        }
    }
    for wrong in ["quorum 9\n", "quorum 1\nquorum 1\n", "group G all 9\nquorum G\n", "frobnicate\nquorum none\n", ""] {
        let key = witness_key(1);
        let digits = stdx::Digest::from_bytes(*key.verifier().public_key());
        assert!(LogPolicy::parse(format!("witness 1 {}\n{wrong}", key.verifier())).is_err(), "{wrong}");
        assert!(sigsum::Policy::parse(&format!("witness 1 {digits}\n{wrong}")).is_err(), "{wrong}");
    }
}

/// sigsum verifies a whole proof: cosignatures over our checkpoint text, and our path.
#[test]
fn sigsum_and_we_sign_the_same_cosigned_text() {
    let (checkpoint, key) = (crate::checkpoint(3), witness_key(1));
    let line = tlog::cosign(&checkpoint, &key, crate::time(1_700_000_000)).unwrap();
    let message = format!("cosignature/v1\ntime 1700000000\n{}", checkpoint.to_text());
    let public: sigsum::PublicKey = (*key.verifier().public_key()).into();
    let signature: [u8; 64] = line.bytes()[8..].try_into().unwrap();
    assert!(public.verify_signature(message, &signature.into()));
    let empty = TreeHead::EMPTY;
    assert_eq!(empty.root, head(&[]).root);
}
