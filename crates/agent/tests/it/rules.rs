//! Rules: by patch or as a whole, tested before they are used, mended, and given up when they must be.

use agent::Change;
use attest::{Floor, Lane, ReleaseNumber, Ring};
use detection::{BUNDLE_FILE, Patch, SET_FILE, Step};
use stdx::{Digest, durable};
use testkit::{RULES_PRODUCT, ReleaseOptions, Released};

use crate::scene::{DAY, Scene, copy_tree, scanner};
use crate::server::Manner;

const OWNER: &str = "[[product]]\nid = \"signatures\"\nring = \"canary\"\n";

/// Rules that differ in some lines, as real ones do.
pub(crate) fn rules(version: usize) -> Vec<u8> {
    let rule = |n: usize| {
        let text = Digest::of(&n.to_be_bytes());
        format!("rule r{n} {{ strings: $a = \"{text}\" condition: $a }}\n")
    };
    (version..version + 40).map(rule).collect::<String>().into_bytes()
}

/// A scene with rules, and what they were so far.
pub(crate) struct Rules {
    pub(crate) scene: Scene,
    /// The content of each release.
    contents: Vec<Vec<u8>>,
}

impl Rules {
    pub(crate) fn new() -> Self {
        Self::of(Scene::new())
    }

    pub(crate) fn of(mut scene: Scene) -> Self {
        scanner();
        scene.lanes = &[Lane::Slow, Lane::Fast];
        scene.reconfigure(OWNER);
        scene.release(b"program");
        scene.publish_status();
        Self { scene, contents: Vec::new() }
    }

    /// With these rules in use.
    pub(crate) fn installed(content: &[u8]) -> Self {
        let mut rules = Self::new();
        rules.release(content);
        assert_eq!(rules.scene.update().exit_code(), 0);
        assert_eq!(rules.current().as_deref(), Some(content));
        rules
    }

    /// Releases rules with patches from 1, 2, 4 … releases before.
    pub(crate) fn release(&mut self, content: &[u8]) -> Released {
        let back = (0..8).map(|power| 1_usize << power);
        let old = back.filter_map(|back| self.contents.len().checked_sub(back)).map(|at| &self.contents[at]);
        let patch = |old: &Vec<u8>| (Digest::of(old), Patch::make(Step { old, new: content }).unwrap().bytes);
        let options = ReleaseOptions { patches: old.map(patch).collect(), ..ReleaseOptions::rules() };
        let version = format!("{}", self.contents.len() + 1);
        let files = [(BUNDLE_FILE, content)];
        let released = self.scene.world.release_with(RULES_PRODUCT, &version, &files, &options);
        let patches = options.patches.iter().map(|(_, patch)| patch.as_slice());
        let all: Vec<&[u8]> = [content].into_iter().chain(patches).collect();
        self.scene.publish_files(&released, Lane::Fast, &all);
        self.contents.push(content.to_vec());
        released
    }

    /// Releases rules, and a set of hashes with them.
    pub(crate) fn release_with_set(&mut self, content: &[u8], set: &[u8]) {
        let version = format!("{}", self.contents.len() + 1);
        let files = [(BUNDLE_FILE, content), (SET_FILE, set)];
        let released = self.scene.world.release_with(RULES_PRODUCT, &version, &files, &ReleaseOptions::rules());
        self.scene.publish_files(&released, Lane::Fast, &[content, set]);
        self.contents.push(content.to_vec());
    }

    fn path(&self, slot: &str) -> std::path::PathBuf {
        self.scene.config.install.join(RULES_PRODUCT).join(slot).join(BUNDLE_FILE)
    }

    pub(crate) fn current(&self) -> Option<Vec<u8>> {
        std::fs::read(self.path("current")).ok()
    }

    /// Takes what there is; gives how many bytes came over the wire.
    fn update(&self) -> u64 {
        self.scene.server.traffic();
        let report = self.scene.update();
        assert_eq!(report.exit_code(), 0, "{report:?}");
        assert_eq!(self.current().as_ref(), self.contents.last());
        self.scene.server.traffic().0
    }
}

#[test]
fn one_patch_leads_to_the_newest_rules() {
    let mut rules = Rules::installed(&self::rules(0));
    let whole = self::rules(1).len() as u64;
    for version in 1..=8 {
        rules.release(&self::rules(version));
    }
    // Eight releases behind, and one patch from there.
    let patch = rules.update();
    assert_eq!(rules.scene.status().products[1].number, ReleaseNumber::new(9).into());
    // The same without a patch that begins here.
    for version in 9..=11 {
        rules.release(&self::rules(version));
    }
    let without = rules.update();
    assert!(without > patch + whole / 2, "{patch} with, {without} without, of {whole}");
    assert!(!rules.scene.journal().contains("\"patch: "), "{}", rules.scene.journal());
}

/// As real rules change: much stays, and each release brings one.
fn growing(version: usize) -> Vec<u8> {
    let rule = |n: usize| {
        let text = Digest::of(&n.to_be_bytes());
        format!("rule r{n} {{ strings: $a = \"{text}\" condition: $a }}\n")
    };
    (0..200).chain([1000 + version]).map(rule).collect::<String>().into_bytes()
}

