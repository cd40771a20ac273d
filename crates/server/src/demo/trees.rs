//! Trees of rules and the samples that they are tried on: what upstream published, and what somebody
//! might put beside it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use assembly::{Asking, ContentStore, Depot, LockedFile, Node, Sdist, Silent, Source, Transport};
use stdx::durable;

use super::Options;
use super::attacks::copy_folder;
use super::stage::{RULES_PRODUCT, Stage};
use crate::failure::Failure;

/// Two versions that upstream published one after the other.
pub(super) const OLD: &str = "3.1.0";
pub(super) const NEW: &str = "3.2.0";
/// The tree with a rule of upstream's that says of a harmless program what is true of it: it runs pip.
pub(super) const FALSE_ALARM: &str = "pip";
/// The sample that only the newer rules find.
pub(super) const GREETING: &str = "greeting.js";

/// Name, version and SHA-256 of the source distributions.
const RULES: [[&str; 3]; 2] = [
    ["guarddog", OLD, "0b2ba4b16f05b558516b5b45fb2ed6f8eae6d85ad2d1b08dde03cb17053d559d"],
    ["guarddog", NEW, "1937f9012ecec16ceab2725c7b4508e0a5e8399652d1287c9f14fd641dfc7f73"],
];
const GOODWARE: [&str; 3] = ["pysigma", "2.0.1", "7bb0188e1cfae1bec56da1f5703a091df158925caf32cf033594bab60b97f49f"];

/// Upstream's rules of what is malicious. Those of what a program can do (`capability-`) fire on many a
/// harmless one; they are meant for another use.
const FOLDER: &str = "guarddog/analyzer/sourcecode/threat-";
/// Three whose patterns have no literal to search for, so that people would have to look at each change
/// of them, and one that fires on the goodware.
const LEFT_OUT: [&str; 4] =
    ["filesystem-destruction", "network-exfiltration", "network-outbound-shady-links", RUNS_PIP];
const RUNS_PIP: &str = "process-download-exec";

/// Harmless files that rules fire on. The first is only found by the newer rules, and is short enough for
/// the older ones to leave it alone.
const KNOWN_BAD: [(&str, &str); 3] = [
    (GREETING, "document.title = String.fromCharCode(72,101,108,108,111,32,121,111,117,33);\n"),
    ("pool.txt", "This is no miner, but names one: xmrig.\n"),
    ("token.py", "import os\nprint(len(os.getenv('DEMO_API_TOKEN', '')))\n"),
];

/// What somebody hostile might write.
const HOSTILE: [(&str, &str); 2] = [
    ("twin", "rule threat_process_cryptomlning { condition: false }\n"),
    (
        "greedy",
        "rule documents { meta: collects = \"documents\" strings: $a = \"strictly confidential\" condition: $a }\n",
    ),
];

/// The trees, in a folder of the run.
pub(super) struct Trees {
    folder: PathBuf,
    goodware: usize,
}

impl Trees {
    /// Fetches what upstream published, and lays the trees and corpora out.
    pub(super) fn fetch(stage: &Stage, options: &Options) -> anyhow::Result<Self> {
        let trees = Self { folder: stage.folder().join("rules"), goodware: 0 };
        let upstream = Upstream::new(options)?;
        let goodware = trees.write(&upstream, &upstream.fetch(GOODWARE)?, "goodware", |path| Some(path.to_owned()))?;
        for (name, content) in KNOWN_BAD {
            trees.put(&format!("known-bad/{name}"), content.as_bytes())?;
        }
        let settings = format!(
            "product = \"{RULES_PRODUCT}\"\nsources = \"rules\"\nnotice = \"NOTICE\"\n\n\
             # Upstream's patterns are of this kind; a change of these numbers needs people.\n\
             [limits]\ngaps = 16\natom_bytes = 1\n\n[corpus]\nknown_bad = \"{}\"\ngoodware = \"{}\"\n",
            trees.corpus(stage, "known-bad")?,
            trees.corpus(stage, "goodware")?,
        );
        for of @ [_, version, _] in RULES {
            let source = upstream.fetch(of)?;
            trees.write(&upstream, &source, version, taken)?;
            trees.put(&format!("{version}/rules.toml"), settings.as_bytes())?;
            if version == NEW {
                copy_folder(&trees.folder.join(NEW), &trees.folder.join(FALSE_ALARM))?;
                let runs_pip = |path: &str| (stem(path)? == RUNS_PIP).then(|| in_rules(path))?;
                trees.write(&upstream, &source, FALSE_ALARM, runs_pip)?;
            }
        }
        for (name, rule) in HOSTILE {
            copy_folder(&trees.folder.join(NEW), &trees.folder.join(name))?;
            trees.put(&format!("{name}/rules/{name}.yar"), rule.as_bytes())?;
        }
        Ok(Self { goodware, ..trees })
    }

