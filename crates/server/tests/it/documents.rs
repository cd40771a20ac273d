//! What is written about the program is what it does.

use server::config::Config;
use server::http::error::Code;

fn document(path: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The codes that `Refusal::code` gives, from its source.
fn refusal_codes() -> Vec<String> {
    let source = document("crates/verify/src/refusal.rs");
    let function = source.split_once("pub const fn code").unwrap().1.split_once("pub const fn hint").unwrap().0;
    let codes: Vec<String> =
        function.split("=> \"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()).collect();
    assert!(codes.len() > 15, "{codes:?}");
    codes
}

#[test]
fn every_code_is_described_once_and_nothing_else_is() {
    let text = document("docs/errors.md");
    let mut listed: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let mut codes = refusal_codes();
    codes.extend(Code::ALL.map(|code| code.as_str().to_owned()));
    codes.push("http".to_owned());
    codes.sort_unstable();
    codes.dedup();
    listed.sort_unstable();
    assert_eq!(listed, codes);
}

#[test]
fn the_samples_are_good_configurations() {
    for (role, name) in ["vendor", "supervisor", "witness", "relay", "gateway", "custodian"].map(|role| (role, role)) {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../docs/samples/{name}.toml"));
        let config = Config::load(&path).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(config.role().to_string(), role);
    }
}

#[test]
fn the_sample_of_shared_stores_goes_with_each_role_that_can_have_them() {
    let shared = document("docs/samples/shared.toml");
    server::config::SharedSection::parse(&shared, std::path::Path::new("/")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for role in ["vendor", "supervisor"] {
        let path = folder.path().join(role);
        let text = format!("{}\n{shared}", document(&format!("docs/samples/{role}.toml")));
        stdx::durable::write(&path, text.as_bytes()).unwrap();
        let config = Config::load(&path).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(config.shared().unwrap().objects.prefix.as_str(), "vendor");
    }
}

#[test]
fn init_writes_the_sample() {
    let folder = tempfile::tempdir().unwrap();
    for role in ["vendor", "supervisor", "witness", "relay", "gateway", "custodian"] {
        let organisation = if role == "custodian" { "member" } else { role };
        crate::process::run(folder.path(), &["init", role, "--dir", role, "--organisation", organisation]).ok();
        let written = std::fs::read_to_string(folder.path().join(role).join("clerestory.toml")).unwrap();
        assert_eq!(written, document(&format!("docs/samples/{role}.toml")));
    }
}

#[test]
fn completions_and_manual_pages_come_from_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let text = crate::process::run(folder.path(), &["completions", shell]).ok().stdout;
        assert!(text.contains("check-config") && text.contains("audit"), "{shell}");
    }
    crate::process::run(folder.path(), &["man", "pages"]).ok();
    let page = std::fs::read_to_string(folder.path().join("pages/clerestory-log-append.1")).unwrap();
    assert!(page.contains("Append an envelope"), "{page}");
}
