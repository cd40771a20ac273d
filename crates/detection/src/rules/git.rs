//! A commit's files through the host's `git`: two processes, however many files there are.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

use attest::tree::{Mode, TreePath};

use super::settings::FILE_BYTES_MAX;
use super::tree::{RulesTreeError, TREE_FILES_MAX};

/// A listing of 20,000 files with paths of 400 bytes.
const LISTING_BYTES_MAX: u64 = 8 << 20;
/// How much of git's last words is shown.
const WORDS_BYTES_MAX: usize = 2_000;

type TakeFile<'f> = &'f mut dyn FnMut(TreePath, Mode, Vec<u8>) -> Result<(), RulesTreeError>;

/// Gives each file of the commit to `take`, and the commit's id back.
pub(super) fn read(repository: &Path, revision: &str, take: TakeFile<'_>) -> Result<String, RulesTreeError> {
    if revision.starts_with('-') {
        return Err(RulesTreeError::Git(format!("`{revision}` is no revision")));
    }
    let commit =
        text(git(repository).args(["rev-parse", "--verify", "--quiet"]).arg(format!("{revision}^{{commit}}")))?;
    let commit = commit.trim().to_owned();
    let listing = text(git(repository).args(["ls-tree", "-r", "-z", "--full-tree", &commit]))?;
    let entries = listing.split_terminator('\0').map(Entry::parse).collect::<Result<Vec<_>, _>>()?;
    if entries.len() > TREE_FILES_MAX {
        return Err(RulesTreeError::TooLarge);
    }
    let mut child = git(repository)
        .args(["cat-file", "--batch"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| failed(&error))?;
    let contents = read_contents(&mut child, entries, take);
    if contents.is_err() {
        // It may be waiting to write what nobody reads any more. It may also have ended by itself.
        let _ = child.kill();
    }
    let status = child.wait().map_err(|error| failed(&error))?;
    contents?;
    if status.success() { Ok(commit) } else { Err(RulesTreeError::Git("cat-file gave up".to_owned())) }
}

fn read_contents(child: &mut Child, entries: Vec<Entry>, take: TakeFile<'_>) -> Result<(), RulesTreeError> {
    let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(RulesTreeError::Git("it has no pipes".to_owned()));
    };
    let wanted: String = entries.iter().flat_map(|entry| [entry.blob.as_str(), "\n"]).collect();
    let asking = thread::spawn(move || stdin.write_all(wanted.as_bytes()));
    let mut answers = BufReader::new(stdout);
    for entry in entries {
        let mut head = String::new();
        (&mut answers).take(200).read_line(&mut head).map_err(|error| failed(&error))?;
        // `ID blob SIZE`
        let mut fields = head.trim_end().split(' ');
        let (Some(id), Some("blob"), Some(size)) = (fields.next(), fields.next(), fields.next()) else {
            return Err(RulesTreeError::Git(format!("cat-file answered `{}`", head.trim_end())));
        };
        let size: u64 = size.parse().map_err(|_| RulesTreeError::Git(format!("cat-file answered size `{size}`")))?;
        if id != entry.blob || size > FILE_BYTES_MAX {
            return Err(RulesTreeError::FileTooLarge { path: entry.path.to_string() });
        }
        let mut bytes = Vec::new();
        (&mut answers).take(size).read_to_end(&mut bytes).map_err(|error| failed(&error))?;
        let mut newline = [0];
        answers.read_exact(&mut newline).map_err(|error| failed(&error))?;
        take(entry.path, entry.mode, bytes)?;
    }
    match asking.join() {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(failed(&error)),
        Err(_) => Err(RulesTreeError::Git("the thread that asked it failed".to_owned())),
    }
}

struct Entry {
    mode: Mode,
    blob: String,
    path: TreePath,
}

impl Entry {
    /// `MODE TYPE ID<tab>PATH`, as `git ls-tree -z` writes it.
    fn parse(line: &str) -> Result<Self, RulesTreeError> {
        let (head, path) = line.split_once('\t').ok_or_else(|| RulesTreeError::Git(format!("ls-tree: `{line}`")))?;
        let mut fields = head.split(' ');
        let mode = match (fields.next(), fields.next()) {
            (Some("100644" | "100664"), Some("blob")) => Mode::Plain,
            (Some("100755"), Some("blob")) => Mode::Executable,
            (Some("120000"), _) => return Err(RulesTreeError::Kind { path: path.to_owned(), kind: "a link" }),
            _ => return Err(RulesTreeError::Kind { path: path.to_owned(), kind: "another repository" }),
        };
        let blob = fields.next().unwrap_or_default().to_owned();
        Ok(Self { mode, blob, path: TreePath::new(path)? })
    }
}

fn git(repository: &Path) -> Command {
    let mut command = Command::new("git");
    command.stdin(Stdio::null()).env("LC_ALL", "C.UTF-8");
    // A hostile repository must not run its own filters or hooks; none of these commands does.
    command.arg("-C").arg(repository).args(["--no-replace-objects", "-c", "safe.directory=*"]);
    command
}

fn text(command: &mut Command) -> Result<String, RulesTreeError> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(|error| failed(&error))?;
    let mut answer = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(LISTING_BYTES_MAX).read_to_end(&mut answer).map_err(|error| failed(&error))?;
    }
    let output = child.wait_with_output().map_err(|error| failed(&error))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        let words: String = words.trim().chars().take(WORDS_BYTES_MAX).collect();
        let words = if words.is_empty() { "there is no such commit".to_owned() } else { words };
        return Err(RulesTreeError::Git(words));
    }
    String::from_utf8(answer).map_err(|_| RulesTreeError::Git("a path is not UTF-8".to_owned()))
}

fn failed(error: &std::io::Error) -> RulesTreeError {
    if error.kind() == std::io::ErrorKind::NotFound {
        RulesTreeError::Git("it is not installed; on Debian: apt-get install git".to_owned())
    } else {
        RulesTreeError::Git(error.to_string())
    }
}
