//! What a diagnosis says: causes, places and excerpts that are safe to print.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Stop;

/// Why bytes differ, as machines read it. The order is that of reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// A date or time: of a member, in a header, or written into text or data.
    Time,
    /// The same parts in another order.
    Order,
    /// The path of a build folder.
    Path,
    /// The same content, compressed otherwise.
    Compression,
    /// Nothing in an ELF file but its build-id and what is derived from that.
    BuildId,
    /// The version of a tool or of the product.
    VersionString,
    /// An output or a member that only one side has.
    FileSet,
    /// Mode, owner, type or another field of a member's header.
    Metadata,
    /// Anything else, and whatever could not be examined.
    Content,
}

impl Cause {
    /// The name that JSON has too.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Order => "order",
            Self::Path => "path",
            Self::Compression => "compression",
            Self::BuildId => "build-id",
            Self::VersionString => "version-string",
            Self::FileSet => "file-set",
            Self::Metadata => "metadata",
            Self::Content => "content",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether a finding is a reason of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// It is.
    Cause,
    /// It follows from another finding, as a digest in a list follows from the file.
    Consequence,
}

/// How deep a difference goes: information for a reader, never a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Remark {
    /// Only times, order, compression and build-ids were seen to differ.
    IncidentalOnly,
    /// More than that differs.
    ContentDiffers,
    /// A limit cut the diagnosis short.
    Undetermined,
}

impl Remark {
    pub(super) fn of(causes: &[Cause], stops: &[Stop]) -> Self {
        let incidental = [Cause::Time, Cause::Order, Cause::Compression, Cause::BuildId];
        if !stops.is_empty() {
            Self::Undetermined
        } else if causes.iter().all(|cause| incidental.contains(cause)) {
            Self::IncidentalOnly
        } else {
            Self::ContentDiffers
        }
    }

    /// The remark as a sentence.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::IncidentalOnly => "only times, order, compression or build-ids were seen to differ; still no match",
            Self::ContentDiffers => "what was built differs",
            Self::Undetermined => "a limit cut the diagnosis short",
        }
    }
}

/// A few characters from an output, safe to print: what a terminal could obey is escaped.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Excerpt(String);

impl Excerpt {
    /// Characters of an excerpt before it is cut.
    pub const MAX_CHARS: usize = 120;

    /// The beginning of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut text = String::new();
        let mut room = Self::MAX_CHARS;
        // An escape takes up to ten characters, and a character up to four bytes.
        let head = bytes.get(..Self::MAX_CHARS * 4).unwrap_or(bytes);
        for chunk in head.utf8_chunks() {
            let valid = chunk.valid().chars().map(shown);
            let invalid = chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}"));
            for piece in valid.chain(invalid) {
                let Some(left) = room.checked_sub(piece.chars().count()) else {
                    text.push('…');
                    return Self(text);
                };
                room = left;
                text.push_str(&piece);
            }
        }
        if head.len() < bytes.len() {
            text.push('…');
        }
        Self(text)
    }

    /// The first bytes in hexadecimal.
    #[must_use]
    pub fn hex(bytes: &[u8]) -> Self {
        let shown = bytes.get(..20).unwrap_or(bytes);
        let mut text: String = shown.iter().map(|byte| format!("{byte:02x}")).collect();
        if shown.len() < bytes.len() {
            text.push('…');
        }
        Self(text)
    }

    /// The first `count` characters of this excerpt.
    pub(super) fn cut(&self, count: usize) -> Self {
        match self.0.char_indices().nth(count) {
            None => self.clone(),
            Some((at, _)) => Self(format!("{}…", self.0.get(..at).unwrap_or_default())),
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// ASCII and letters as they are; all else (controls, directions, joiners, our own separator) escaped.
fn shown(character: char) -> String {
    match character {
        '\\' => "\\\\".to_owned(),
        '\n' => "\\n".to_owned(),
        '\t' => "\\t".to_owned(),
        '\0' => "\\0".to_owned(),
        ' '..='~' => character.to_string(),
        other if other.is_alphanumeric() => other.to_string(),
        other => format!("\\u{{{:x}}}", u32::from(other)),
    }
}

/// Where something is: an output, then the members inside.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MemberPath(Vec<Excerpt>);

impl MemberPath {
    pub(super) const SEPARATOR: &'static str = " ▸ ";

    pub(super) fn new(parts: Vec<Excerpt>) -> Self {
        Self(parts)
    }

    /// From the output inwards.
    #[must_use]
    pub fn parts(&self) -> &[Excerpt] {
        &self.0
    }
}

impl fmt::Display for MemberPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, part) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(Self::SEPARATOR)?;
            }
            f.write_str(part.as_str())?;
        }
        Ok(())
    }
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Where.
    pub member: MemberPath,
    /// Why.
    pub cause: Cause,
    /// Whether this is a reason of its own.
    pub role: Role,
    /// What differs, in a few words.
    pub what: String,
    /// What the first build has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left: Option<Excerpt>,
    /// What the second build has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub right: Option<Excerpt>,
    /// How many more places beside this one differ in the same way.
    #[serde(skip_serializing_if = "is_zero")]
    pub more: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(count: &u64) -> bool {
    *count == 0
}
