//! `compare` on ELF files that the machine's compiler makes.

use std::process::Command;

use assembly::compare::{Cause, Remark, Role};

use crate::compare::{differ, named};

const SOURCE: &str = r#"
#include <stdio.h>
#ifndef STAMP
#define STAMP "none"
#endif
#ifndef ANSWER
#define ANSWER 42
#endif
#ifdef IDENT
__asm__(".ident \"" IDENT "\"");
#endif
int main(void) { printf("%s %s\n", __FILE__, STAMP); return ANSWER; }
"#;

/// Compiles [`SOURCE`] in a folder whose name ends with `folder`.
fn build(folder: &str, arguments: &[&str]) -> Vec<u8> {
    build_at(folder, arguments, "1700000000")
}

fn build_at(folder: &str, arguments: &[&str], epoch: &str) -> Vec<u8> {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join(folder);
    std::fs::create_dir_all(&folder).unwrap();
    stdx::durable::write(&folder.join("main.c"), SOURCE.as_bytes()).unwrap();
    // The temporary folder's own random name is mapped away; `folder` is what differs.
    let map = format!("-ffile-prefix-map={}=/build", root.path().display());
    let status = Command::new("cc")
        .args(["-O1", "-Wl,--build-id=sha1", "-o", "out", &map])
        .args(arguments)
        .arg(folder.join("main.c"))
        .env("SOURCE_DATE_EPOCH", epoch)
        .current_dir(&folder)
        .status()
        .unwrap();
    assert!(status.success());
    std::fs::read(folder.join("out")).unwrap()
}

#[test]
fn the_same_build_twice_is_equal() {
    assert_eq!(build("one", &["-g"]), build("one", &["-g"]));
}

#[test]
fn nothing_but_the_build_id() {
    let id = |digit: &str| format!("-Wl,--build-id=0x{}", digit.repeat(40));
    let (left, right) = (build("one", &[&id("1")]), build("one", &[&id("2")]));
    named("libcjson.so", &left, &right, &[Cause::BuildId]);
    let difference = differ("libcjson.so", &left, &right);
    assert_eq!(difference.remark(), Remark::IncidentalOnly);
    insta::assert_snapshot!(difference.to_string(), @r##"
    different: build-id
    (only times, order, compression or build-ids were seen to differ; still no match)
    libcjson.so
      ▸ .note.gnu.build-id
        build-id: build-id
          - 1111111111111111111111111111111111111111
          + 2222222222222222222222222222222222222222
    "##);
}

#[test]
fn the_path_of_the_source() {
    for arguments in [&["-g"][..], &[]] {
        let (left, right) = (build("one", arguments), build("two", arguments));
        named("hello", &left, &right, &[Cause::Path]);
        // The build-id follows from the path and is no cause of its own.
        let difference = differ("hello", &left, &right);
        let id = difference.findings().iter().find(|finding| finding.cause == Cause::BuildId).unwrap();
        assert_eq!(id.role, Role::Consequence);
    }
}

#[test]
fn a_path_of_another_length_is_named_too() {
    let difference = differ("hello", &build("one", &["-g"]), &build("another/and/longer/one", &["-g"]));
    assert!(difference.causes().contains(&Cause::Path), "{difference}");
}

#[test]
fn the_time_of_the_build() {
    let at = |epoch| build_at("one", &["-DSTAMP=__DATE__ \" \" __TIME__"], epoch);
    named("hello", &at("1700000000"), &at("1800000000"), &[Cause::Time]);
}

#[test]
fn the_version_of_the_compiler() {
    let with = |ident: &str| build("one", &[&format!("-DIDENT=\"GCC: (Debian 12.2.0-14{ident}) 12.2.0\"")]);
    named("hello", &with(""), &with("+deb12u1"), &[Cause::VersionString]);
}

#[test]
fn other_code_is_content() {
    let difference = differ("hello", &build("one", &["-DANSWER=41"]), &build("one", &["-DANSWER=42"]));
    assert_eq!(difference.causes(), [Cause::Content], "{difference}");
    assert_eq!(difference.remark(), Remark::ContentDiffers);
}

#[test]
fn compressed_debug_sections() {
    let difference = differ(
        "hello",
        &build("one", &["-g", "-Wl,--compress-debug-sections=none"]),
        &build("one", &["-g", "-Wl,--compress-debug-sections=zlib"]),
    );
    assert_eq!(difference.causes(), [Cause::Compression], "{difference}");
}

#[test]
fn a_payload_behind_the_sections_is_content() {
    let plain = build("one", &[]);
    let difference = differ("hello", &plain, &[plain.as_slice(), b"payload"].concat());
    assert_eq!(difference.causes(), [Cause::Content], "{difference}");
}

#[test]
fn an_executable_stack_is_content() {
    let difference = differ("hello", &build("one", &[]), &build("one", &["-Wl,-z,execstack"]));
    assert!(difference.causes().contains(&Cause::Content), "{difference}");
}
