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
