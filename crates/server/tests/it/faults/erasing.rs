//! An erasure whose command, or a custodian, fails at a call or dies there: who has a receipt has it gone, asked again
//! it is gone, and nobody else's is.

use seal::OwnerSecret;
use testkit::{Breadth, Call, Fault, Strace, figure};

use super::trial::{copy_tree, run_traced, while_traced};
use crate::data::erase::{comes_back, copied, erase, file, left_in_vault, owned, retire, running};
use crate::data::gateway::Desk;
use crate::data::scene::{CUSTODIANS, folder, weeks_ago};
use crate::process::{Done, Server, run};

const FOLDERS: [&str; 8] = ["vendor", "supervisor", "w1", "w2", "w3", "w4", "custodian-supervisor", "custodian-member"];
/// The custodian that fails.
const WHO: &str = "member";

/// Two objects in the vault and in both custodians' tables, whose region keys are gone; nothing runs.
struct Erasure {
    desk: Desk<()>,
    object: Vec<u8>,
    stays: Vec<u8>,
    saved: tempfile::TempDir,
    /// The command's arguments.
    arguments: Vec<String>,
}

impl Erasure {
    fn new() -> Self {
        let mut desk = running();
        let scene = &mut desk.scene;
        let at = weeks_ago(4).after(std::time::Duration::from_secs(3600));
        let (owner, object): (OwnerSecret, _) = owned(scene, at, "what shall go");
        let (_, stays) = owned(scene, at, "somebody else's");
        scene.keep(&[object.clone(), stays.clone()]);
        CUSTODIANS.iter().for_each(|who| drop(retire(scene, who)));
        let backup = scene.system.file("backup");
        CUSTODIANS.iter().for_each(|who| copied(&scene.system.file(&folder(who)).join("table"), &backup.join(who)));
        let asked = file(scene, vec![owner]);
        let arguments =
            ["data", "erase", "--config", "supervisor/clerestory.toml", "--out", "receipt.bundle", "--vault"];
        let mut arguments: Vec<String> = arguments.map(str::to_owned).into();
        arguments.extend([scene.system.vendor.url(), asked.to_str().unwrap().to_owned()]);
        let saved = tempfile::tempdir().unwrap();
        let mut erasure = Self { desk, object, stays, saved, arguments };
        for server in erasure.servers().filter(|server| server.runs()) {
            assert_eq!(server.stop().code, 0);
        }
        for name in FOLDERS {
            copy_tree(&erasure.desk.scene.system.file(name), &erasure.saved.path().join(name));
        }
        erasure
    }

    fn servers(&mut self) -> impl Iterator<Item = &mut Server> {
        let scene = &mut self.desk.scene;
        let logs = [&mut scene.system.vendor, &mut scene.system.supervisor];
        logs.into_iter().chain(&mut scene.system.witnesses).chain(&mut scene.custodians)
    }

    /// Everything as it was saved; all run.
    fn restore(&mut self) {
        self.servers().for_each(Server::kill);
        for name in FOLDERS {
            let folder = self.desk.scene.system.file(name);
            std::fs::remove_dir_all(&folder).unwrap();
            copy_tree(&self.saved.path().join(name), &folder);
        }
        self.servers().for_each(Server::start);
    }

    fn comes_back(&self, object: &[u8]) -> bool {
        comes_back(&self.desk.scene, &self.desk.scene.system.file("backup"), object)
    }

    /// What was done under a fault, and again with a sound disk.
    fn check(&mut self, first: &Done, what: &str) {
        let said = format!("{what}: {first:?}");
        assert!(matches!(first.code, 0 | 1 | 75 | 137) && !first.stderr.contains("panicked"), "{said}");
        assert!(first.code != 0 || !self.comes_back(&self.object), "a receipt, and not gone: {said}");
        assert!(self.comes_back(&self.stays), "another's is gone: {said}");
        if !self.desk.scene.custodian(WHO).runs() {
            self.desk.scene.custodian(WHO).start();
        }
        let asked = self.desk.scene.system.file("erase.json");
        let again = erase(&self.desk.scene, &asked);
        assert_eq!((again.code, &again.json()["is_over"]), (0, &serde_json::json!(true)), "{said}: {again:?}");
        assert!(!self.comes_back(&self.object), "not gone: {said}");
        assert!(self.comes_back(&self.stays), "another's is gone: {said}");
        let left: Vec<Vec<u8>> = left_in_vault(&self.desk.scene).into_values().collect();
        assert!(left == [&self.stays[..]], "{said}: {} objects are left", left.len());
    }

    /// Runs `one` with a fault at each call that it makes in `below`, or at a sample of them.
    fn each(&mut self, below: &str, step: usize, one: impl Fn(&mut Self, &Strace) -> Done) {
        let out = self.saved.path().with_extension("strace");
        self.restore();
        let watch = Strace::watch(&out);
        let first = one(self, &watch).ok();
        self.check(&first, "nothing failed");
        let calls = watch.calls(&self.desk.scene.system.file(below));
        assert!(calls.iter().filter(|call| call.changes).count() > 5, "{calls:#?}");
        let all = calls.iter().flat_map(|call| call.faults().into_iter().map(move |fault| (call, fault)));
        let cases: Vec<(&Call, Fault)> = Breadth::of_this_run().of(all.collect(), step);
        let mut happened = 0;
        for (call, fault) in &cases {
            self.restore();
            let strace = Strace::inject(&out, call, *fault);
            let first = one(self, &strace);
            happened += usize::from(strace.hits() > 0);
            self.check(&first, &format!("{call} {fault}"));
        }
        let (calls, cases) = (calls.len(), cases.len());
        figure(&format!("erasure, {below}"), format!("{calls} calls, {cases} faults, {happened} of them happened"));
        assert!(happened * 2 >= cases, "{happened} of {cases}");
    }
}

#[test]
fn what_has_a_receipt_is_gone_whichever_call_of_the_command_fails() {
    let mut erasure = Erasure::new();
    erasure.each("supervisor", 41, |erasure, strace| {
        let arguments: Vec<&str> = erasure.arguments.iter().map(String::as_str).collect();
        run_traced(&erasure.desk.scene.system, strace, &arguments)
    });
}

#[test]
fn what_has_a_receipt_is_gone_whichever_call_of_a_custodian_fails() {
    let mut erasure = Erasure::new();
    erasure.each(&folder(WHO), 41, |erasure, strace| {
        let (path, arguments) = (erasure.desk.scene.system.path().to_owned(), erasure.arguments.clone());
        erasure.desk.scene.custodian(WHO).kill();
        let command = || run(&path, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
        while_traced(erasure.desk.scene.custodian(WHO), strace, command).0
    });
}
