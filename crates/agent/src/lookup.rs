//! What is known of a file: the set of the rules in use first, then a bucket, through a relay.

use std::fmt;
use std::fs;
use std::io;
use std::path::PathBuf;

use api::{BodyLimit, ErrorClass, MediaType};
use attest::OrganisationId;
use detection::SET_FILE;
use oblivious::{Answered, KeyConfiguration, Question, REQUEST_TYPE, RESPONSE_BYTES_MAX};
use policy::{LookupPolicy, Relay};
use reputation::{Answer, AnswerError, Prefix, PrefixBits, ReputationSet, Verdict};
use serde::Serialize;
use stdx::Digest;

use crate::config::{Config, LookupSection};
use crate::endpoint::{Endpoint, Ports};
use crate::failure::Failure;
use crate::rules;
use crate::share::{Body, Bounds, Class, Found, Share, SharePorts, Statistic, Tally};

/// What the set says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SetSays {
    /// The file is known to be bad; once in 65,536 files that is an accident.
    Listed,
    /// It is not among those that were known.
    NotListed,
    /// No rules with a set are in use.
    NoSet,
}

/// What the bucket says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BucketSays {
    /// Known to be malicious.
    Malicious,
    /// Known to be clean.
    Clean,
    /// Nothing is known of it.
    Unknown,
    /// It was not asked for, and why.
    NotAsked(String),
}

/// What is known of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Known {
    /// The file's content.
    pub sha256: Digest,
    /// By the set of the rules in use.
    pub set: SetSays,
    /// By the gateway's bucket.
    pub bucket: BucketSays,
}

impl Known {
    /// Whether it is to be taken for bad. The set is signed by both organisations and logged, the bucket
    /// is the gateway's word alone: so a gateway that says nothing of a file takes nothing back.
    #[must_use]
    pub const fn is_bad(&self) -> bool {
        match self.bucket {
            BucketSays::Malicious => true,
            // The exact content is known, so that the set's entry is an accident.
            BucketSays::Clean => false,
            BucketSays::Unknown | BucketSays::NotAsked(_) => matches!(self.set, SetSays::Listed),
        }
    }
}

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.sha256)?;
        match (&self.bucket, self.set) {
            (BucketSays::Malicious, _) => f.write_str("MALICIOUS"),
            (BucketSays::Clean, _) => f.write_str("known to be clean"),
            (BucketSays::Unknown, SetSays::Listed) => f.write_str(
                "MALICIOUS by the set of the rules in use (one in 65,536 is so by accident); the bucket has nothing of it",
            ),
            (BucketSays::Unknown, _) => f.write_str("nothing is known of it"),
            (BucketSays::NotAsked(why), SetSays::Listed) => {
                write!(
                    f,
                    "MALICIOUS by the set of the rules in use (one in 65,536 is so by accident); not asked: {why}"
                )
            }
            (BucketSays::NotAsked(why), SetSays::NotListed) => {
                write!(f, "not in the set of the rules; not asked: {why}")
            }
            (BucketSays::NotAsked(why), SetSays::NoSet) => {
                write!(f, "no rules with a set are in use; not asked: {why}")
            }
        }
    }
}

/// The file or hash that somebody asks about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A content's SHA-256.
    Hash(Digest),
    /// A file, which is hashed here.
    File(PathBuf),
}

impl Target {
    fn digest(&self) -> Result<Digest, Failure> {
        let path = match self {
            Self::Hash(digest) => return Ok(*digest),
            Self::File(path) => path,
        };
        let digest = fs::File::open(path).and_then(Digest::of_reader);
        digest.map(|(digest, _)| digest).map_err(|error| {
            let message = format!("{}: {error}", path.display());
            Failure::rejected("input", message, "name a file that this user may read, or a SHA-256")
        })
    }
}

