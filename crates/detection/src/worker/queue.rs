//! Files that the child has and has not answered for.

use std::collections::VecDeque;
use std::time::Duration;

use super::messages::Item;

/// A file that the child has.
#[derive(Debug)]
pub(super) struct UnderWay {
    pub(super) id: u64,
    pub(super) item: Item,
    /// When a thread of the child can have begun with it.
    begun: Option<Duration>,
}

/// The files that the child has, oldest first.
///
/// Its threads take files in the order in which they were sent. So with n threads, the ones that it
/// is working at are among the first n that it has not answered for: nothing needs to be said at
/// the beginning of each file to know at which ones it died.
#[derive(Debug)]
pub(super) struct Queue {
    threads: usize,
    files: VecDeque<UnderWay>,
}

impl Queue {
    pub(super) fn new(threads: usize) -> Self {
        Self { threads, files: VecDeque::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    pub(super) fn push(&mut self, id: u64, item: Item, now: Duration) {
        self.files.push_back(UnderWay { id, item, begun: None });
        self.begin(now);
    }

    pub(super) fn take(&mut self, id: u64, now: Duration) -> Option<UnderWay> {
        let at = self.files.iter().position(|file| file.id == id)?;
        let taken = self.files.remove(at);
        self.begin(now);
        taken
    }

    fn begin(&mut self, now: Duration) {
        for file in self.files.iter_mut().take(self.threads) {
            file.begun.get_or_insert(now);
        }
    }

    /// When the first file began of those that the child is working at.
    pub(super) fn oldest(&self) -> Option<Duration> {
        self.files.iter().take(self.threads).filter_map(|file| file.begun).min()
    }

    /// Those that the child may have been working at, and those that only waited.
    pub(super) fn split(self) -> (Vec<UnderWay>, Vec<UnderWay>) {
        let mut working: Vec<UnderWay> = self.files.into();
        let waiting = working.split_off(self.threads.min(working.len()));
        (working, waiting)
    }
}
