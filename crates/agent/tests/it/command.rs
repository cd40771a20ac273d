//! The executable: exit codes, and where what is printed.

use std::process::{Command, Output};

use stdx::durable;

use crate::scene::Scene;

fn run(scene: &Scene, arguments: &[&str]) -> Output {
    let config = scene.folder.path().join("agent.toml");
    let text = format!(
        "state = \"{0}/fresh\"\ninstall = \"{0}/fresh-install\"\nchannel = [\"{1}\"]\nring = \"all\"\n\
         [[product]]\nid = \"libexample\"\n",
        scene.folder.path().display(),
        scene.server.url()
    );
    durable::write(&config, text.as_bytes()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_clerestory-agent"));
    command.arg("--config").arg(config).args(arguments).output().unwrap()
}

#[test]
fn a_machine_is_set_up_and_says_how_it_stands() {
    let scene = Scene::new();
    let policy = scene.folder.path().join("1.envelope");
    durable::write(&policy, &scene.world.genesis().to_bytes()).unwrap();
    let policy = policy.display().to_string();
    let output = run(&scene, &["update"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text.starts_with("error: ") && text.contains("\nhint: set this machine up"), "{text}");

    let wrong = "0".repeat(64);
    assert_eq!(run(&scene, &["init", "--policy-hash", &wrong, "--policy", &policy]).status.code(), Some(1));
    let hash = scene.world.genesis().id().to_string();
    let output = run(&scene, &["init", "--policy-hash", &hash, "--policy", &policy]);
    assert!(output.status.success(), "{output:?}");
    // The scene's evidence is from long before this machine's time.
    let output = run(&scene, &["--json", "update"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), json["changes"].as_array().unwrap().len()), (Some(1), 0));
    let output = run(&scene, &["status"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stdout).unwrap().contains("nothing is taken"));
}

#[test]
fn completions_and_man_pages_are_generated() {
    let scene = Scene::new();
    let output = run(&scene, &["completions", "bash"]);
    assert!(output.status.success() && String::from_utf8(output.stdout).unwrap().contains("clerestory-agent"));
    let folder = scene.folder.path().join("man");
    assert!(run(&scene, &["man", &folder.display().to_string()]).status.success());
    assert!(folder.join("clerestory-agent-update.1").is_file());
}

#[test]
fn wrong_usage_exits_with_2_and_a_wrong_file_with_1() {
    let scene = Scene::new();
    assert_eq!(run(&scene, &["install"]).status.code(), Some(2));
    assert_eq!(run(&scene, &["init", "--policy-hash", "x", "--policy", "y"]).status.code(), Some(2));
    let output = run(&scene, &["import", "/nonexistent"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("/nonexistent"));
}

/// Every code that the sources of an executable give, in `docs/errors.md` with its name before it.
#[test]
fn every_code_of_an_endpoint_is_described() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let described = std::fs::read_to_string(root.join("docs/errors.md")).unwrap();
    let (_, described) = described.split_once("## Endpoints").unwrap();
    for (who, folder, at_least) in [("agent", "crates/agent/src", 20), ("verifier", "crates/verifier/src", 3)] {
        let mut codes = std::collections::BTreeSet::new();
        for file in std::fs::read_dir(root.join(folder)).unwrap() {
            let path = file.unwrap().path();
            if !path.is_file() {
                continue;
            }
            let source = std::fs::read_to_string(path).unwrap();
            for start in ["rejected(\"", "code: \"", "=> \"channel-", "POLICY_WITHHELD: &str = \""] {
                let whole = |rest: &str| format!("{start}{rest}").split('"').nth(1).unwrap().to_owned();
                codes.extend(source.split(start).skip(1).map(whole));
            }
        }
        assert!(codes.len() >= at_least, "{who}: {codes:?}");
        // Two that an endpoint gives in the sense of the evidence's own codes.
        for code in codes.iter().filter(|code| !matches!(code.as_str(), "policy" | "stale")) {
            let is_row = |name: &str| described.contains(&format!("| {name} | `{code}` |"));
            assert!(is_row(who) || is_row("both"), "{who}: {code}");
        }
    }
}
