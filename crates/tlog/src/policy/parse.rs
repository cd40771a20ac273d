//! The policy file's syntax (C2SP tlog-policy, "Policy file syntax and structure").

use std::collections::BTreeMap;

use super::{
    Group, LogPolicy, MAX_POLICY_BYTES, MAX_POLICY_ENTRIES, Member, PolicyError, PolicyLog, PolicyWitness, Quorum,
};
use crate::text;
use crate::{KeyKind, VerifierKey};

/// The name that means no witness at all.
const NONE: &str = "none";

pub(super) fn parse(bytes: &[u8]) -> Result<LogPolicy, PolicyError> {
    if bytes.len() > MAX_POLICY_BYTES {
        return Err(PolicyError::TooLarge);
    }
    let allowed = |byte: &u8| matches!(byte, b'\t' | b'\n' | 0x20..=0x7e | 0x80..=0xff);
    let text = std::str::from_utf8(bytes).map_err(|_| PolicyError::NotText)?;
    if !bytes.iter().all(allowed) || !text.ends_with('\n') {
        return Err(PolicyError::NotText);
    }
    let mut reader = Reader::default();
    for (line, number) in text.split('\n').zip(1..) {
        reader.line(number, line)?;
    }
    reader.finish()
}

/// What the lines so far defined.
#[derive(Default)]
struct Reader {
    logs: Vec<PolicyLog>,
    witnesses: Vec<PolicyWitness>,
    groups: Vec<Group>,
    quorum: Option<Quorum>,
    names: BTreeMap<String, Definition>,
}

struct Definition {
    member: Member,
    is_used: bool,
}

impl Reader {
    fn line(&mut self, line: usize, text: &str) -> Result<(), PolicyError> {
        let words: Vec<&str> = text.split([' ', '\t']).filter(|word| !word.is_empty()).collect();
        match words.as_slice() {
            [] => Ok(()),
            [first, ..] if first.starts_with('#') => Ok(()),
            ["log", vkey] => self.log(line, vkey, None),
            ["log", vkey, url] => self.log(line, vkey, Some((*url).to_owned())),
            ["witness", name, vkey] => self.witness(line, name, vkey, None),
            ["witness", name, vkey, url] => self.witness(line, name, vkey, Some((*url).to_owned())),
            ["group", name, threshold, members @ ..] if !members.is_empty() => {
                self.group(line, name, threshold, members)
            }
            ["quorum", name] => self.quorum(line, name),
            _ => Err(PolicyError::Line { line, text: text::excerpt(text) }),
        }
    }

    fn log(&mut self, line: usize, vkey: &str, url: Option<String>) -> Result<(), PolicyError> {
        let key = self.key(line, vkey, KeyKind::Ed25519)?;
        if self.logs.len() == MAX_POLICY_ENTRIES {
            return Err(PolicyError::TooLarge);
        }
        self.logs.push(PolicyLog { key, url });
        Ok(())
    }

    fn witness(&mut self, line: usize, name: &str, vkey: &str, url: Option<String>) -> Result<(), PolicyError> {
        let key = self.key(line, vkey, KeyKind::Cosignature)?;
        // One witness with two keys would be counted as two.
        if self.witnesses.iter().any(|witness| witness.key.name() == key.name()) {
            return Err(PolicyError::Duplicate { line, name: key.name().to_string() });
        }
        if self.witnesses.len() == MAX_POLICY_ENTRIES {
            return Err(PolicyError::TooLarge);
        }
        self.define(line, name, Member::Witness(self.witnesses.len()))?;
        self.witnesses.push(PolicyWitness { name: name.to_owned(), key, url });
        Ok(())
    }

    /// Two vkeys are duplicates if they wrap the same public key. The specification looks among
    /// logs and among witnesses; we look among all, since one key has one role.
    fn key(&self, line: usize, vkey: &str, role: KeyKind) -> Result<VerifierKey, PolicyError> {
        let key: VerifierKey = vkey.parse().map_err(|source| PolicyError::Key { line, source })?;
        if key.kind() != role {
            return Err(PolicyError::Role { line, name: key.name().clone() });
        }
        let mut known = self.logs.iter().map(|log| &log.key).chain(self.witnesses.iter().map(|witness| &witness.key));
        let collides = |other: &VerifierKey| {
            other.public_key() == key.public_key() || (other.name() == key.name() && other.id() == key.id())
        };
        if known.any(collides) {
            return Err(PolicyError::Duplicate { line, name: key.name().to_string() });
        }
        Ok(key)
    }

    fn group(&mut self, line: usize, name: &str, threshold: &str, members: &[&str]) -> Result<(), PolicyError> {
        if self.groups.len() == MAX_POLICY_ENTRIES {
            return Err(PolicyError::TooLarge);
        }
        let refuse = || PolicyError::Threshold { line, threshold: text::excerpt(threshold), members: members.len() };
        let needed = match threshold {
            "any" => 1,
            "all" => members.len(),
            number => text::decimal(number).and_then(|k| usize::try_from(k).ok()).ok_or_else(refuse)?,
        };
        if needed == 0 || needed > members.len() {
            return Err(refuse());
        }
        let members = members.iter().map(|member| self.take(line, member)).collect::<Result<_, _>>()?;
        self.define(line, name, Member::Group(self.groups.len()))?;
        self.groups.push(Group { name: name.to_owned(), threshold: needed, members });
        Ok(())
    }

    /// A name's meaning as a group's member, which it can be only once in the whole policy.
    fn take(&mut self, line: usize, name: &str) -> Result<Member, PolicyError> {
        let Some(definition) = self.names.get_mut(name) else {
            return Err(PolicyError::Undefined { line, name: text::excerpt(name) });
        };
        if definition.is_used {
            return Err(PolicyError::Duplicate { line, name: text::excerpt(name) });
        }
        definition.is_used = true;
        Ok(definition.member)
    }

    fn define(&mut self, line: usize, name: &str, member: Member) -> Result<(), PolicyError> {
        if name == NONE || self.names.contains_key(name) {
            return Err(PolicyError::Duplicate { line, name: text::excerpt(name) });
        }
        self.names.insert(name.to_owned(), Definition { member, is_used: false });
        Ok(())
    }

    fn quorum(&mut self, line: usize, name: &str) -> Result<(), PolicyError> {
        if self.quorum.is_some() {
            return Err(PolicyError::Duplicate { line, name: "quorum".to_owned() });
        }
        self.quorum = Some(match self.names.get(name) {
            _ if name == NONE => Quorum::None,
            Some(definition) => Quorum::Of(definition.member),
            None => return Err(PolicyError::Undefined { line, name: text::excerpt(name) }),
        });
        Ok(())
    }

    fn finish(self) -> Result<LogPolicy, PolicyError> {
        let quorum = self.quorum.ok_or(PolicyError::NoQuorum)?;
        Ok(LogPolicy { logs: self.logs, witnesses: self.witnesses, groups: self.groups, quorum })
    }
}
