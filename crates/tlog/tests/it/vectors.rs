//! All vectors of transparency-dev/merkle, which lie beside the checkout.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tlog::{ConsistencyProof, EntryIndex, Growth, Hash, InclusionProof, Subtree, TreeHead, TreeSize, leaf_hash};

type Refused = Box<dyn std::error::Error>;

fn folder(name: &str) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/merkle-vectors").join(name);
    if folder.is_dir() {
        return Some(folder);
    }
    #[expect(clippy::disallowed_methods, reason = "only the test's strictness depends on it")]
    let must_exist = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(!must_exist, "{} is missing", folder.display());
    println!("skipped: {} is missing", folder.display());
    None
}

/// Runs `verify` on each vector of a folder, and says how many there were.
fn run(name: &str, expected: usize, verify: fn(&Value) -> Result<(), Refused>) {
    let Some(folder) = folder(name) else { return };
    let mut count = 0;
    for path in files(&folder) {
        let vector: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let result = verify(&vector);
        assert_eq!(result.is_err(), vector["wantErr"].as_bool().unwrap(), "{}: {result:?}", path.display());
        count += 1;
    }
    assert_eq!(count, expected, "vectors in {name}");
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Some vectors use a shorter text where its value can't matter. We hold 32 bytes only, so the
/// leaf hash of the text stands for it: still a value equal to nothing but itself. Nothing at
/// all is no hash.
fn hash(value: &Value) -> Result<Hash, Refused> {
    let text = value.as_str().unwrap();
    match text.parse() {
        Err(_) if !text.is_empty() => Ok(leaf_hash(text.as_bytes())),
        parsed => Ok(parsed?),
    }
}

fn hashes(value: &Value) -> Result<Vec<Hash>, Refused> {
    value.as_array().map_or(&[][..], Vec::as_slice).iter().map(hash).collect()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

fn tree(size: &Value, root: &Value) -> Result<TreeHead, Refused> {
    Ok(TreeHead { size: TreeSize::new(number(size)), root: hash(root)? })
}

#[test]
fn inclusion() {
    run("inclusion", 98, |vector| {
        let proof = InclusionProof::new(hashes(&vector["proof"])?)?;
        let tree = tree(&vector["treeSize"], &vector["root"])?;
        Ok(proof.verify(EntryIndex::new(number(&vector["leafIdx"])), &hash(&vector["leafHash"])?, &tree)?)
    });
}

#[test]
fn consistency() {
    run("consistency", 98, |vector| {
        let proof = ConsistencyProof::new(hashes(&vector["proof"])?)?;
        if number(&vector["size1"]) == 0 {
            // The vectors' authors prove nothing from size 0. C2SP tlog-witness does (with the
            // empty proof), and so do we; what refuses these vectors is that they hold no hashes.
            vector["root2"].as_str().unwrap().parse::<Hash>()?;
        }
        let old = tree(&vector["size1"], &vector["root1"])?;
        let new = tree(&vector["size2"], &vector["root2"])?;
        Ok(proof.verify(Growth { old: &old, new: &new })?)
    });
}

#[test]
fn subtree_inclusion() {
    run("subtreeinclusion", 204, |vector| {
        let proof = InclusionProof::new(hashes(&vector["proof"])?)?;
        let subtree = Subtree::new(number(&vector["start"])..number(&vector["end"]), hash(&vector["root"])?)?;
        let index = EntryIndex::new(number(&vector["leafIdx"]));
        Ok(proof.verify_in_subtree(index, &hash(&vector["leafHash"])?, &subtree)?)
    });
}

#[test]
fn subtree_consistency() {
    run("subtreeconsistency", 118, |vector| {
        let proof = ConsistencyProof::new(hashes(&vector["proof"])?)?;
        let subtree = Subtree::new(number(&vector["start"])..number(&vector["end"]), hash(&vector["root1"])?)?;
        Ok(proof.verify_subtree(&subtree, &tree(&vector["size"], &vector["root2"])?)?)
    });
}
