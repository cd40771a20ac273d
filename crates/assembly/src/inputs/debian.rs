//! The Debian archive through apt, with state, cache and configuration of the depot's own: nothing
//! of the machine's is changed. apt verifies the archive's signature and the chain of digests from
//! it to each package's SHA-256.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use stdx::{Digest, durable};

use crate::inputs::{Depot, InputsError, io_at};
use crate::lock::{LockedFile, LockedPackage};
use crate::recipe::{PackageName, Version};
use crate::tool::{APT_CACHE, APT_CONFIG, APT_GET, ToolError};

/// Where the machine lists its archives.
const SOURCES: &str = "/etc/apt/sources.list";
const RELEASE: &str = "/etc/os-release";
const SOURCES_FOLDER: &str = "/etc/apt/sources.list.d";
/// Options of the machine that are kept: how to reach the archive (proxies, certificates, time-outs).
const KEPT_OPTIONS: &str = "Acquire::";
/// How an archive's stanza shows that it is Debian's own: signed by Debian's archive keyring.
const DEBIAN_KEYRING: &str = "debian-archive-keyring";

/// apt with a private state.
pub(crate) struct Debian {
    folder: PathBuf,
    /// apt itself refuses to wait for another apt.
    _alone: File,
}

impl Debian {
    /// Sets up the private state; the archives are those that the machine itself trusts Debian's
    /// keyring for, with their sources added.
    pub(crate) fn open(depot: &Depot) -> Result<Self, InputsError> {
        let alone = depot.exclusive("apt")?;
        let folder = &depot.part("apt");
        for part in ["state/lists/partial", "cache/archives/partial", "parts", "sources"] {
            let part = folder.join(part);
            durable::create_folder(&part).map_err(io_at(&part))?;
        }
        let put = |name: &str, text: &str| {
            let path = folder.join(name);
            durable::write(&path, text.as_bytes()).map_err(io_at(&path))
        };
        put("status", "")?;
        put("sources/archive.sources", &private_sources()?)?;
        let dump = APT_CONFIG.text(APT_CONFIG.command().arg("dump"))?;
        let kept: String =
            dump.lines().filter(|line| line.starts_with(KEPT_OPTIONS)).fold(String::new(), |mut text, line| {
                text.push_str(line);
                text.push('\n');
                text
            });
        let here = folder.display();
        put(
            "apt.conf",
            &format!(
                "{kept}Acquire::ForceHash \"SHA256\";\nAcquire::Languages \"none\";\n\
                 Dir::State \"{here}/state\";\nDir::State::status \"{here}/status\";\nDir::Cache \"{here}/cache\";\n\
                 Dir::Etc::Parts \"{here}/parts\";\nDir::Etc::Main \"/dev/null\";\n\
                 Dir::Etc::sourcelist \"/dev/null\";\nDir::Etc::sourceparts \"{here}/sources\";\n\
                 APT::Sandbox::User \"root\";\nAPT::Install-Recommends \"false\";\n"
            ),
        )?;
        Ok(Self { folder: folder.clone(), _alone: alone })
    }

    /// Fetches the signed index anew.
    pub(crate) fn update(&self) -> Result<(), InputsError> {
        // Without this option apt-get succeeds with yesterday's index when the archive is away.
        APT_GET.output(self.command().args(["-o", "APT::Update::Error-Mode=any", "update", "-q"]))?;
        Ok(())
    }

