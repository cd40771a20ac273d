//! Files of the operator, damaged in any way: read or refused. (Other parsers of foreign bytes are fuzzed
//! by `crates/fuzz`, which does without the server's dependencies.)

use std::fs::{File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use server::config::Config;
use server::key_file;
use stdx::SystemEntropy;
use testkit::Breadth;
use tlog::{KeyKind, SignerKey};

/// A number from the one before (xorshift64*), so that each run is the same.
fn next(state: &mut u64) -> usize {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize
}

/// One to four changes: other bytes, fewer, more, or some from elsewhere in the text.
fn damaged(text: &[u8], state: &mut u64) -> Vec<u8> {
    const WORDS: [&[u8]; 12] =
        [b"\"", b"[", b"]", b"\n", b"=", b"\xff", b"..", b"\0", b"18446744073709551616", b"-1", b"[[", b"\\u0000"];
    let mut bytes = text.to_vec();
    for _ in 0..=next(state) % 4 {
        let at = next(state) % (bytes.len() + 1);
        let end = (at + next(state) % 12).min(bytes.len());
        let from = next(state) % (bytes.len() + 1);
        let with = match next(state) % 4 {
            0 => WORDS[next(state) % WORDS.len()].to_vec(),
            1 => Vec::new(),
            2 => vec![next(state) as u8; 1 + next(state) % 3],
            _ => bytes[from..(from + 24).min(bytes.len())].to_vec(),
        };
        bytes.splice(at..end, with);
    }
    bytes
}

/// Loads `count` damaged forms of `text` and gives how many were accepted.
fn accepted(text: &[u8], count: usize, load: impl Fn(&Path) -> bool) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let mut state = 0x9E37_79B9_7F4A_7C15;
    let store = |bytes: &[u8]| {
        let mut file = File::create(&path).unwrap();
        file.set_permissions(Permissions::from_mode(0o600)).unwrap();
        file.write_all(bytes).unwrap();
    };
    store(text);
    assert!(load(&path), "the undamaged file");
    let one = |_| {
        store(&damaged(text, &mut state));
        load(&path)
    };
    (0..count).map(one).filter(|accepted| *accepted).count()
}

fn count() -> usize {
    match Breadth::of_this_run() {
        Breadth::Sample => 200,
        Breadth::Full => 10_000,
    }
}

#[test]
fn a_damaged_configuration_is_read_or_refused() {
    for role in ["vendor", "supervisor", "witness"] {
        let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../docs/samples/{role}.toml"));
        let text = std::fs::read(sample).unwrap();
        let accepted = accepted(&text, count(), |path| Config::load(path).is_ok());
        // Much of a sample is comments, so not all damage is refused, and not all is accepted.
        assert!(accepted > 0 && accepted < count(), "{role}: {accepted}");
        testkit::figure(&format!("damaged configurations of a {role}"), format!("{accepted} of {} accepted", count()));
    }
}

#[test]
fn a_damaged_key_is_read_or_refused() {
    let key = SignerKey::generate("w.example/key".parse().unwrap(), KeyKind::Ed25519, &SystemEntropy).unwrap();
    let text = format!("{}\n", key.to_secret_text().as_str());
    let same = |path: &Path| key_file::load(path).is_ok_and(|found| found.verifier() == key.verifier());
    let accepted = accepted(text.as_bytes(), count(), same);
    assert!(accepted < count() / 10, "{accepted}");
    testkit::figure("damaged keys", format!("{accepted} of {} accepted", count()));
}
