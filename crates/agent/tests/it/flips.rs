//! One bit is another in a file of the agent's own state. Its disk is the agent's alone, so this is no
//! attack; but nothing must panic, nothing unapproved be installed, and no signed thing be believed
//! that is damaged.

use std::collections::BTreeMap;

use agent::{Endpoint, RealDisk};
use stdx::durable;
use testkit::{Breadth, figure, files};

use crate::scene::{Scene, copy_tree};

/// What an update came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// The state was refused as it is.
    Refused,
    /// Something was reported, and nothing new was installed.
    Reported,
    /// The second release was installed.
    GoesOn,
}

fn update(scene: &Scene) -> Outcome {
    let report = Endpoint::open(&scene.config, scene.ports(&RealDisk)).and_then(|mut endpoint| endpoint.update());
    let outcome = match &report {
        Err(failure) => {
            assert!(!failure.code.is_empty() && !failure.hint.is_empty(), "{failure:?}");
            Outcome::Refused
        }
        Ok(_) if scene.current().as_deref() == Some(b"second") => Outcome::GoesOn,
        Ok(report) => {
            assert_ne!(report.exit_code(), 0, "nothing is wrong, and nothing new: {report:?}");
            Outcome::Reported
        }
    };
    let installed = scene.current();
    let approved = [&b"first"[..], b"second"].contains(&installed.as_deref().unwrap_or_default());
    // A record that is damaged may say that nothing is installed, or what was switched off.
    assert!(approved || installed.is_none(), "{outcome:?}: {installed:?}");
    outcome
}

#[test]
fn a_flipped_bit_of_the_state_installs_nothing_unapproved() {
    let mut scene = Scene::installed(b"first");
    scene.release(b"second");
    scene.publish_status();
    let (state, install) = (scene.config.state.clone(), scene.config.install.clone());
    let saved = scene.folder.path().join("saved");
    copy_tree(&state, &saved.join("state"));
    copy_tree(&install, &saved.join("install"));
    let mut outcomes: BTreeMap<Outcome, usize> = BTreeMap::new();
    for (name, path) in files(&saved.join("state")) {
        let good = std::fs::read(&path).unwrap();
        let bits: Vec<usize> = (0..good.len() * 8).step_by((good.len() * 8 / 64).max(1) | 1).collect();
        for bit in Breadth::of_this_run().of(bits, 23) {
            std::fs::remove_dir_all(&state).unwrap();
            std::fs::remove_dir_all(&install).unwrap();
            copy_tree(&saved.join("state"), &state);
            copy_tree(&saved.join("install"), &install);
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            durable::write(&state.join(&name), &bad).unwrap();
            let outcome = update(&scene);
            *outcomes.entry(outcome).or_default() += 1;
            // What trust rests on is signed, or the hash of what is.
            let signed = name == "genesis" || name.starts_with("policy/");
            assert!(!signed || outcome == Outcome::Refused, "{name}, bit {bit}: {outcome:?}");
            // The journal is for people, and locks are empty.
            let idle = name.starts_with("journal") || name.ends_with("lock");
            assert!(!idle || outcome == Outcome::GoesOn, "{name}, bit {bit}: {outcome:?}");
        }
    }
    assert!(outcomes.len() > 1, "{outcomes:?}");
    let count = |outcome| outcomes.get(&outcome).copied().unwrap_or_default();
    let counts = [Outcome::Refused, Outcome::Reported, Outcome::GoesOn].map(count);
    let all: usize = counts.iter().sum();
    let [refused, reported, goes_on] = counts;
    figure(
        "flipped bits in the files of an agent's state",
        format!("{all}: {refused} refused, {reported} reported, {goes_on} without consequence"),
    );
}
