//! Real indicators: the hosts of URLhaus's list of live malware, as Debian has it, made into detection rules; and
//! MISP's list of files that are known to be good, as PyPI has it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use stdx::{Digest, durable};

use super::Options;
use super::stage::INDICATORS;
use super::trees::Upstream;
use crate::failure::Failure;

/// The package with the list; it depends on a browser, and only its files are wanted.
const PACKAGE: &str = "webext-ublock-origin-chromium";
const LIST: &str = "usr/share/chromium/extensions/ublock-origin/assets/thirdparties/urlhaus-filter";
const HOSTS: &str = "urlhaus-filter-online.txt";
const LICENCE: &str = "LICENSE.md";
/// As many of its hosts become rules.
pub(super) const RULES: usize = 96;

/// MISP's lists against false alarms, and the one of benign files, each by its MD5, SHA-1 and SHA-256.
const WARNINGLISTS: [&str; 3] =
    ["pymispwarninglists", "1.7.0", "b21326430a66c724ffc588f8860906a0fa67b6eae3cda3706e3042a08572c6d7"];
const BENIGN: &str = "lists/nioc-filehash/list.json";

/// The hosts, and the tree of rules.
pub(super) struct Indicators {
    /// Addresses, as upstream lists them.
    pub(super) hosts: Vec<String>,
    /// `rules.toml` and rules, for a command line.
    pub(super) tree: PathBuf,
}

impl Indicators {
    /// Fetches the list, which Debian's package manager checks, and lays the tree out in `folder`.
    pub(super) fn fetch(folder: &Path, options: &Options) -> anyhow::Result<Self> {
        let kept = options.folder.join("downloads/urlhaus");
        if !options.offline || !kept.join(HOSTS).is_file() {
            fetch(&kept).with_context(|| {
                Failure::refused(format!("Debian's `{PACKAGE}` can't be had")).hint(
                    "it comes with `apt-get download`; without a network, `--offline` uses what an earlier run has",
                )
            })?;
        }
        let list = fs::read_to_string(kept.join(HOSTS)).context("the list of hosts")?;
        let is_address = |line: &&str| line.parse::<std::net::Ipv4Addr>().is_ok();
        let hosts: Vec<String> = list.lines().filter(is_address).take(RULES).map(str::to_owned).collect();
        ensure!(hosts.len() == RULES, "the list has only {} addresses", hosts.len());
        let tree = folder.to_owned();
        durable::create_folder(&tree.join("rules"))?;
        let rules: String = hosts.iter().map(|host| rule(host)).collect();
        durable::write(&tree.join("rules/urlhaus.yar"), rules.as_bytes())?;
        durable::write(&tree.join(LICENCE), &fs::read(kept.join(LICENCE))?)?;
        let settings = format!("product = \"{INDICATORS}\"\nsources = \"rules\"\nnotice = \"{LICENCE}\"\n");
        durable::write(&tree.join("rules.toml"), settings.as_bytes())?;
        Ok(Self { hosts, tree })
    }
}

/// What MISP knows to be good, ascending.
pub(super) fn known_good(options: &Options) -> anyhow::Result<Vec<Digest>> {
    #[derive(Deserialize)]
    struct Warninglist {
        list: Vec<String>,
    }
    let upstream = Upstream::new(options)?;
    let list = upstream.read(&upstream.fetch(WARNINGLISTS)?, BENIGN)?;
    let Warninglist { list } = serde_json::from_slice(&list).with_context(|| format!("`{BENIGN}`"))?;
    let mut good: Vec<Digest> = list.iter().filter_map(|hash| hash.parse().ok()).collect();
    good.sort_unstable();
    good.dedup();
    ensure!(!good.is_empty(), "`{BENIGN}` has no SHA-256");
    Ok(good)
}

/// The name of the rule that finds a host.
fn name(host: &str) -> String {
    format!("urlhaus_{}", host.replace('.', "_"))
}

fn rule(host: &str) -> String {
    format!(
        "rule {} {{\n  meta:\n    author = \"URLhaus (abuse.ch)\"\n  strings:\n    $a = \"http://{host}/\"\n  \
         condition:\n    $a\n}}\n",
        name(host)
    )
}

/// What apt gives is what Debian signed.
fn fetch(kept: &Path) -> anyhow::Result<()> {
    let scratch = kept.join("package");
    if scratch.exists() {
        fs::remove_dir_all(&scratch)?;
    }
    durable::create_folder(&scratch)?;
    run(Command::new("apt-get").args(["download", "-q", PACKAGE]).current_dir(&scratch))?;
    let mut files = fs::read_dir(&scratch)?.collect::<std::io::Result<Vec<_>>>()?.into_iter();
    let package = files.find(|it| it.path().extension().is_some_and(|it| it == "deb"));
    let package = package.context("apt-get has downloaded no package")?.path();
    run(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&scratch))?;
    for file in [HOSTS, LICENCE] {
        durable::write(&kept.join(file), &fs::read(scratch.join(LIST).join(file))?)?;
    }
    Ok(fs::remove_dir_all(&scratch)?)
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("can't run `{program}`"))?;
    ensure!(output.status.success(), "`{program}`: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
