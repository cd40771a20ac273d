//! What can be measured.

use crate::bench::Bench;
use crate::machine;

mod assembly;
mod cloud;
mod data;
mod data_query;
mod endpoint;
mod ledger;
mod log;
mod rules;
mod scan;
mod system;
mod traffic;
mod verify;

/// One measurement; it gives one row, or some whose names begin with its own.
pub(crate) struct Entry {
    /// `SUITE/ROW`.
    pub(crate) name: &'static str,
    /// What is measured, against what.
    pub(crate) about: &'static str,
    pub(crate) run: fn(&mut Bench) -> anyhow::Result<()>,
}

const fn entry(name: &'static str, about: &'static str, run: fn(&mut Bench) -> anyhow::Result<()>) -> Entry {
    Entry { name, about, run }
}

/// Everything, in the order in which it runs.
const ENTRIES: &[Entry] = &[
    entry("machine/append", "append 4 KiB and fdatasync", machine::append),
    entry("machine/create", "a new file of 4 KiB, synced, renamed, its folder synced", machine::create),
    entry("log/witnessed", "an append until it is witnessed, at 500/s; its syncs alone", log::witnessed),
    entry("log/appends", "512 writers of 1 KiB; hashing and syncing the same bytes", log::appends),
    entry("log/http", "POST of one entry a request; a bare server with the same answer", log::http),
    entry("log/growth", "256-byte entries: rate, disk and opening, up to ten million", log::growth),
    entry(
        "verify/bundle",
        "a release's evidence, from bytes to approval; its bare signatures and hashes",
        verify::bundle,
    ),
    entry(
        "verify/process",
        "clerestory-verify on a file of 1 MiB; a process that reads and hashes it",
        verify::process,
    ),
    entry("assembly/sandbox", "a product's build in the sandbox; the same job bare", assembly::sandbox),
    entry(
        "assembly/line",
        "building what is built already, and from the second build's end to published; bare files",
        assembly::line,
    ),
    entry(
        "endpoint/refresh",
        "clerestory-agent update with nothing new; a bare GET of the same files",
        endpoint::refresh,
    ),
    entry(
        "endpoint/install",
        "clerestory-agent update with a release of 1 MiB; a bare GET of it into a synced file",
        endpoint::install,
    ),
    entry("data/ledger", "reading entries into the access ledger, and searching up to ten million", ledger::ledger),
    entry("rules/replay", "a history of rules: from each commit to active on a canary, and its bytes", rules::replay),
    entry("data/query", "a query over sealed Parquet; DataFusion over the same Parquet, plain", data_query::query),
    entry("scan/bare", "clerestory-scan on one core and on two; the bare engine on one", scan::bare),
    entry("scan/engines", "the same on one core; yara-x, yara and clamscan with the same rules", scan::engines),
    entry("scan/verdicts", "files in which another engine matches other rules", scan::verdicts),
    entry(
        "data/intake",
        "events from sealing to the signed receipts of their batches; the same, sealed before",
        data::intake,
    ),
    entry("data/grant", "until a worker has both shares of an object: announced, witnessed, noted", data::grant),
    entry("data/intake-growth", "the same with ten times as many; with as many as before", data::growth),
    entry("cloud/lookups", "look-ups by oblivious HTTP on one core; a bare server with as many bytes", cloud::lookups),
    entry(
        "cloud/intake",
        "events until their batches have receipts, at two machines on SeaweedFS and PostgreSQL; at one on its own disk",
        cloud::intake,
    ),
    entry(
        "cloud/intake-growth",
        "the same when ten times as many lie in the vault, and planning a query then; before that",
        cloud::growth,
    ),
    entry("cloud/query", "a query over half a million sealed lines, on three workers; on one", cloud::query),
    entry(
        "cloud/verdicts",
        "from a first sighting to a verdict that is active on 10, 1,000 and 100,000 endpoints",
        cloud::verdicts,
    ),
];

/// A name that means nothing here.
#[derive(Debug)]
pub(crate) struct UnknownName(String);

impl std::fmt::Display for UnknownName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "nothing is called `{}`; `--list` says what there is", self.0)
    }
}

impl std::error::Error for UnknownName {}

/// The entries that `names` mean: a suite, or `SUITE/ROW`. No name means all of them.
pub(crate) fn select(names: &[String]) -> anyhow::Result<Vec<&'static Entry>> {
    let means = |entry: &Entry, name: &str| {
        entry.name.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if let Some(unknown) = names.iter().find(|name| !ENTRIES.iter().any(|entry| means(entry, name))) {
        return Err(UnknownName(unknown.clone()).into());
    }
    let wanted = |entry: &&Entry| names.is_empty() || names.iter().any(|name| means(entry, name));
    Ok(ENTRIES.iter().filter(wanted).collect())
}

#[cfg(test)]
mod tests {
    use super::select;

    fn names(wanted: &[&str]) -> Vec<&'static str> {
        let wanted: Vec<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
        select(&wanted).unwrap().iter().map(|entry| entry.name).collect()
    }

    #[test]
    fn names_mean_suites_or_rows() {
        assert!(names(&[]).len() > names(&["machine"]).len() || names(&["machine"]) == names(&[]));
        assert_eq!(names(&["machine"]), ["machine/append", "machine/create"]);
        assert_eq!(names(&["machine/create"]), ["machine/create"]);
        assert!(select(&["mach".to_owned()]).is_err());
    }
}
