//! What is malicious becomes a tree of lists, and takes the way of all rules: both builders, both keys, the log.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use attest::ProductId;
use detection::RulesTree;
use stdx::{Digest, durable};

use super::is_malicious;
use super::state::{Released, Verdicts};
use crate::command::read_limited;
use crate::config::{CloudSection, Config};
use crate::line::{Line, Pushed};
use crate::publish;

/// The EICAR test file's SHA-256: everybody can see that verdicts arrive, and a set is never empty.
const EICAR: &str = "275a021bbfb6489e54d471899f7db9d1663fc695ec2fe2a2c4538aabf651fd0f";

/// The vendor's assembly line.
pub(super) struct Releasing {
    pub(super) config: Arc<Config>,
    pub(super) line: Line,
}

impl Releasing {
    /// The rules of these products' releases in force, each with its release. What is stopped or revoked is not.
    pub(super) async fn rules(&self, products: &BTreeSet<ProductId>) -> anyhow::Result<BTreeMap<String, String>> {
        let mut rules = BTreeMap::new();
        for product in products {
            let Some((index, release)) = self.line.rules_in_force(product).await? else { continue };
            rules.extend(index.rules.into_iter().map(|rule| (rule.name, release.clone())));
        }
        Ok(rules)
    }

    /// Releases these hashes; each time anew from the vendor's own tree.
    pub(super) async fn release(
        &self,
        section: &CloudSection,
        verdicts: &Verdicts,
        malicious: &BTreeSet<Digest>,
    ) -> anyhow::Result<Released> {
        let now = self.line.domain().clock.now();
        let folder = section.folder.join("tree");
        copy(&section.tree, &folder)?;
        let lists = folder.join("hashes");
        durable::create_folder(&lists)?;
        let mut list = format!("# The EICAR test file\n{EICAR}\n# Verdicts of the threat cloud\n");
        malicious.iter().try_for_each(|hash| writeln!(list, "{hash}"))?;
        durable::write(&lists.join("cloud.txt"), list.as_bytes())?;
        durable::write(&folder.join("verdicts.txt"), reasons(verdicts)?.as_bytes())?;
        let tree = RulesTree::from_folder(&folder).context("the threat cloud's tree")?;
        let version = now.seconds().to_string();
        let pushed = self.line.push(&tree, &version, |_| {}).await?;
        match pushed {
            Pushed::Released(publication) => {
                tokio::task::block_in_place(|| publish::publish(&self.config, self.line.domain(), &publication))?;
                tracing::info!(version, hashes = malicious.len(), "verdicts are released to the canaries");
                Ok(Released { version, time: self.line.domain().clock.now(), refused: Vec::new() })
            }
            Pushed::Refused { reasons, folder, .. } => {
                let codes: Vec<&str> = reasons.iter().map(|it| it.code.as_str()).collect();
                tracing::error!(version, folder = %folder.display(), "verdicts are not fit for the fast lane: {}", codes.join(", "));
                Ok(Released { version, time: now, refused: reasons })
            }
        }
    }
}

/// Why each hash is in it, for whoever reads the tree.
fn reasons(verdicts: &Verdicts) -> anyhow::Result<String> {
    let mut text = String::new();
    for it in verdicts.judged.iter().filter(|it| is_malicious(it.standing)) {
        let why: Vec<String> = it.reasons.iter().map(ToString::to_string).collect();
        writeln!(text, "{}: first {}, last {}; {}", it.sha256, it.first, it.last, why.join("; "))?;
    }
    Ok(text)
}

/// A copy of the vendor's tree as it is now. It may have no rules and no lists of its own: whether it is a tree is
/// asked when verdicts are in it.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    if to.exists() {
        fs::remove_dir_all(to).with_context(|| format!("can't remove `{}`", to.display()))?;
    }
    let mut left = vec![(from.to_owned(), to.to_owned())];
    while let Some((from, to)) = left.pop() {
        durable::create_folder(&to)?;
        for entry in fs::read_dir(&from).with_context(|| format!("can't read `{}`", from.display()))? {
            let entry = entry?;
            let (path, at, kind) = (entry.path(), to.join(entry.file_name()), entry.file_type()?);
            if kind.is_dir() {
                left.push((path, at));
            } else {
                anyhow::ensure!(kind.is_file(), "`{}` is neither file nor folder", path.display());
                let bytes = read_limited(&path, usize::try_from(detection::FILE_BYTES_MAX)?)?;
                durable::write(&at, &bytes)?;
            }
        }
    }
    Ok(())
}
