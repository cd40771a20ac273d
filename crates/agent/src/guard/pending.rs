//! What is still to be scanned: no more paths than are bounded, each once it has come to rest.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// A file is scanned when it has not changed for so long,
const QUIET: Duration = Duration::from_millis(300);
/// or this long after its first change, if it never rests.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// Some 2 MB of paths. Who changes more at once has everything looked at anew.
const PATHS_MAX: usize = 10_000;
/// Before everything is looked at again, whoever changes that much may come to an end.
const AGAIN: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug)]
struct Times {
    first: Duration,
    last: Duration,
}

impl Times {
    fn due(self) -> Duration {
        (self.last + QUIET).min(self.first + WAIT_MAX)
    }
}

/// Paths that changed.
#[derive(Debug, Default)]
pub(super) struct Pending {
    changed: BTreeMap<PathBuf, Times>,
    /// When everything is to be looked at.
    everything: Option<Duration>,
    dropped: u64,
}

/// What is to be done now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing yet.
    Nothing,
    /// These have come to rest.
    Paths(Vec<PathBuf>),
    /// All folders; so many changes were not kept one by one.
    Everything(u64),
}

impl Pending {
    /// A path changed.
    pub(super) fn changed(&mut self, path: PathBuf, now: Duration) {
        if let Some(times) = self.changed.get_mut(&path) {
            times.last = now;
        } else if self.changed.len() < PATHS_MAX && self.everything.is_none() {
            self.changed.insert(path, Times { first: now, last: now });
        } else {
            self.dropped += 1 + self.changed.len() as u64;
            self.changed.clear();
            self.everything.get_or_insert(now + AGAIN);
        }
    }

    /// Changes were missed.
    pub(super) fn missed(&mut self, now: Duration) {
        self.dropped += 1;
        self.everything.get_or_insert(now + AGAIN);
    }

    /// Everything is to be looked at.
    pub(super) fn everything(&mut self, now: Duration) {
        self.everything = Some(now);
    }

    /// What is due by now; it is forgotten here.
    pub(super) fn take(&mut self, now: Duration) -> Due {
        if self.everything.is_some_and(|at| at <= now) {
            self.everything = None;
            self.changed.clear();
            return Due::Everything(std::mem::take(&mut self.dropped));
        }
        let due: Vec<PathBuf> =
            self.changed.iter().filter(|(_, times)| times.due() <= now).map(|(path, _)| path.clone()).collect();
        for path in &due {
            self.changed.remove(path);
        }
        if due.is_empty() { Due::Nothing } else { Due::Paths(due) }
    }

    /// When something will be due.
    pub(super) fn next(&self) -> Option<Duration> {
        self.changed.values().map(|times| times.due()).chain(self.everything).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_file_is_scanned_once_it_rests() {
        let mut pending = Pending::default();
        pending.changed("a".into(), at(0));
        pending.changed("a".into(), at(200));
        pending.changed("b".into(), at(450));
        assert_eq!((pending.take(at(499)), pending.next()), (Due::Nothing, Some(at(500))));
        assert_eq!(pending.take(at(500)), Due::Paths(vec!["a".into()]));
        assert_eq!((pending.take(at(600)), pending.next()), (Due::Nothing, Some(at(750))));
        // One that never rests is scanned all the same.
        (0..1_200).for_each(|n| pending.changed("b".into(), at(450 + n * 10)));
        assert_eq!(pending.take(at(10_450)), Due::Paths(vec!["b".into()]));
        assert_eq!(pending.next(), None);
    }

    #[test]
    fn what_is_too_much_is_made_up_for() {
        let mut pending = Pending::default();
        let many = PATHS_MAX as u64 + 3;
        (0..many).for_each(|n| pending.changed(n.to_string().into(), at(n)));
        assert!(pending.changed.is_empty());
        let due = pending.next().unwrap();
        assert_eq!((pending.take(due - at(1)), pending.take(due)), (Due::Nothing, Due::Everything(many)));
        assert_eq!(pending.next(), None);
        pending.missed(at(0));
        assert_eq!(pending.take(AGAIN), Due::Everything(1));
    }
}