    /// The tree of a version, or of an attempt, for a command line.
    pub(super) fn tree(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// The file that only the newer rules find.
    pub(super) fn greeting(&self) -> PathBuf {
        self.folder.join("known-bad").join(GREETING)
    }

    /// What rules are tried on, in words.
    pub(super) fn samples(&self) -> String {
        let [name, version, _] = GOODWARE;
        format!("{} known-bad samples, and {} harmless: {name} {version}", KNOWN_BAD.len(), self.goodware)
    }

    /// Writes those files of a source that have a `place`; gives how many.
    fn write(
        &self,
        upstream: &Upstream,
        source: &Source,
        name: &str,
        place: impl Fn(&str) -> Option<String>,
    ) -> anyhow::Result<usize> {
        let mut written = 0;
        for (path, node) in source.tree.iter() {
            let (Node::File { size, .. }, Some(place)) = (node, place(path.as_str())) else { continue };
            self.put(&format!("{name}/{place}"), &source.read(path, upstream.depot.content(), *size)?)?;
            written += 1;
        }
        Ok(written)
    }

    fn put(&self, name: &str, content: &[u8]) -> anyhow::Result<()> {
        let path = self.folder.join(name);
        durable::create_folder(path.parent().unwrap_or(&self.folder))?;
        durable::write(&path, content).with_context(|| format!("can't write `{}`", path.display()))
    }

    /// Gives both organisations their copy of a corpus, and says its digest.
    fn corpus(&self, stage: &Stage, name: &str) -> anyhow::Result<String> {
        let folder = self.folder.join(name);
        let digest = stage.clerestory(&["rules", "corpus", &self.tree(name)])?;
        let digest = digest.as_str().context("no digest of a corpus")?;
        for side in ["vendor", "supervisor"] {
            copy_folder(&folder, Path::new(&stage.file(&format!("{side}/corpora/{digest}"))))?;
        }
        Ok(digest.to_owned())
    }
}

/// Source distributions as PyPI has them, kept between runs.
pub(super) struct Upstream {
    depot: Depot,
    asking: Asking,
}

impl Upstream {
    pub(super) fn new(options: &Options) -> anyhow::Result<Self> {
        let shared = ContentStore::create(&options.folder.join("downloads"))?;
        let depot = Depot::create(&options.folder.join("depots/vendor"), Transport::Shared(shared))?;
        Ok(Self { depot, asking: if options.offline { Asking::Recorded } else { Asking::Upstream } })
    }

    /// One by name, version and SHA-256.
    pub(super) fn fetch(&self, [name, version, sha256]: [&str; 3]) -> anyhow::Result<Source> {
        let file = LockedFile { file: format!("{name}-{version}.tar.gz"), sha256: sha256.parse()? };
        let sdist = Sdist { name: parsed(name)?, version: parsed(version)?, file };
        sdist.fetch(&self.depot, self.asking, &Silent).with_context(|| {
            let failure = Failure::refused(format!("{name} {version} can't be had"));
            match self.asking {
                Asking::Recorded => failure.hint("let one run ask upstream first, without `--offline`"),
                Asking::Upstream => failure.hint("without a network, `--offline` uses what an earlier run has fetched"),
            }
        })
    }

    /// The file whose path ends so.
    pub(super) fn read(&self, source: &Source, end: &str) -> anyhow::Result<Vec<u8>> {
        let found = source.tree.iter().find(|(path, _)| path.as_str().ends_with(end));
        let Some((path, Node::File { size, .. })) = found else { bail!("upstream has no file `{end}`") };
        Ok(source.read(path, self.depot.content(), *size)?)
    }
}

fn parsed<T: std::str::FromStr<Err = String>>(text: &str) -> anyhow::Result<T> {
    text.parse().map_err(anyhow::Error::msg)
}

/// Where a file of upstream's goes in the tree, if it is taken.
fn taken(path: &str) -> Option<String> {
    if matches!(path, "NOTICE" | "LICENSE") {
        return Some(path.to_owned());
    }
    if LEFT_OUT.contains(&stem(path)?) { None } else { in_rules(path) }
}

fn stem(path: &str) -> Option<&str> {
    path.strip_prefix(FOLDER)?.strip_suffix(".yar")
}

fn in_rules(path: &str) -> Option<String> {
    Some(format!("rules/{}", path.rsplit('/').next()?))
}