#[test]
fn an_endpoint_121_versions_behind_catches_up_in_one_step() {
    let mut rules = Rules::installed(&growing(0));
    let saved = rules.scene.folder.path().join("saved");
    for name in ["state", "install"] {
        copy_tree(&rules.scene.folder.path().join(name), &saved.join(name));
    }
    let catch_up = |rules: &Rules, release: u64| {
        rules.scene.server.traffic();
        let report = rules.scene.update();
        let one = |change: &Change| matches!(change, Change::Installed { number, .. } if number.get() == release);
        assert!(report.exit_code() == 0 && report.changes.len() == 1 && one(&report.changes[0]), "{report:?}");
        assert_eq!(rules.current().as_ref(), rules.contents.last());
        rules.scene.server.traffic()
    };
    (1..=64).for_each(|version| drop(rules.release(&growing(version))));
    let patched = catch_up(&rules, 65);
    (65..=121).for_each(|version| drop(rules.release(&growing(version))));
    for name in ["state", "install"] {
        std::fs::remove_dir_all(rules.scene.folder.path().join(name)).unwrap();
        copy_tree(&saved.join(name), &rules.scene.folder.path().join(name));
    }
    // No patch begins where it stands, so that it is the whole; still it is one step.
    let whole = catch_up(&rules, 122);
    println!("64 behind: {patched:?} (bytes, requests); 121 behind: {whole:?}; all rules: {}", growing(121).len());
    assert!(whole.0 > patched.0 + growing(121).len() as u64 / 2, "{patched:?} {whole:?}");
    assert!(whole.1 <= patched.1 + 2, "{patched:?} {whole:?}");
}

#[test]
fn a_patch_that_leads_nowhere_costs_a_detour_only() {
    for manner in [Manner::Flipped, Manner::Status(404), Manner::Bytes(Vec::new()), Manner::CutShort] {
        let mut rules = Rules::installed(&self::rules(0));
        rules.release(&self::rules(1));
        rules.scene.server.misbehave("/patches/", manner.clone());
        rules.update();
        let journal = rules.scene.journal();
        assert!(journal.contains("/patches/"), "{manner:?}: {journal}");
    }
}

#[test]
fn a_damaged_store_is_mended() {
    let mut rules = Rules::installed(&self::rules(0));
    // The release in use itself.
    durable::write(&rules.path("a"), b"rule other { condition: false }").unwrap();
    rules.update();
    assert_eq!(rules.scene.check().exit_code(), 0);
    assert!(rules.scene.journal().contains("SHA-256 is "));
    // What was damaged is no way back.
    assert_eq!(rules.scene.status().products[1].previous, None);
    // A newer one, whose patch begins at what is damaged.
    rules.release(&self::rules(1));
    durable::remove(&rules.path("b")).unwrap();
    rules.update();
    // And a link that leads elsewhere.
    let link = rules.scene.config.install.join(RULES_PRODUCT).join("current");
    durable::remove(&link).unwrap();
    rules.update();
}

#[test]
fn rules_that_are_unfit_are_not_switched_to() {
    let good = self::rules(0);
    let mut rules = Rules::installed(&good);
    let broad = b"rule any { condition: filesize < 100 }".as_slice();
    for (bad, code, says) in [
        (b"rule a { condition: b }".as_slice(), "rules-compile", "do not load"),
        (broad, "rules-self-test", "a harmless text is found by any"),
    ] {
        rules.release(bad);
        let report = rules.scene.update();
        assert!(report.has(code), "{report:?}");
        assert_eq!(rules.current().as_deref(), Some(good.as_slice()));
        assert!(rules.scene.journal().contains(says), "{says} in {}", rules.scene.journal());
        // It is not tried again.
        assert_eq!(rules.scene.update().exit_code(), 0);
    }
    // Nothing of it is left, and the next good one is taken.
    assert!(!rules.scene.config.install.join(RULES_PRODUCT).join("incoming").exists());
    rules.release(&self::rules(3));
    rules.update();
}

#[test]
fn the_next_best_is_taken_when_the_newest_is_unfit() {
    let mut rules = Rules::new();
    rules.release(&self::rules(0));
    rules.release(b"rule a { condition: b }");
    let report = rules.scene.update();
    assert!(report.has("rules-compile") && rules.scene.journal().contains("rules-compile"), "{report:?}");
    assert_eq!(rules.current(), Some(self::rules(0)));
}

#[test]
fn a_revocation_takes_effect_with_the_next_look() {
    let mut rules = Rules::installed(&self::rules(0));
    rules.release(&self::rules(1));
    rules.update();
    rules.scene.world.revoked.push(Digest::of(&self::rules(1)));
    rules.scene.pass(DAY / 4);
    rules.scene.update();
    assert_eq!(rules.current(), Some(self::rules(0)));
    // And below the floor nothing is left to run.
    let floor = Floor { product: RULES_PRODUCT.parse().unwrap(), number: ReleaseNumber::new(3) };
    rules.scene.world.floors.push(floor);
    rules.scene.pass(DAY / 4);
    assert_eq!(rules.scene.update().exit_code(), 1);
    assert_eq!(rules.current(), None);
}

#[test]
fn rules_for_canaries_are_for_canaries() {
    let mut rules = Rules::new();
    rules.scene.reconfigure("[[product]]\nid = \"signatures\"\n");
    assert_eq!(rules.scene.config.ring, Ring::All);
    rules.release(&self::rules(0));
    assert_eq!(rules.scene.update().exit_code(), 0);
    assert_eq!(rules.current(), None);
}
