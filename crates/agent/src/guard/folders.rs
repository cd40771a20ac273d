//! The kernel's word that something in a folder changed.

use std::path::PathBuf;
use std::sync::Arc;

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use stdx::{Clock as _, SystemClock};

use super::Shared;
use crate::failure::Failure;

/// Watches `folders` with all below them.
pub(super) fn watch(folders: &[PathBuf], shared: &Arc<Shared>) -> Result<RecommendedWatcher, Failure> {
    const HINT: &str =
        "name folders that exist; for very many folders raise the kernel's `fs.inotify.max_user_watches`";
    let refuse = |what: String, error: &notify::Error| Failure::rejected("watch", format!("{what}: {error}"), HINT);
    let (inbox, clock) = (Arc::clone(shared), SystemClock::new());
    let mut watcher = notify::recommended_watcher(move |event| heard(&inbox, event, &clock))
        .map_err(|error| refuse("changes can't be watched".to_owned(), &error))?;
    for folder in folders {
        let watched = watcher.watch(folder, RecursiveMode::Recursive);
        watched.map_err(|error| refuse(folder.display().to_string(), &error))?;
    }
    Ok(watcher)
}

fn heard(shared: &Shared, event: notify::Result<Event>, clock: &SystemClock) {
    let now = clock.monotonic();
    shared.change(|inbox| match event {
        Ok(event) if event.need_rescan() => inbox.pending.missed(now),
        Ok(event) if is_change(event.kind) => {
            event.paths.into_iter().for_each(|path| inbox.pending.changed(path, now));
        }
        // What was opened, read or removed has no new content.
        Ok(_) => {}
        // A new folder that can't be watched, say.
        Err(_) => inbox.pending.missed(now),
    });
}

fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        EventKind::Modify(change) => !matches!(change, ModifyKind::Metadata(_)),
        EventKind::Any | EventKind::Create(_) | EventKind::Other => true,
        EventKind::Remove(_) => false,
    }
}
