//! The bill of materials (CycloneDX 1.6, JSON) from what really went in.
//!
//! It is a function of recipe, lock and inputs alone: its serial number comes from its own content,
//! and it carries no time, so that everybody who builds gets the same bytes.

use std::io::Read;

use serde_json::{Value, json};
use stdx::Digest;

use crate::archive::{ArchiveError, Naming, Sink, unpack_tar, unpack_zip};
use crate::content::{ContentError, ContentStore};
use crate::inputs::Fetched;
use crate::recipe::{Product, SourceSpec};
use crate::record::canonical;
use attest::tree::{Mode, TreePath};

/// Largest manifest read for its licence; the longest `METADATA` have a long readme of 200 KB.
const MANIFEST_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Licences could not be read from the inputs.
#[derive(Debug, thiserror::Error)]
pub enum SbomError {
    /// An input is not in the depot.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// An input cannot be unpacked.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
}

/// The document's bytes.
///
/// # Errors
/// [`SbomError`].
pub fn sbom(store: &ContentStore, product: &Product, fetched: &Fetched) -> Result<Vec<u8>, SbomError> {
    let recipe = &product.recipe;
    let version = recipe.version.as_str();
    let purl = source_purl(&recipe.source, recipe.product.as_str(), version);
    let mut root = json!({
        "type": "application",
        "bom-ref": purl,
        "name": recipe.product.as_str(),
        "version": version,
        "hashes": [{ "alg": "SHA-256", "content": fetched.source.digest.to_string() }],
    });
    if let Some(licence) = source_licence(product, fetched, store)? {
        set(&mut root, "licenses", licence_value(&licence));
    }
    set(&mut root, "purl", json!(purl));

    let mut components = Vec::new();
    for locked in &fetched.crates {
        let purl = format!("pkg:cargo/{}@{}", locked.name, encode(locked.version.as_str()));
        let mut manifest = Wanted::new("Cargo.toml");
        let archive = store.open_object(&locked.sha256)?;
        unpack_tar(locked.name.as_str(), archive, Naming::WithoutFirst, &mut manifest)?;
        let part = Part { name: locked.name.as_str(), version: locked.version.as_str(), scope: "required" };
        components.push(component(&part, &purl, &locked.sha256, cargo_licence(&manifest.bytes)));
    }
    for wheel in &fetched.wheels {
        let purl = format!("pkg:pypi/{}@{}", wheel.name.as_str().to_lowercase(), encode(wheel.version.as_str()));
        let mut metadata = Wanted::new("METADATA");
        unpack_zip(&wheel.file, store.open_object(&wheel.sha256)?, &mut metadata)?;
        let part = Part { name: wheel.name.as_str(), version: wheel.version.as_str(), scope: "excluded" };
        components.push(component(&part, &purl, &wheel.sha256, python_licence(&metadata.bytes)));
    }
    for package in &fetched.debian {
        let (name, version) = (package.name.as_str(), package.version.as_str());
        let purl = format!("pkg:deb/debian/{}@{}?arch={}", encode(name), encode(version), package.architecture);
        // Debian's copyright files are prose; what they say is not guessed at.
        components.push(component(&Part { name, version, scope: "excluded" }, &purl, &package.sha256, None));
    }
    let required: Vec<&Value> =
        components.iter().filter(|part| part["scope"] == "required").map(|part| &part["bom-ref"]).collect();
    let dependencies = json!([{ "ref": purl, "dependsOn": required }]);
    let body = json!({ "metadata": { "component": root }, "components": components, "dependencies": dependencies });
    let mut document = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": serial(&Digest::of(&canonical(&body))),
        "version": 1,
    });
    if let (Some(document), Value::Object(body)) = (document.as_object_mut(), body) {
        document.extend(body);
    }
    Ok(canonical(&document))
}

/// What a component is called and whether it ends up in the product (`required`) or is only used
/// to make it (`excluded`).
struct Part<'a> {
    name: &'a str,
    version: &'a str,
    scope: &'a str,
}

fn component(part: &Part<'_>, purl: &str, digest: &Digest, licence: Option<String>) -> Value {
    let mut value = json!({
        "type": "library",
        "bom-ref": purl,
        "name": part.name,
        "version": part.version,
        "scope": part.scope,
        "hashes": [{ "alg": "SHA-256", "content": digest.to_string() }],
    });
    if let Some(licence) = licence {
        set(&mut value, "licenses", licence_value(&licence));
    }
    set(&mut value, "purl", json!(purl));
    value
}

fn set(object: &mut Value, member: &str, value: Value) {
    if let Some(object) = object.as_object_mut() {
        object.insert(member.to_owned(), value);
    }
}

/// An SPDX expression where it looks like one, a name otherwise.
fn licence_value(licence: &str) -> Value {
    let is_word =
        |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "-.+()".contains(c));
    let words: Vec<&str> = licence.split(' ').collect();
    let joined = words.iter().skip(1).step_by(2).all(|word| matches!(*word, "OR" | "AND" | "WITH"));
    if words.len() % 2 == 1 && joined && words.iter().all(|word| is_word(word)) {
        json!([{ "expression": licence }])
    } else {
        json!([{ "license": { "name": licence } }])
    }
}

