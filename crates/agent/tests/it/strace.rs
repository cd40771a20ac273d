//! The real program, at whose every file-system call the disk fails, or the process dies.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use stdx::{Clock as _, SystemClock, durable};
use testkit::{Breadth, Call, Fault, Strace, figure};

use crate::scene::{Scene, copy_tree};

mod sharing;

/// A scene whose time is the machine's, so that the program can live in it.
fn present_day() -> Scene {
    let mut scene = Scene::new();
    scene.pass(SystemClock::new().now().since(scene.world.clock.now()));
    let folder = scene.folder.path();
    let text = format!(
        "state = \"{0}/state\"\ninstall = \"{0}/install\"\nchannel = [\"{1}\"]\nring = \"all\"\n\
         [[product]]\nid = \"libexample\"\n",
        folder.display(),
        scene.server.url()
    );
    durable::write(&folder.join("agent.toml"), text.as_bytes()).unwrap();
    scene
}

fn agent(scene: &Scene, strace: Option<&Strace>, command: &str) -> Output {
    let program = env!("CARGO_BIN_EXE_clerestory-agent").into();
    let line: Vec<_> = strace.map_or(&[][..], Strace::prefix).iter().cloned().chain([program]).collect();
    let config = scene.folder.path().join("agent.toml");
    Command::new(&line[0]).args(&line[1..]).arg("--config").arg(config).args(["--json", command]).output().unwrap()
}

/// What must never go back, whatever happens.
fn memory(scene: &Scene) -> (u64, Vec<u64>, serde_json::Value) {
    let path = scene.config.state.join("memory.json");
    let memory: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let sizes = memory["logs"].as_array().unwrap().iter().map(|log| log["seen"]["size"].as_u64().unwrap_or_default());
    (memory["evidence"].as_u64().unwrap_or_default(), sizes.collect(), memory)
}

struct Trial<'a> {
    scene: &'a Scene,
    /// What may be in use after the fault.
    allowed: &'a [Option<&'a [u8]>],
    end: &'a [u8],
}

impl Trial<'_> {
    fn restore(&self) {
        for name in ["state", "install"] {
            let (saved, folder) = (self.path("saved").join(name), self.path(name));
            std::fs::remove_dir_all(&folder).unwrap();
            copy_tree(&saved, &folder);
        }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.scene.folder.path().join(name)
    }

    fn current(&self) -> Option<Vec<u8>> {
        self.scene.current()
    }

    /// One fault at one call; whether it happened.
    fn run(&self, call: &Call, fault: Fault) -> bool {
        let strace = Strace::inject(&self.path("strace"), call, fault);
        let before = memory(self.scene);
        let output = agent(self.scene, Some(&strace), "update");
        let what = format!("{call} {fault}: {output:?}");
        let hits = strace.hits();
        match output.status.code() {
            // The code is that of the programs around it.
            _ if fault == Fault::Kill && hits > 0 => {}
            Some(0) => assert_eq!(self.current().as_deref(), Some(self.end), "{what}"),
            Some(1 | 75) => {
                let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
                assert!(stderr.contains("error: ") || stdout.contains("\"message\":"), "{what}");
            }
            code => panic!("{code:?} {what}"),
        }
        assert!(self.allowed.contains(&self.current().as_deref()), "{what}");
        let after = memory(self.scene);
        assert!(after.0 >= before.0 && after.1 >= before.1, "{what}: {before:?} {after:?}");

        let again = agent(self.scene, None, "update");
        assert!(again.status.success(), "{what}, then: {again:?}");
        assert_eq!(self.current().as_deref(), Some(self.end), "{what}");
        let check = agent(self.scene, None, "check");
        assert!(check.status.success(), "{what}, then: {check:?}");
        self.nothing_is_left(&what);
        hits > 0
    }

    /// What was interrupted doesn't fill the disk.
    fn nothing_is_left(&self, what: &str) {
        let mut folders = vec![self.path("state"), self.path("install")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                assert!(!name.starts_with(".tmp-") && name != "incoming", "{what}: {} is left", path.display());
                if path.is_dir() && !path.is_symlink() {
                    folders.push(path);
                }
            }
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Each call of an update is hit once with each fault.
fn every_call(what: &str, scene: &Scene, allowed: &[Option<&[u8]>], end: &[u8]) {
    let trial = Trial { scene, allowed, end };
    std::fs::create_dir_all(&scene.config.install).unwrap();
    for name in ["state", "install"] {
        copy_tree(&trial.path(name), &trial.path("saved").join(name));
    }
    let strace = Strace::watch(&trial.path("strace"));
    let output = agent(scene, Some(&strace), "update");
    assert!(output.status.success(), "{output:?}");
    let below = |folder: &Path| strace.calls(folder);
    let calls: Vec<Call> = [below(&trial.path("state")), below(&trial.path("install"))].concat();
    assert!(calls.iter().filter(|call| call.changes).count() > 30, "{calls:#?}");
    let cases = calls.iter().flat_map(|call| call.faults().into_iter().map(move |fault| (call, fault))).collect();
    let cases = Breadth::of_this_run().of(cases, 23);
    let missed = cases.iter().filter(|(call, fault)| {
        trial.restore();
        !trial.run(call, *fault)
    });
    let missed: Vec<_> = missed.map(|(call, fault)| format!("{call} {fault}")).collect();
    figure(what, format!("{} calls, {} faults", calls.len(), cases.len()));
    assert!(missed.is_empty(), "these did not happen: {missed:#?}");
}

#[test]
fn a_first_installation_survives_each_failed_call() {
    let mut scene = present_day();
    scene.release(b"first");
    every_call("first installation", &scene, &[None, Some(b"first")], b"first");
}

#[test]
fn an_update_survives_each_failed_call() {
    let mut scene = present_day();
    scene.release(b"first");
    assert!(agent(&scene, None, "update").status.success());
    scene.world.clock.advance(Duration::from_secs(1));
    scene.release(b"second");
    scene.publish_status();
    every_call("update", &scene, &[Some(b"first"), Some(b"second")], b"second");
}