    /// What the index says of these packages at exactly these versions.
    pub(crate) fn packages(&self, wanted: &[(PackageName, Version)]) -> Result<Vec<LockedPackage>, InputsError> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let mut command = self.command();
        command.args(["--print-uris", "download"]);
        command.args(wanted.iter().map(|(name, version)| format!("{name}={version}")));
        let text = APT_GET.text(&mut command).map_err(superseded)?;
        uri_lines(&text)?.into_iter().map(|(file, sha256)| package_of(&file, sha256)).collect()
    }

    /// What installing `packages` on nothing would install.
    pub(crate) fn closure(&self, packages: &[PackageName]) -> Result<Vec<LockedPackage>, InputsError> {
        let mut command = self.command();
        command.args(["--print-uris", "-y", "install"]);
        command.args(packages.iter().map(PackageName::as_str));
        let text = APT_GET.text(&mut command).map_err(superseded)?;
        let mut found: Vec<_> =
            uri_lines(&text)?.into_iter().map(|(file, sha256)| package_of(&file, sha256)).collect::<Result<_, _>>()?;
        found.sort();
        Ok(found)
    }

    /// The files of a source package.
    pub(crate) fn source(&self, name: &PackageName, version: &Version) -> Result<Vec<LockedFile>, InputsError> {
        let mut command = self.command();
        command.args(["--print-uris", "--download-only", "--only-source", "source", &format!("{name}={version}")]);
        let text = APT_GET.text(&mut command).map_err(superseded)?;
        let mut files: Vec<_> =
            uri_lines(&text)?.into_iter().map(|(file, sha256)| LockedFile { file, sha256 }).collect();
        files.sort();
        Ok(files)
    }

    /// The newest version of a source package.
    pub(crate) fn newest_source(&self, name: &PackageName) -> Result<Version, InputsError> {
        let mut command = self.command();
        command.args(["--print-uris", "--download-only", "--only-source", "source", name.as_str()]);
        let text = APT_GET.text(&mut command).map_err(superseded)?;
        let files = uri_lines(&text)?;
        let control = files.iter().map(|(file, _)| file).find(|file| file.ends_with(".dsc"));
        let control = control.ok_or_else(|| APT_GET.answer(&text))?;
        // File names have no epoch; the index's own stanza has.
        let mut command = APT_CACHE.command();
        command.env("APT_CONFIG", self.folder.join("apt.conf"));
        let stanzas = APT_CACHE.text(command.args(["showsrc", "--only-source", name.as_str()]))?;
        version_with(&stanzas, control).ok_or_else(|| APT_CACHE.answer(&stanzas).into())
    }

    /// Downloads packages into `folder`.
    pub(crate) fn download(&self, wanted: &[&LockedPackage], folder: &Path) -> Result<(), InputsError> {
        let mut command = self.command();
        command.current_dir(folder).args(["-q", "download"]);
        command.args(wanted.iter().map(|package| format!("{}={}", package.name, package.version)));
        APT_GET.output(&mut command).map_err(superseded)?;
        Ok(())
    }

    /// Downloads a source package into `folder`, without unpacking it.
    pub(crate) fn download_source(
        &self,
        name: &PackageName,
        version: &Version,
        folder: &Path,
    ) -> Result<(), InputsError> {
        let mut command = self.command();
        command.current_dir(folder).args(["-q", "--download-only", "--only-source", "source"]);
        APT_GET.output(command.arg(format!("{name}={version}"))).map_err(superseded)?;
        Ok(())
    }

    fn command(&self) -> Command {
        let mut command = APT_GET.command();
        command.env("APT_CONFIG", self.folder.join("apt.conf"));
        command
    }
}

/// The version of the stanza that lists `file`.
fn version_with(stanzas: &str, file: &str) -> Option<Version> {
    let lists = |stanza: &&str| stanza.lines().any(|line| line.starts_with(' ') && line.ends_with(&format!(" {file}")));
    let stanza = stanzas.split("\n\n").find(lists)?;
    stanza.lines().find_map(|line| line.strip_prefix("Version: "))?.trim().parse().ok()
}

/// apt's words for what the index does not have.
fn superseded(error: ToolError) -> InputsError {
    if let ToolError::Failed { words, .. } = &error {
        for line in words.lines() {
            let absent =
                ["was not found", "Unable to locate", "Unable to find a source", "has no installation candidate"];
            if absent.iter().any(|words| line.contains(words)) {
                let quoted: Vec<&str> = line.split(['\'', '\u{2018}', '\u{2019}']).skip(1).step_by(2).collect();
                let item = match quoted.as_slice() {
                    [version, name, ..] => format!("{name} {version}"),
                    _ => line.trim_start_matches("E: ").to_owned(),
                };
                return InputsError::Superseded { item };
            }
        }
    }
    error.into()
}

