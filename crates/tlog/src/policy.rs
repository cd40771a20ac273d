//! Which logs and which witnesses are enough (C2SP tlog-policy).

mod parse;

use std::collections::BTreeSet;
use std::{fmt, str};

use stdx::UnixTime;

use crate::{KeyError, KeyName, NoteError, SignedCheckpoint, VerifierKey};

/// The specification asks for 32 logs, 32 witnesses and 32 groups; a line of each is below 700
/// bytes, and comments may double that.
pub const MAX_POLICY_BYTES: usize = 128 * 1024;

/// At most so many logs, and witnesses, and groups: twice what the specification asks for.
pub const MAX_POLICY_ENTRIES: usize = 64;

/// Why a policy, or a checkpoint under it, was refused. Lines count from 1.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// More bytes than [`MAX_POLICY_BYTES`], or more lines of one kind than
    /// [`MAX_POLICY_ENTRIES`].
    #[error("the policy is too large")]
    TooLarge,
    /// Not UTF-8, a control character other than tab and newline, or no newline at the end.
    #[error("the policy is not plain text ended by a newline")]
    NotText,
    /// A line that is none of the four, or with a wrong number of words.
    #[error("policy line {line}: `{text}` is not understood")]
    Line {
        /// The line.
        line: usize,
        /// Its beginning.
        text: String,
    },
    /// A key that can't be used.
    #[error("policy line {line}: the key is unusable")]
    Key {
        /// The line.
        line: usize,
        /// Why.
        source: KeyError,
    },
    /// A log's key that is not of type 0x01, or a witness's that is not of type 0x04.
    #[error("policy line {line}: key `{name}` is of the wrong type for its role")]
    Role {
        /// The line.
        line: usize,
        /// The key's name.
        name: KeyName,
    },
    /// A name or a key that stands in an earlier line: under whatever name, one key has one role.
    #[error("policy line {line}: `{name}` is a duplicate")]
    Duplicate {
        /// The line.
        line: usize,
        /// The name, or the key's name.
        name: String,
    },
    /// A group or quorum of something that no earlier line defines.
    #[error("policy line {line}: `{name}` is not defined above")]
    Undefined {
        /// The line.
        line: usize,
        /// The name.
        name: String,
    },
    /// A threshold that is no decimal from 1 to the number of members.
    #[error("policy line {line}: `{threshold}` is no threshold for {members} members")]
    Threshold {
        /// The line.
        line: usize,
        /// What stands there.
        threshold: String,
        /// How many members.
        members: usize,
    },
    /// No `quorum` line; or `quorum none`, under which no checkpoint is accepted.
    #[error("the policy has no quorum")]
    NoQuorum,
    /// The checkpoint is by none of the policy's logs.
    #[error("`{0}` is none of the policy's logs, or did not sign")]
    UnknownLog(String),
    /// A signature of a known key is wrong, or there is none.
    #[error("the checkpoint's signatures are refused")]
    Signatures(#[from] NoteError),
    /// Too few witnesses.
    #[error("the witnesses that cosigned ({}) are no quorum", .0.join(", "))]
    Quorum(Vec<String>),
}

/// A log that the policy accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyLog {
    /// Its key, named like its origin.
    pub key: VerifierKey,
    /// Where it is, if the policy says so.
    pub url: Option<String>,
}

/// A witness that the policy counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyWitness {
    /// Its name within the policy.
    pub name: String,
    /// Its key; the key's name is what stands in signature lines.
    pub key: VerifierKey,
    /// Its submission prefix, if the policy says so.
    pub url: Option<String>,
}

/// A quorum of k of n witnesses, without groups in groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlatQuorum {
    /// How many must cosign.
    pub needed: usize,
    /// Of how many.
    pub of: usize,
}

/// What a policy found in a checkpoint that it accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cosigned {
    /// The evidence time: the latest time for which the witnesses that cosigned then or later are
    /// a quorum. For k of n that is the k-th largest cosignature time.
    pub time: UnixTime,
    /// The key names of all witnesses whose cosignature was verified, in the policy's order.
    pub by: Vec<KeyName>,
}

/// Which logs are accepted, which witnesses are known, and which sets of them are enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPolicy {
    logs: Vec<PolicyLog>,
    witnesses: Vec<PolicyWitness>,
    groups: Vec<Group>,
    quorum: Quorum,
}

