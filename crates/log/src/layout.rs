//! Where a log's objects lie in its store.
//!
//! ```text
//! checkpoint                     the published checkpoint, cosigned by a quorum (replaced)
//! tile/…                         tiles and entry bundles, as C2SP tlog-tiles names them
//! history/x000/…/SIZE            the checkpoints that the log signed since its last full tile
//! staged/OLD-NEW-ROOT/INDEX      a bundle of a large batch on its way into the tree
//! ```
//!
//! The lock store holds `log/ORIGIN-HASH`: the last signed checkpoint, and its batch if that is small.

use stdx::Digest;
use storage::{Folder, Key};
use tlog::{EntryBundleId, Origin, TileId, TreeHead, TreeSize};

fn key(text: &str) -> Key {
    text.parse().expect("made of words, digits and slashes")
}

pub(crate) fn checkpoint() -> Key {
    key("checkpoint")
}

pub(crate) fn tile(id: TileId) -> Key {
    key(&id.path())
}

pub(crate) fn bundle(id: EntryBundleId) -> Key {
    key(&id.path())
}

/// The folder of the partial tiles (or bundles) that a full one, named by `full`, replaces.
pub(crate) fn partials(full: &Key) -> Folder {
    Folder::Below(key(&format!("{full}.p")))
}

/// Sizes are written with three digits a folder, like tile indices, so that no folder grows large.
pub(crate) fn history(size: TreeSize) -> Key {
    let (mut rest, mut path) = (size.get() / 1000, format!("{:03}", size.get() % 1000));
    while rest > 0 {
        path = format!("x{:03}/{path}", rest % 1000);
        rest /= 1000;
    }
    key(&format!("history/{path}"))
}

pub(crate) fn history_folder() -> Folder {
    Folder::Below(key("history"))
}

/// The size that a history key stands for; `None` for what [`history`] doesn't write.
pub(crate) fn history_size(found: &Key) -> Option<TreeSize> {
    let digits: String = found.as_str().strip_prefix("history/")?.chars().filter(char::is_ascii_digit).collect();
    let size = TreeSize::new(digits.parse().ok()?);
    (history(size) == *found).then_some(size)
}

/// The folder of a batch's staged bundles. No two batches share it.
pub(crate) fn staged(old: TreeSize, new: &TreeHead) -> Key {
    let root = Digest::from_bytes(*new.root.as_bytes());
    key(&format!("staged/{old}-{}-{root}", new.size))
}

pub(crate) fn staged_bundle(folder: &Key, id: EntryBundleId) -> Key {
    key(&format!("{folder}/{}", id.index()))
}

pub(crate) fn all_staged() -> Folder {
    Folder::Below(key("staged"))
}

/// The log's one lock.
pub(crate) fn lock(origin: &Origin) -> Key {
    key(&format!("log/{}", Digest::of(origin.as_str().as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_keys_are_read_back() {
        for size in [0, 7, 999, 1000, 1_234_067, u64::MAX] {
            let size = TreeSize::new(size);
            assert_eq!(history_size(&history(size)), Some(size));
        }
        assert_eq!(history(TreeSize::new(1_234_067)).as_str(), "history/x001/x234/067");
        for other in ["history/67", "history/x000/067", "history/067.p", "checkpoint"] {
            assert_eq!(history_size(&other.parse().unwrap()), None, "{other}");
        }
    }
}
