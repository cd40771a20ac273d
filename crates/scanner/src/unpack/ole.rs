//! Compound files: the documents of old Office, `.msi`, `.msg`, `Thumbs.db`.

use cfb::CompoundFile;

use super::office;
use super::walk::{Step, Walk};

pub(super) fn open(walk: &mut Walk<'_>, bytes: &[u8]) -> Step {
    let mut file = match CompoundFile::open(walk.timed(bytes)) {
        Ok(file) => file,
        Err(error) => {
            walk.note(error.into());
            return Ok(());
        }
    };
    let paths: Vec<_> = file.walk().filter(cfb::Entry::is_stream).map(|entry| entry.path().to_path_buf()).collect();
    for path in paths {
        walk.tick()?;
        let text = path.to_string_lossy();
        let name = text.strip_prefix('/').unwrap_or(&text);
        match file.open_stream(&path) {
            Ok(mut stream) => {
                let decoded = walk.decode(&mut stream)?;
                walk.member_and(name.as_bytes(), decoded, |walk, bytes| office::open_stream(walk, name, bytes))?;
            }
            Err(error) => walk.note_of(name.as_bytes(), error.into()),
        }
    }
    Ok(())
}