/// A group's members are witnesses and groups of earlier lines.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    name: String,
    threshold: usize,
    members: Vec<Member>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Member {
    Witness(usize),
    Group(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quorum {
    None,
    Of(Member),
}

impl LogPolicy {
    /// Reads a policy file.
    ///
    /// # Errors
    /// [`PolicyError`] naming the line.
    pub fn parse(bytes: impl AsRef<[u8]>) -> Result<Self, PolicyError> {
        parse::parse(bytes.as_ref())
    }

    /// The accepted logs.
    #[must_use]
    pub fn logs(&self) -> &[PolicyLog] {
        &self.logs
    }

    /// The known witnesses.
    #[must_use]
    pub fn witnesses(&self) -> &[PolicyWitness] {
        &self.witnesses
    }

    /// k and n, if the quorum is one witness or a group of witnesses only.
    #[must_use]
    pub fn flat_quorum(&self) -> Option<FlatQuorum> {
        match self.quorum {
            Quorum::None => None,
            Quorum::Of(Member::Witness(_)) => Some(FlatQuorum { needed: 1, of: 1 }),
            Quorum::Of(Member::Group(group)) => {
                let group = self.groups.get(group)?;
                let flat = group.members.iter().all(|member| matches!(member, Member::Witness(_)));
                flat.then_some(FlatQuorum { needed: group.threshold, of: group.members.len() })
            }
        }
    }

    /// Whether witnesses with these names (within the policy) are a quorum. Under `quorum none`
    /// nothing is.
    #[must_use]
    pub fn is_satisfied(&self, names: &BTreeSet<&str>) -> bool {
        match self.quorum {
            Quorum::None => false,
            Quorum::Of(member) => self.counts(member, names),
        }
    }

    /// Recursion ends: a group's members stand in earlier lines, and each in one group only.
    fn counts(&self, member: Member, names: &BTreeSet<&str>) -> bool {
        match member {
            Member::Witness(witness) => {
                self.witnesses.get(witness).is_some_and(|witness| names.contains(witness.name.as_str()))
            }
            Member::Group(group) => self.groups.get(group).is_some_and(|group| {
                group.members.iter().filter(|member| self.counts(**member, names)).count() >= group.threshold
            }),
        }
    }

    /// Checks that one of the logs signed the checkpoint, and that a quorum cosigned it.
    ///
    /// # Errors
    /// [`PolicyError::UnknownLog`], [`PolicyError::Signatures`], [`PolicyError::Quorum`];
    /// [`PolicyError::NoQuorum`] under `quorum none`.
    pub fn verify_checkpoint(&self, checkpoint: &SignedCheckpoint) -> Result<Cosigned, PolicyError> {
        if self.quorum == Quorum::None {
            return Err(PolicyError::NoQuorum);
        }
        let origin = checkpoint.checkpoint().origin();
        let known = self.logs.iter().map(|log| &log.key).chain(self.witnesses.iter().map(|witness| &witness.key));
        let known: Vec<VerifierKey> = known.cloned().collect();
        let verified = match checkpoint.note().verified_by(&known) {
            Err(NoteError::NoTrustedSignature) => return Err(PolicyError::UnknownLog(origin.to_string())),
            verified => verified?,
        };
        let is_log = |key: &VerifierKey| origin.is(key.name()) && self.logs.iter().any(|log| log.key == *key);
        if !verified.iter().any(|signature| is_log(signature.key)) {
            return Err(PolicyError::UnknownLog(origin.to_string()));
        }
        let mut cosigners = Vec::new();
        for witness in &self.witnesses {
            // A witness that cosigned twice counts once, with its later statement.
            let by = verified.iter().filter(|signature| *signature.key == witness.key);
            if let Some(time) = by.filter_map(|signature| signature.time).max() {
                cosigners.push((time, witness));
            }
        }
        let by = cosigners.iter().map(|(_, witness)| witness.key.name().clone()).collect();
        let time = self.evidence_time(cosigners)?;
        Ok(Cosigned { time, by })
    }

    fn evidence_time(&self, mut cosigners: Vec<(UnixTime, &PolicyWitness)>) -> Result<UnixTime, PolicyError> {
        cosigners.sort_by_key(|(time, _)| std::cmp::Reverse(*time));
        let mut names = BTreeSet::new();
        for (time, witness) in cosigners {
            names.insert(witness.name.as_str());
            if self.is_satisfied(&names) {
                return Ok(time);
            }
        }
        Err(PolicyError::Quorum(names.into_iter().map(str::to_owned).collect()))
    }
}

impl fmt::Display for LogPolicy {
    /// One canonical form: logs, witnesses, groups, quorum, without comments.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = |url: &Option<String>| url.as_ref().map_or(String::new(), |url| format!(" {url}"));
        for log in &self.logs {
            writeln!(f, "log {}{}", log.key, url(&log.url))?;
        }
        for witness in &self.witnesses {
            writeln!(f, "witness {} {}{}", witness.name, witness.key, url(&witness.url))?;
        }
        for group in &self.groups {
            write!(f, "group {} {}", group.name, group.threshold)?;
            for member in &group.members {
                write!(f, " {}", self.member_name(*member))?;
            }
            writeln!(f)?;
        }
        match self.quorum {
            Quorum::None => writeln!(f, "quorum none"),
            Quorum::Of(member) => writeln!(f, "quorum {}", self.member_name(member)),
        }
    }
}

impl LogPolicy {
    fn member_name(&self, member: Member) -> &str {
        match member {
            Member::Witness(witness) => self.witnesses.get(witness).map_or("", |witness| &witness.name),
            Member::Group(group) => self.groups.get(group).map_or("", |group| &group.name),
        }
    }
}

impl str::FromStr for LogPolicy {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        Self::parse(text)
    }
}
