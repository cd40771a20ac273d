//! Copies of a SoftHSM2 token's folder: it brings destroyed keys back, as no hardware does, and what was erased stays gone
//! all the same when another custodian's horizon has passed.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use custody::ClosedShare;
use seal::{AgreedSecret, DataKey, Header, PublicKey, Sealed, Share};
use serde_json::{Value, json};
use stdx::{Clock as _, SystemClock, UnixTime, durable};
use zeroize::Zeroizing;

use super::erase::{copied, erase, file, owned, retire, retire_with, running_with, shares, start};
use super::scene::{Scene, Setting, Token, folder, weeks_ago};

const LIBRARY: &str = "/usr/lib/softhsm/libsofthsm2.so";

/// A token in this folder, without keys.
pub(super) fn made(folder: &Path) -> Token {
    let program = Path::new(env!("CARGO_BIN_EXE_clerestory")).with_file_name("clerestory-token");
    assert!(program.exists(), "`cargo build -p token` makes {}", program.display());
    let softhsm = softhsm(folder);
    let made = Command::new("/usr/bin/softhsm2-util")
        .args(["--init-token", "--free", "--label", "custodian", "--so-pin", "4321", "--pin", "1234"])
        .env("SOFTHSM2_CONF", &softhsm)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    Token { program, softhsm }
}

/// Where SoftHSM2 is told that its tokens lie in this folder.
fn softhsm(folder: &Path) -> String {
    let path = folder.join("softhsm2.conf");
    durable::write(&path, format!("directories.tokendir = {}\n", folder.display()).as_bytes()).unwrap();
    path.to_str().unwrap().to_owned()
}

/// The token in this folder, asked by whoever has the PIN.
fn ask(scene: &Scene, tokens: &Path, question: &Value) -> Value {
    let program = Path::new(env!("CARGO_BIN_EXE_clerestory")).with_file_name("clerestory-token");
    let mut child = Command::new(program)
        .args(["--module", LIBRARY, "--label", "custodian", "--pin"])
        .arg(scene.system.file("custodian-supervisor/keys/pin"))
        .env("SOFTHSM2_CONF", softhsm(tokens))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    writeln!(child.stdin.as_mut().unwrap(), "{question}").unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    drop(child.stdin.take());
    child.wait().unwrap();
    serde_json::from_str(&line).unwrap()
}

/// The supervisor's share, opened by the token in this folder.
fn token_share(scene: &Scene, tokens: &Path, object: &[u8]) -> Option<Share> {
    let (header, _) = Header::parse(object).unwrap();
    let closed = ClosedShare::of(&header, &"supervisor".parse().unwrap()).unwrap();
    let wrapped = closed.share.wrapped().unwrap();
    let keys = ask(scene, tokens, &json!("keys"));
    let points = keys["keys"]["keys"].as_array().unwrap().iter().map(|it| it.as_str().unwrap().to_owned());
    let (point, key) = points
        .map(|point| (point.clone(), PublicKey::of_point(&STANDARD.decode(point).unwrap()).unwrap()))
        .find(|(_, key)| key.id() == closed.share.key)?;
    let question = json!({"derive": {"key": point, "points": [STANDARD.encode(&wrapped.encapsulated)]}});
    let secrets = ask(scene, tokens, &question);
    let secret = STANDARD.decode(secrets["secrets"][0].as_str().unwrap()).unwrap();
    let agreed = AgreedSecret::new(Zeroizing::new(secret.try_into().unwrap()));
    Share::open_agreed(&wrapped, &key, &closed.info, &agreed)
}

/// Whether the object opens with the token in this folder, everything else that was copied, and all that custodians have.
fn comes_back(scene: &Scene, tokens: &Path, backup: &Path, object: &[u8]) -> bool {
    let all = |who: &str| {
        let mut found = shares(scene, who, &backup.join(who), object);
        found.extend(shares(scene, who, &scene.system.file(&folder(who)).join("table"), object));
        found
    };
    let mut ones = all("supervisor");
    ones.extend(token_share(scene, tokens, object));
    let others = all("member");
    ones.iter().any(|one| others.iter().any(|other| Sealed::read(object, &DataKey::join([one, other])).is_ok()))
}

#[test]
fn a_copy_of_a_token_folder_gives_nothing_back_once_another_custodian_has_no_key() {
    let tokens = tempfile::tempdir().unwrap();
    let token = made(tokens.path());
    let environment = [("SOFTHSM2_CONF", token.softhsm.clone())];
    let environment = environment.each_ref().map(|(name, value)| (*name, value.as_str()));
    let mut desk = running_with(&Setting { token: Some(token), from: Some(weeks_ago(4)), ..Setting::default() });
    let scene = &mut desk.scene;
    let (old, first) = owned(scene, weeks_ago(4).after(Duration::from_secs(3600)), "long ago");
    let (today, second) = owned(scene, SystemClock::new().now(), "today");
    scene.keep(&[first.clone(), second.clone()]);
    // The folder is copied with all keys on it, and only then the oldest are destroyed.
    let thief = tempfile::tempdir().unwrap();
    copied(tokens.path(), thief.path());
    retire_with(scene, "supervisor", &environment);
    retire(scene, "member");
    start(scene);
    assert!(token_share(scene, tokens.path(), &first).is_none(), "its key is destroyed");
    assert!(token_share(scene, thief.path(), &first).is_some(), "SoftHSM2 is files");
    let backup = scene.system.file("backup");
    ["supervisor", "member"].iter().for_each(|who| {
        copied(&scene.system.file(&folder(who)).join("table"), &backup.join(who));
    });
    let back = |scene: &Scene, object: &[u8]| comes_back(scene, thief.path(), &backup, object);
    assert!(back(scene, &first) && back(scene, &second));
    // In both tables: the horizon is now. The copy still gives one share, and nobody has the other.
    let done = erase(scene, &file(scene, vec![old])).ok().json();
    let (now, horizon): (_, UnixTime) = (SystemClock::new().now(), done["horizon"].as_str().unwrap().parse().unwrap());
    assert!(horizon <= now.after(Duration::from_secs(60)), "{done}");
    assert!(token_share(scene, thief.path(), &first).is_some() && !back(scene, &first));
    // Sealed today: before the horizon copies open it; when the token's own key has gone they still do, since the copy
    // has it; when the member's has gone, too, nothing does.
    let later = erase(scene, &file(scene, vec![today])).ok().json();
    assert!(later["horizon"].as_str().unwrap().parse::<UnixTime>().unwrap() > now.after(Duration::from_secs(86_400)));
    assert!(back(scene, &second));
    for point in ask(scene, tokens.path(), &json!("keys"))["keys"]["keys"].as_array().unwrap() {
        assert_eq!(ask(scene, tokens.path(), &json!({"destroy": {"key": point}})), json!("done"));
    }
    assert!(token_share(scene, tokens.path(), &second).is_none() && back(scene, &second));
    let keys = scene.system.file("custodian-member/keys/regions");
    durable::rename(&keys, &scene.system.file("keys-of-member")).unwrap();
    std::fs::create_dir(&keys).unwrap();
    assert!(!back(scene, &second));
}