/// The machine's stanzas and lines for Debian's own archive, with sources added.
fn private_sources() -> Result<String, InputsError> {
    let mut text = String::new();
    let release = fs::read_to_string(RELEASE).map_err(io_at(Path::new(RELEASE)))?;
    let codename =
        release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).unwrap_or_default().to_owned();
    let mut files = vec![PathBuf::from(SOURCES)];
    let folder = Path::new(SOURCES_FOLDER);
    if folder.is_dir() {
        for entry in fs::read_dir(folder).map_err(io_at(folder))? {
            files.push(entry.map_err(io_at(folder))?.path());
        }
    }
    files.sort();
    for file in files.iter().filter(|file| file.is_file()) {
        let content = fs::read_to_string(file).map_err(io_at(file))?;
        if file.extension().is_some_and(|extension| extension == "sources") {
            text.push_str(&debian_stanzas(&content));
        } else {
            text.push_str(&debian_lines(&content, &codename));
        }
    }
    if text.is_empty() {
        let path = folder.to_owned();
        let source = std::io::Error::other("no archive there is signed by Debian's own keyring");
        return Err(InputsError::Io { path, source });
    }
    Ok(text)
}

/// deb822 stanzas that Debian's keyring signs, as `deb deb-src`.
fn debian_stanzas(content: &str) -> String {
    let mut text = String::new();
    for stanza in content.split("\n\n") {
        let lines: Vec<&str> =
            stanza.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()).collect();
        let field = |name: &str| lines.iter().find(|line| line.to_ascii_lowercase().starts_with(name));
        let enabled = field("enabled:").is_none_or(|line| !line.to_ascii_lowercase().contains("no"));
        let debian = field("signed-by:").is_some_and(|line| line.contains(DEBIAN_KEYRING));
        let binary = field("types:").is_some_and(|line| line.split_whitespace().any(|word| word == "deb"));
        if !(enabled && debian && binary) {
            continue;
        }
        for line in lines {
            let line = if line.to_ascii_lowercase().starts_with("types:") { "Types: deb deb-src" } else { line };
            text.push_str(line);
            text.push('\n');
        }
        text.push('\n');
    }
    text
}

/// One-line entries for the release that the machine runs and without a keyring of their own, as
/// stanzas that only Debian's keyring can sign.
fn debian_lines(content: &str, codename: &str) -> String {
    let mut text = String::new();
    for line in content.lines() {
        let Some(rest) = line.trim().strip_prefix("deb ") else { continue };
        let (options, rest) = match rest.trim_start().strip_prefix('[') {
            Some(rest) => rest.split_once(']').unwrap_or(("", rest)),
            None => ("", rest),
        };
        let other_keyring = options.contains("signed-by=") && !options.contains(DEBIAN_KEYRING);
        let mut words = rest.split_whitespace();
        let (Some(uri), Some(suite)) = (words.next(), words.next()) else { continue };
        let components: Vec<&str> = words.collect();
        let own = suite.strip_prefix(codename).is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '/']));
        if !own || other_keyring || !components.contains(&"main") || options.contains("trusted") {
            continue;
        }
        text.push_str(&format!(
            "Types: deb deb-src\nURIs: {uri}\nSuites: {suite}\nComponents: {}\n\
             Signed-By: /usr/share/keyrings/{DEBIAN_KEYRING}.gpg\n\n",
            components.join(" ")
        ));
    }
    text
}

/// `'URI' FILE SIZE SHA256:DIGEST`, a line for each file.
fn uri_lines(text: &str) -> Result<Vec<(String, Digest)>, InputsError> {
    let mut found = Vec::new();
    for line in text.lines().filter(|line| line.starts_with('\'')) {
        let mut fields = line.rsplit(' ');
        let digest = fields.next().and_then(|field| field.strip_prefix("SHA256:")).and_then(|hex| hex.parse().ok());
        let file = fields.nth(1);
        match (file, digest) {
            (Some(file), Some(digest)) => found.push((decode_percent(file), digest)),
            _ => return Err(APT_GET.answer(line).into()),
        }
    }
    Ok(found)
}

fn decode_percent(text: &str) -> String {
    text.replace("%3a", ":").replace("%3A", ":").replace("%2b", "+").replace("%7e", "~")
}

