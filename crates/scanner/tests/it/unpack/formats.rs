//! What is opened, and found.

use std::fmt::Write as _;

use super::samples::{CONTENT, samples};
use super::take_apart;

#[test]
fn every_sample_is_opened_and_nothing_is_amiss() {
    for sample in samples() {
        let seen = take_apart(&sample.bytes);
        assert_eq!(seen.place_of(CONTENT), Some(sample.place), "{}: {seen:?}", sample.name);
        assert_eq!(seen.notes, [], "{}", sample.name);
    }
}

/// Where Debian's package `clamav-testfiles` keeps them; `cargo xtask test` installs it.
const TESTFILES: &str = "/usr/share/clamav-testfiles";

/// What is in most of them.
const INNER: &str = "clam.exe";

/// Files that hold `clam.exe` in a way that no format of ours covers.
const NOT_COVERED: &[(&str, &str)] = &[
    ("clam-aspack.exe", "program packed by ASPack"),
    ("clam-fsg.exe", "program packed by FSG"),
    ("clam-mew.exe", "program packed by MEW"),
    ("clam-nsis.exe", "installer: NSIS"),
    ("clam-pespin.exe", "program packed by PESpin"),
    ("clam-petite.exe", "program packed by Petite"),
    ("clam-upack.exe", "program packed by Upack"),
    ("clam-upx.exe", "program packed by UPX"),
    ("clam-wwpack.exe", "program packed by WWPack"),
    ("clam-yc.exe", "program packed by Yoda's Crypter"),
    ("clam.chm", "help file: CHM"),
    ("clam.ea05.exe", "compiled script: AutoIt 5"),
    ("clam.ea06.exe", "compiled script: AutoIt 6"),
    ("clam.sis", "installer: Symbian"),
    ("clam_IScab_int.exe", "installer: InstallShield"),
    ("clam_IScab_ext.exe", "installer: InstallShield"),
    ("clam_ISmsi_int.exe", "installer: InstallShield"),
    ("clam_ISmsi_ext.exe", "installer: InstallShield"),
];

/// Every container of ClamAV's own test files that our formats cover is opened, and its content found
/// (`docs/formats/scan.md` has the same table).
#[test]
fn clamav_testfiles_are_opened() {
    let content = std::fs::read(format!("{TESTFILES}/{INNER}")).unwrap();
    let mut files: Vec<_> = std::fs::read_dir(TESTFILES).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 40, "only {} files in {TESTFILES}", files.len());
    let (mut table, mut wrong) = (String::from("| file | found as |\n|---|---|\n"), Vec::new());
    for file in files {
        let name = file.file_name().unwrap().to_str().unwrap();
        if name == INNER {
            continue;
        }
        let seen = take_apart(&std::fs::read(&file).unwrap());
        let excuse = NOT_COVERED.iter().find(|(known, _)| *known == name).map(|(_, why)| *why);
        let place = seen.place_of(&content);
        if place.is_some() == excuse.is_some() {
            wrong.push(format!("{name}: {place:?}, {excuse:?}, {:?}, {:?}", seen.names(), seen.notes));
        }
        let found =
            place.map_or_else(|| format!("not covered ({})", excuse.unwrap_or_default()), |at| format!("`{at}`"));
        writeln!(table, "| {name} | {found} |").unwrap();
    }
    println!("{table}");
    assert_eq!(wrong, Vec::<String>::new());
}
