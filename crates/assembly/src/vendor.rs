//! Checked crates as the folder that cargo takes in place of a registry.

use std::fs;
use std::path::PathBuf;

use stdx::{Hasher, durable};

use crate::archive::{Naming, unpack_tar};
use crate::environment::EnvironmentError;
use crate::environment::FolderSink;
use crate::inputs::{Depot, io_at};
use crate::lock::LockedCrate;
use attest::tree::{Mode, TreePath};

/// Unpacks the crates once for a depot and gives the folder.
pub(crate) fn vendor(depot: &Depot, crates: &[LockedCrate]) -> Result<PathBuf, EnvironmentError> {
    let mut hasher = Hasher::default();
    for locked in crates {
        hasher.update(locked.sha256.as_bytes());
    }
    let name = hasher.finish().to_string();
    let folder = depot.part("vendor").join(&name);
    let seal = depot.part("vendor").join(format!("{name}.complete"));
    let _alone = depot.exclusive("vendor")?;
    if seal.exists() && folder.is_dir() {
        return Ok(folder);
    }
    if folder.exists() {
        // A crash left it unsealed.
        fs::remove_dir_all(&folder).map_err(io_at(&folder))?;
    }
    durable::create_folder(&folder).map_err(io_at(&folder))?;
    let mut sink = FolderSink::new(folder.clone());
    for locked in crates {
        let name = format!("{}-{}", locked.name, locked.version);
        let mut inside = sink.below(&name);
        let archive = depot.content().open_object(&locked.sha256)?;
        unpack_tar(&format!("crate {name}"), archive, Naming::WithoutFirst, &mut inside)?;
        let checksum = format!("{{\"files\":{{}},\"package\":\"{}\"}}", locked.sha256);
        let path = TreePath::new(&format!("{name}/.cargo-checksum.json"))?;
        sink.make_file(&path, Mode::Plain, &mut checksum.as_bytes())?;
    }
    durable::write(&seal, b"").map_err(io_at(&seal))?;
    Ok(folder)
}