/// Says what is known of `target`. Neither the hash nor a name leaves this machine.
///
/// # Errors
/// [`Failure`] when it can't be read, or the bucket can't be had or believed.
pub fn look_up(config: &Config, ports: Ports<'_>, share: SharePorts<'_>, target: &Target) -> Result<Known, Failure> {
    let endpoint = Endpoint::read(config, ports)?;
    let section = config.lookup.as_ref();
    let sha256 = target.digest()?;
    let set = match set_in_use(&endpoint)? {
        Some((set, _)) if set.may_contain(&sha256) => SetSays::Listed,
        Some(_) => SetSays::NotListed,
        None => SetSays::NoSet,
    };
    let not_asked = |why: &str| Ok(Known { sha256, set, bucket: BucketSays::NotAsked(why.to_owned()) });
    let Some(section) = section else { return not_asked("the configuration has no `[lookup]`") };
    if !Share::exists(&config.state) {
        return not_asked("the owner has not agreed to look-ups");
    }
    let mut share = Share::open(&config.state, share, Bounds::default())?;
    let lookup = endpoint.policy().policy().lookup.as_ref();
    let asks = share.consent().allows(Class::Lookups).is_some_and(crate::share::Mode::sends);
    if (!asks || lookup.is_none()) && set == SetSays::NotListed {
        // Who shares this without asking the gateway has only the set to go by.
        share.record(Body::Verdict { sha256, found: Found::Nothing })?;
    }
    if !asks {
        return not_asked("the owner has not agreed to look-ups");
    }
    let Some(lookup) = lookup else { return not_asked("the policy names no gateway") };
    let asking = Asking { config, section, lookup, ports, policy: endpoint.policy().id().to_string() };
    let bucket = asking.ask(&share, &sha256)?;
    let found = bucket == BucketSays::Malicious;
    if found {
        share.record(Body::Verdict { sha256, found: Found::Bucket })?;
    } else if bucket == BucketSays::Unknown && !matches!(set, SetSays::Listed) {
        share.record(Body::Verdict { sha256, found: Found::Nothing })?;
    }
    let tally = Tally { files: 1, found: u64::from(found) };
    share.record(Body::Statistic { of: Statistic::Lookups, tally })?;
    Ok(Known { sha256, set, bucket })
}

/// The set of the rules in use, and its file, if it is what was installed.
pub(crate) fn set_in_use(endpoint: &Endpoint<'_>) -> Result<Option<(ReputationSet, Vec<u8>)>, Failure> {
    const HINT: &str = "nothing by hand: the next look at the channel mends it";
    let Some((folder, expected)) = endpoint.set()? else { return Ok(None) };
    let altered = |what: &str| Failure::rejected("lookup-set", format!("{}: {what}", folder.display()), HINT);
    let (set, bytes) = rules::read_set(&folder)
        .map_err(|failure| altered(&failure.message))?
        .ok_or_else(|| altered(&format!("`{SET_FILE}` is not there any more")))?;
    let found = Digest::of(&bytes);
    if found != expected {
        return Err(altered(&format!("the set's SHA-256 is {found}, installed was {expected}")));
    }
    Ok(Some((set, bytes)))
}

/// One question.
struct Asking<'a> {
    config: &'a Config,
    section: &'a LookupSection,
    lookup: &'a LookupPolicy,
    ports: Ports<'a>,
    policy: String,
}

const KEY_HINT: &str = "the policy's `lookup` is wrong; ask who signed it";