fn source_licence(product: &Product, fetched: &Fetched, store: &ContentStore) -> Result<Option<String>, SbomError> {
    if product.recipe.licence.is_some() {
        return Ok(product.recipe.licence.clone());
    }
    let manifest = |name: &str| -> Result<Option<Vec<u8>>, SbomError> {
        let Ok(path) = TreePath::new(name) else { return Ok(None) };
        match fetched.source.tree.get(&path) {
            Some(attest::tree::Node::File { digest, size, .. }) if *size <= MANIFEST_BYTES_MAX => {
                Ok(Some(store.get(digest, MANIFEST_BYTES_MAX)?))
            }
            _ => Ok(None),
        }
    };
    Ok(match &product.recipe.source {
        SourceSpec::Crate { .. } => manifest("Cargo.toml")?.and_then(|bytes| cargo_licence(&bytes)),
        SourceSpec::Sdist { .. } => manifest("PKG-INFO")?.and_then(|bytes| python_licence(&bytes)),
        SourceSpec::Git { .. } | SourceSpec::Debian { .. } => None,
    })
}

fn cargo_licence(manifest: &[u8]) -> Option<String> {
    let table: toml::Table = std::str::from_utf8(manifest).ok()?.parse().ok()?;
    let licence = table.get("package")?.get("license")?.as_str()?;
    // Old manifests part alternatives by a slash.
    Some(licence.split('/').map(str::trim).collect::<Vec<_>>().join(" OR "))
}

fn python_licence(metadata: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(metadata);
    let header = text.split("\n\n").next().unwrap_or_default();
    let field = |name: &str| header.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let licence = field("License-Expression:").or_else(|| field("License:"))?;
    // Some put the whole text there.
    (!licence.is_empty() && licence.len() < 100).then(|| licence.to_owned())
}

fn source_purl(source: &SourceSpec, product: &str, version: &str) -> String {
    let version = encode(version);
    match source {
        SourceSpec::Git { .. } => format!("pkg:generic/{}@{version}", encode(product)),
        SourceSpec::Crate { name } => format!("pkg:cargo/{name}@{version}"),
        SourceSpec::Debian { name } => format!("pkg:deb/debian/{}@{version}?arch=source", encode(name.as_str())),
        SourceSpec::Sdist { name } => format!("pkg:pypi/{}@{version}", name.as_str().to_lowercase()),
    }
}

/// Percent-encodes what a package URL does not allow in a name or version.
fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b".-_~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// A version 8 UUID (RFC 9562, section 5.8): our own bits, here those of a digest.
fn serial(digest: &Digest) -> String {
    let mut bytes: Vec<u8> = digest.as_bytes().iter().take(16).copied().collect();
    for (index, byte) in bytes.iter_mut().enumerate() {
        match index {
            6 => *byte = *byte & 0x0f | 0x80,
            8 => *byte = *byte & 0x3f | 0x80,
            _ => {}
        }
    }
    let mut text = String::from("urn:uuid:");
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// Keeps the first file of one name that lies at the top, or in a folder of the top.
struct Wanted {
    name: &'static str,
    bytes: Vec<u8>,
}

impl Wanted {
    const fn new(name: &'static str) -> Self {
        Self { name, bytes: Vec::new() }
    }
}

impl Sink for Wanted {
    type Error = std::io::Error;

    fn folder(&mut self, _: TreePath) -> Result<(), Self::Error> {
        Ok(())
    }

    fn file(&mut self, path: TreePath, _: Mode, reader: &mut dyn Read) -> Result<(), Self::Error> {
        let depth = path.as_str().matches('/').count();
        let folder_fits = depth == 0 || path.parent().is_some_and(|folder| folder.as_str().ends_with(".dist-info"));
        if self.bytes.is_empty() && folder_fits && path.name() == self.name {
            reader.take(MANIFEST_BYTES_MAX).read_to_end(&mut self.bytes)?;
        }
        Ok(())
    }

    fn link(&mut self, _: TreePath, _: &str) -> Result<(), Self::Error> {
        Ok(())
    }

    fn hard_link(&mut self, _: TreePath, _: TreePath) -> Result<(), Self::Error> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licences_are_expressions_where_they_can_be() {
        let manifest = b"[package]\nname = \"x\"\nlicense = \"MIT/Apache-2.0\"\n";
        assert_eq!(cargo_licence(manifest).unwrap(), "MIT OR Apache-2.0");
        assert_eq!(licence_value("MIT OR Apache-2.0"), json!([{ "expression": "MIT OR Apache-2.0" }]));
        assert_eq!(licence_value("see LICENSE"), json!([{ "license": { "name": "see LICENSE" } }]));
        assert_eq!(python_licence(b"Name: x\nLicense: MIT\n\nLicense-Expression: GPL").unwrap(), "MIT");
        assert_eq!(python_licence(b"Name: x\n\ntext"), None);
    }

    #[test]
    fn package_urls_are_encoded() {
        assert_eq!(encode("1:2.36-9+deb12u14~x"), "1%3A2.36-9%2Bdeb12u14~x");
    }

    #[test]
    fn serials_are_derived() {
        insta::assert_snapshot!(serial(&Digest::of(b"")), @"urn:uuid:e3b0c442-98fc-8c14-9afb-f4c8996fb924");
    }
}
