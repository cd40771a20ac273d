//! What is recognised as missing, and what is said about it.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::{NEEDS, Purpose, find_program, has_package_lists, install_command, named, namespace_hint};
use crate::workspace::command_line;

#[test]
fn a_program_is_an_executable_file_on_the_path() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tool");
    let path = std::env::join_paths(["/nonexistent".as_ref(), folder.path()]).unwrap();
    assert_eq!(find_program("tool", Some(&path)), None);
    File::create(&file).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(find_program("tool", Some(&path)), None, "not executable");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(find_program("tool", Some(&path)), Some(file));
    assert_eq!(find_program("tool", None), None);
}

#[test]
fn package_lists_are_told_from_an_empty_folder() {
    let folder = tempfile::tempdir().unwrap();
    assert!(!has_package_lists(Path::new("/nonexistent")));
    File::create(folder.path().join("lock")).unwrap();
    assert!(!has_package_lists(folder.path()));
    File::create(folder.path().join("archive_dists_bookworm_main_binary-amd64_Packages")).unwrap();
    assert!(has_package_lists(folder.path()));
}

#[test]
fn the_command_to_type_is_complete() {
    let missing: Vec<_> = NEEDS.iter().filter(|need| ["gcc", "python3-pip"].contains(&need.package)).copied().collect();
    assert_eq!(
        command_line(&install_command(&missing)),
        "apt-get install -y -q --no-install-recommends gcc python3-pip"
    );
    let text = named(&missing);
    assert!(text.contains("cc (package gcc; ") && text.contains("Python's pip (package python3-pip; "), "{text}");
}

#[test]
fn tests_need_what_the_demo_needs() {
    assert!(NEEDS.iter().any(|need| need.since == Purpose::Demo));
    assert!(Purpose::Demo < Purpose::Test);
}

#[test]
fn the_switch_that_is_off_is_named() {
    let settings = tempfile::tempdir().unwrap();
    assert!(namespace_hint(settings.path()).contains("container"));
    let set = |file: &str, value: &str| {
        let file = settings.path().join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::io::Write::write_all(&mut File::create(file).unwrap(), value.as_bytes()).unwrap();
    };
    set("kernel/unprivileged_userns_clone", "1\n");
    set("kernel/apparmor_restrict_unprivileged_userns", "1\n");
    assert!(namespace_hint(settings.path()).contains("apparmor_restrict_unprivileged_userns=0"));
    set("kernel/unprivileged_userns_clone", "0\n");
    assert!(namespace_hint(settings.path()).contains("unprivileged_userns_clone=1"));
}