/// `NAME_VERSION_ARCHITECTURE.deb`.
fn package_of(file: &str, sha256: Digest) -> Result<LockedPackage, InputsError> {
    let answer = || InputsError::from(APT_GET.answer(file));
    let mut fields = file.strip_suffix(".deb").ok_or_else(answer)?.split('_');
    let (Some(name), Some(version), Some(architecture), None) =
        (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return Err(answer());
    };
    Ok(LockedPackage {
        name: name.parse().map_err(|_| answer())?,
        version: version.parse().map_err(|_| answer())?,
        architecture: architecture.parse().map_err(|_| answer())?,
        sha256,
    })
}

/// What apt prints, read in every way in which it is read.
#[cfg(fuzzing)]
pub(crate) fn apt_answer(text: &str) {
    for (file, sha256) in uri_lines(text).into_iter().flatten() {
        let _ = package_of(&file, sha256);
    }
    let _ = version_with(text, "cjson_1.7.15-1+deb12u4.dsc");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let digest = Digest::of(b"");
        let text =
            format!("Reading...\n'x://h/p/zlib1g_1%3a1.2_amd64.deb' zlib1g_1%3a1.2_amd64.deb 12 SHA256:{digest}\n");
        let lines = uri_lines(&text).unwrap();
        let package = package_of(&lines[0].0, lines[0].1).unwrap();
        assert_eq!((package.name.as_str(), package.version.as_str()), ("zlib1g", "1:1.2"));
        assert!(uri_lines("'x://h/a' a.deb 12 MD5Sum:00\n").is_err());
        assert!(package_of("a_b_c_d.deb", digest).is_err());
        assert!(package_of("../a_1_all.deb", digest).is_err());
    }

    #[test]
    fn a_sources_version_has_its_epoch() {
        let stanzas = "Package: a\nVersion: 1.0-1\nFiles:\n 00 1 a_1.0-1.dsc\n\n\
            Package: a\nVersion: 2:0.9-1\nFiles:\n 00 1 a_0.9-1.dsc\n\n";
        assert_eq!(version_with(stanzas, "a_0.9-1.dsc").unwrap().as_str(), "2:0.9-1");
        assert_eq!(version_with(stanzas, "9-1.dsc"), None);
    }

    #[test]
    fn a_version_that_left_is_named() {
        let failed = |words: &str| superseded(ToolError::Failed { tool: "apt-get", words: words.to_owned() });
        let error = failed("E: Version '1.0' for 'libfoo' was not found");
        assert!(error.to_string().starts_with("libfoo 1.0 is no longer"), "{error}");
        assert!(error.to_string().contains("assembly pin"));
        assert!(matches!(failed("E: Unable to locate package foo"), InputsError::Superseded { .. }));
        assert!(matches!(failed("E: no network"), InputsError::Tool(_)));
    }

    #[test]
    fn only_debians_own_archives_are_used() {
        let stanzas = "# comment\nTypes: deb\nURIs: x://one\nSuites: s\nComponents: main\nSigned-By: /k/debian-archive-keyring.gpg\n\n\
            Types: deb\nURIs: x://two\nSuites: s\nSigned-By: /k/other.gpg\n\n\
            Types: deb\nEnabled: no\nURIs: x://three\nSigned-By: /k/debian-archive-keyring.gpg\n";
        insta::assert_snapshot!(debian_stanzas(stanzas), @r#"
        Types: deb deb-src
        URIs: x://one
        Suites: s
        Components: main
        Signed-By: /k/debian-archive-keyring.gpg
        "#);
        let lines = "deb x://one s main\ndeb [signed-by=/k/other.gpg] x://two s main\ndeb-src x://three s main\n\
            deb x://four s contrib\ndeb x://five other-s main\ndeb x://six s-updates main\n";
        insta::assert_snapshot!(debian_lines(lines, "s"), @r#"
        Types: deb deb-src
        URIs: x://one
        Suites: s
        Components: main
        Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

        Types: deb deb-src
        URIs: x://six
        Suites: s-updates
        Components: main
        Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
        "#);
    }
}
