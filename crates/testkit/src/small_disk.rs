//! A disk that is soon full, for real processes.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A folder's content on a small file system in memory, which only processes in its namespace see
/// in the folder's place. It is gone with this value.
#[derive(Debug)]
pub struct SmallDisk {
    holder: Child,
    folder: PathBuf,
}

impl SmallDisk {
    /// Puts a file system of so many KiB over `folder`, with a copy of what is in it.
    #[must_use]
    pub fn over(folder: &Path, kibibytes: u32) -> Self {
        // The copy is made through a descriptor of the folder that lies beneath.
        let script = "exec 3<\"$0\" && mount -t tmpfs -o size=$1k tmpfs \"$0\" && cp -a /proc/self/fd/3/. \"$0\" && echo ready && read end";
        let mut holder = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
            .arg(folder)
            .arg(kibibytes.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "the disk is mounted");
        Self { holder, folder: folder.to_owned() }
    }

    /// What stands before a program on its command line, to run it there.
    #[must_use]
    pub fn prefix(&self) -> Vec<OsString> {
        let id = self.holder.id().to_string();
        ["nsenter", "--target", &id, "--user", "--preserve-credentials", "--mount", "--"].map(OsString::from).to_vec()
    }

    /// How a process outside gets at `path`, which lies in the folder.
    #[must_use]
    pub fn path(&self, path: &Path) -> PathBuf {
        Path::new("/proc").join(self.holder.id().to_string()).join("root").join(path.strip_prefix("/").unwrap())
    }

    /// Fills all of it but so many bytes (in whole pages).
    pub fn fill(&self, left: usize) {
        let path = self.filler();
        let mut file = File::create(&path).unwrap();
        let mut bytes = 0;
        while file.write_all(&[0; 4096]).is_ok() {
            bytes += 4096;
        }
        file.set_len((bytes - left) as u64).unwrap();
    }

    /// Makes room again.
    pub fn clear(&self) {
        fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.path(&self.folder.join("filler"))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
