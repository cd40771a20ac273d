//! The disk fails at any step, and for good: the next start goes on from whatever is there.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::path::Path;

use agent::{Disk, Move, RealDisk};

use crate::rules::{Rules, rules};
use crate::scene::{DAY, Scene, copy_tree};

/// A disk that dies after so many steps; the step at which it dies happens, or does not.
pub(crate) struct Dying {
    left: Cell<usize>,
    last: Last,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Last {
    Undone,
    Done,
}

impl Dying {
    pub(crate) const fn new(steps: usize, last: Last) -> Self {
        Self { left: Cell::new(steps), last }
    }

    pub(crate) const fn is_dead(&self) -> bool {
        self.left.get() == 0
    }

    fn step<T>(&self, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match self.left.get() {
            0 => Err(io::Error::other("dead")),
            1 => {
                self.left.set(0);
                if self.last == Last::Done {
                    act()?;
                }
                Err(io::Error::other("dies"))
            }
            left => {
                self.left.set(left - 1);
                act()
            }
        }
    }
}

impl Disk for Dying {
    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        self.step(|| RealDisk.create_folder(folder))
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.step(|| RealDisk.write(path, bytes))
    }

    fn sweep(&self, folder: &Path) -> io::Result<()> {
        self.step(|| RealDisk.sweep(folder))
    }

    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        // An append may be torn.
        self.step(|| RealDisk.append(path, bytes))
            .inspect_err(|_| drop(RealDisk.append(path, &bytes[..bytes.len() / 2])))
    }

    fn start(&self, path: &Path) -> io::Result<File> {
        self.step(|| RealDisk.start(path))
    }

    fn seal(&self, file: &File, mode: u32) -> io::Result<()> {
        self.step(|| RealDisk.seal(file, mode))
    }

    fn rename(&self, names: Move<'_>) -> io::Result<()> {
        self.step(|| RealDisk.rename(names))
    }

    fn link(&self, link: &Path, target: &str) -> io::Result<()> {
        self.step(|| RealDisk.link(link, target))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step(|| RealDisk.remove(path))
    }

    fn remove_tree(&self, folder: &Path) -> io::Result<()> {
        self.step(|| RealDisk.remove_tree(folder))
    }
}

/// Kills an update at every step, in both ways, and then lets it run; gives the number of steps.
fn kill_everywhere(scene: &Scene, allowed: &[Option<&[u8]>], end: Option<&[u8]>) -> usize {
    let state = scene.folder.path().join("state");
    let install = scene.folder.path().join("install");
    let saved = scene.folder.path().join("saved");
    copy_tree(&state, &saved.join("state"));
    copy_tree(&install, &saved.join("install"));
    for steps in 1..200 {
        let mut ended = true;
        for last in [Last::Undone, Last::Done] {
            let disk = Dying::new(steps, last);
            let outcome = scene.update_on(&disk);
            if disk.left.get() == 0 {
                ended = false;
                assert!(outcome.is_err(), "step {steps} {last:?}: a dead disk is no success");
            }
            let current = scene.current();
            assert!(allowed.contains(&current.as_deref()), "step {steps} {last:?}: {current:?}");
            let report = scene.update();
            assert!(report.failures.is_empty(), "step {steps} {last:?}: {report:?}");
            assert_eq!(scene.current().as_deref(), end, "step {steps} {last:?}");
            assert_eq!(scene.check().exit_code(), 0, "step {steps} {last:?}");
            for (from, to) in [(saved.join("state"), &state), (saved.join("install"), &install)] {
                std::fs::remove_dir_all(to).unwrap();
                copy_tree(&from, to);
            }
        }
        if ended {
            return steps;
        }
    }
    panic!("an update has fewer steps");
}

#[test]
fn an_update_survives_a_crash_at_every_step() {
    let mut scene = Scene::installed(b"first");
    scene.release(b"second");
    scene.publish_status();
    let steps = kill_everywhere(&scene, &[Some(b"first"), Some(b"second")], Some(b"second"));
    assert!(steps > 15, "{steps} steps");
}

#[test]
fn a_first_installation_survives_a_crash_at_every_step() {
    let mut scene = Scene::new();
    scene.release(b"first");
    std::fs::create_dir_all(&scene.config.install).unwrap();
    kill_everywhere(&scene, &[None, Some(b"first")], Some(b"first"));
}

#[test]
fn reverting_survives_a_crash_at_every_step() {
    let mut scene = Scene::installed(b"first");
    scene.release(b"second");
    scene.update();
    scene.world.revoked.push(stdx::Digest::of(b"second"));
    scene.pass(DAY / 4);
    kill_everywhere(&scene, &[Some(b"first"), Some(b"second")], Some(b"first"));
}

/// Rules come by patch, and the damaged store is mended, whatever step is the last.
#[test]
fn rules_survive_a_crash_at_every_step() {
    let mut it = Rules::installed(&rules(0));
    it.release(&rules(1));
    let saved = it.scene.folder.path().join("saved");
    for name in ["state", "install"] {
        copy_tree(&it.scene.folder.path().join(name), &saved.join(name));
    }
    for steps in 1..100 {
        let mut ended = true;
        for last in [Last::Undone, Last::Done] {
            let disk = Dying::new(steps, last);
            let outcome = it.scene.update_on(&disk);
            if disk.left.get() == 0 {
                ended = false;
                assert!(outcome.is_err(), "step {steps} {last:?}: a dead disk is no success");
            }
            let current = it.current();
            assert!(current == Some(rules(0)) || current == Some(rules(1)), "step {steps} {last:?}");
            let report = it.scene.update();
            assert!(report.failures.is_empty(), "step {steps} {last:?}: {report:?}");
            assert_eq!(it.current(), Some(rules(1)), "step {steps} {last:?}");
            for name in ["state", "install"] {
                let folder = it.scene.folder.path().join(name);
                std::fs::remove_dir_all(&folder).unwrap();
                copy_tree(&saved.join(name), &folder);
            }
        }
        if ended {
            assert!(steps > 15, "{steps} steps");
            return;
        }
    }
    panic!("an update has fewer steps");
}