impl Asking<'_> {
    fn ask(&self, share: &Share<'_>, sha256: &Digest) -> Result<BucketSays, Failure> {
        self.refuse_thin()?;
        let wrong = |error: &dyn fmt::Display| Failure::rejected("lookup-policy", error.to_string(), KEY_HINT);
        let bits = PrefixBits::new(self.lookup.prefix_bits).map_err(|error| wrong(&error))?;
        let key: KeyConfiguration = self.lookup.key.parse().map_err(|error| wrong(&error))?;
        let relay = self.relay()?;
        let prefix = Prefix::of(sha256, bits);
        let question = Question(prefix).to_bytes();
        let asked = oblivious::ask(&key, &question, &stdx::SystemEntropy);
        let (request, asked) = asked.map_err(|error| Failure::unavailable(error.to_string()))?;
        share.about_to_ask(relay.url.as_str(), &prefix.to_string())?;
        let answer = self.send(relay, &request)?;
        let lied = |error: &dyn fmt::Display| {
            const HINT: &str = "another relay may do better (`relay` in `[lookup]`); report it if it stays";
            Failure::rejected("lookup-answer", format!("{}: {error}", relay.url.as_str()), HINT)
        };
        let opened = asked.open(&answer).map_err(|error| lied(&error))?;
        let bucket = Answered::parse(&opened).map_err(|error| lied(&error))?;
        match Answer::parse(&bucket, &prefix) {
            Ok(answer) => Ok(match answer.verdict(sha256) {
                Some(Verdict::Malicious) => BucketSays::Malicious,
                Some(Verdict::Clean) => BucketSays::Clean,
                None => BucketSays::Unknown,
            }),
            Err(AnswerError::Thin(has)) => {
                let path = self.thin_path();
                let remember = self.ports.disk.write(&path, self.policy.as_bytes());
                remember.map_err(|error| Failure::file(&path, &error))?;
                Err(thin(&format!("{has} known hashes in the bucket")))
            }
            Err(error) => Err(lied(&error)),
        }
    }

    fn send(&self, relay: &Relay, request: &[u8]) -> Result<Vec<u8>, Failure> {
        let url = format!("{}/", relay.url.as_str());
        let limit = BodyLimit(RESPONSE_BYTES_MAX as u64);
        self.ports.client.post_as(&url, MediaType(REQUEST_TYPE), request, limit).map_err(|error| match error.class() {
            ErrorClass::Rejected => {
                const HINT: &str = "a relay or gateway of another policy answers so; update, and try again";
                Failure::rejected("lookup-refused", error.to_string(), HINT)
            }
            ErrorClass::Unavailable | ErrorClass::Fatal => Failure::unavailable(error.to_string()),
        })
    }

    /// The relay that the owner chose of those in the policy, or the first.
    fn relay(&self) -> Result<&Relay, Failure> {
        let chosen = |relay: &&Relay| self.section.relay.as_ref().is_none_or(|id| *id == relay.organisation);
        self.lookup.relays.iter().find(chosen).ok_or_else(|| {
            let names: Vec<_> =
                self.lookup.relays.iter().map(|relay| OrganisationId::as_str(&relay.organisation)).collect();
            let message = format!("the policy names no such relay; it names {}", names.join(", "));
            Failure::rejected("lookup-relay", message, "change `relay` in `[lookup]`")
        })
    }

    /// Under this policy a bucket was too small to hide in: no more is asked before there is another.
    fn refuse_thin(&self) -> Result<(), Failure> {
        let path = self.thin_path();
        match fs::read_to_string(&path) {
            Ok(policy) if policy == self.policy => Err(thin("an earlier bucket was too small")),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(Failure::file(&path, &error)),
        }
    }

    fn thin_path(&self) -> PathBuf {
        self.config.state.join("share").join("thin")
    }
}

fn thin(what: &str) -> Failure {
    const HINT: &str = "nothing more is asked under this policy; its prefix is too long for what the gateway knows";
    Failure::rejected("lookup-thin", format!("{what}; asking is safe among {} at least", reputation::BUCKET_MIN), HINT)
}

#[cfg(test)]
mod tests {
    use super::{BucketSays, Known, SetSays};

    #[test]
    fn a_gateway_that_knows_nothing_takes_nothing_back() {
        let of = |set, bucket| Known { sha256: stdx::Digest::of(b"a file"), set, bucket };
        let listed = of(SetSays::Listed, BucketSays::Unknown);
        assert!(listed.is_bad() && listed.to_string().contains("MALICIOUS by the set"), "{listed}");
        assert!(of(SetSays::Listed, BucketSays::NotAsked("offline".to_owned())).is_bad());
        assert!(of(SetSays::NotListed, BucketSays::Malicious).is_bad());
        for (set, bucket) in [(SetSays::Listed, BucketSays::Clean), (SetSays::NotListed, BucketSays::Unknown)] {
            assert!(!of(set, bucket).is_bad());
        }
    }
}
