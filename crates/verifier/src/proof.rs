//! From files to a proof, and the proof in words.

use std::fmt;
use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use attest::{Approval, BuildResult, Bundle, Lane, Release, Ring, StatementId};
use policy::Role;
use stdx::{Clock, Digest, UnixTime};
use tlog::{KeyName, Origin};
use verify::{CurrentStatus, Evidence, Moment, Recorded, Refusal, Request, TrustedPolicy};

use crate::arguments::Arguments;
use crate::failure::Failure;
use crate::policy_files::{load, read_bundle};

/// What was proven about a file.
#[derive(Clone, Debug)]
pub struct Proof {
    file: PathBuf,
    content: Digest,
    size: u64,
    artifact: String,
    release: Release,
    ring: Ring,
    /// The result that both builders signed, and the source it names.
    built: Party,
    approved: Vec<Party>,
    released: Party,
    status: Party,
    expires: UnixTime,
    age: Duration,
    age_max: Duration,
    witnesses: Vec<KeyName>,
    quorum: policy::Quorum,
    policy_name: String,
    policy_version: u64,
    policy_id: StatementId,
}

/// Who said something, and where that is recorded.
#[derive(Clone, Debug)]
pub struct Party {
    id: StatementId,
    signers: Vec<(String, String)>,
    log: Origin,
    index: u64,
    tree: u64,
    time: UnixTime,
}

/// Proves what the arguments claim, offline.
///
/// # Errors
/// [`Failure`], the first that is found: nothing is proven then.
pub fn prove(arguments: &Arguments, clock: &dyn Clock) -> Result<Proof, Failure> {
    let policy = load(&arguments.policy, &arguments.genesis)?;
    let bundle = read_bundle(&arguments.bundle)?;
    let status_file = arguments.status.as_ref().unwrap_or(&arguments.bundle);
    let other_bundle = arguments.status.as_deref().map(read_bundle).transpose()?;
    let status_bundle = other_bundle.as_ref().unwrap_or(&bundle);
    let unreadable = |error| Failure::unreadable(&arguments.file, &error);
    let (content, size) = Digest::of_reader(File::open(&arguments.file).map_err(unreadable)?).map_err(unreadable)?;

    let in_bundle = |refusal: Refusal| Failure::refused(&arguments.bundle, &refusal);
    let in_status = |refusal: Refusal| Failure::refused(status_file, &refusal);
    let evidence = Evidence::open(&policy, &bundle).map_err(in_bundle)?;
    let other_evidence = other_bundle.as_ref().map(|bundle| Evidence::open(&policy, bundle));
    let other_evidence = other_evidence.transpose().map_err(in_status)?;
    let status_evidence = other_evidence.as_ref().unwrap_or(&evidence);
    let released = recorded_release(&evidence).map_err(in_bundle)?;
    let age_max = arguments.age_days.map_or_else(|| policy.policy().ages.import(), days);
    let at = Moment::offline(clock, evidence.latest().max(status_evidence.latest()), age_max);
    let lane = released.statement().predicate.lane;
    let status = policy.current_status(status_evidence, lane, None, &at).map_err(in_status)?;
    let product = &arguments.product;
    let request = Request { product, ring: Ring::Canary, status: &status, at: &at, installed: None };
    let approved = policy.approve(&evidence, &request).map_err(in_bundle)?;

    // Only an approved release may name the file.
    let artifact = approved.artifact(&content);
    let artifact = artifact.ok_or_else(|| Failure::other_content(&arguments.file, &content, &approved))?;
    Ok(Proof {
        file: arguments.file.clone(),
        content,
        size,
        artifact: artifact.name.clone(),
        release: approved.release().clone(),
        ring: approved.ring(),
        built: Party::of(&evidence.one::<BuildResult>(Role::Builder).map_err(in_bundle)?),
        approved: evidence.all::<Approval>(Role::Approver).map_err(in_bundle)?.iter().map(Party::of).collect(),
        released: Party::of(&released),
        status: Party::of(status.recorded()),
        expires: status.status().expires,
        age: at.now().since(status.recorded().time()),
        age_max,
        witnesses: witnesses(&policy, status_bundle, &status),
        quorum: policy.quorum(),
        policy_name: policy.policy().name.clone(),
        policy_version: policy.policy().version,
        policy_id: policy.id(),
    })
}

/// The release as it claims itself, to learn its lane; `approve` decides.
fn recorded_release(evidence: &Evidence<'_>) -> Result<Recorded<Release>, Refusal> {
    match evidence.one::<Release>(Role::Release) {
        Err(Refusal::NotSigned { .. }) => evidence.one::<Release>(Role::Rules),
        other => other,
    }
}

/// Who cosigned the status's checkpoint: `Evidence` has verified a quorum of them.
fn witnesses(policy: &TrustedPolicy, bundle: &Bundle, status: &CurrentStatus) -> Vec<KeyName> {
    let signed = bundle.checkpoints().iter().find(|signed| signed.checkpoint() == status.recorded().checkpoint());
    signed.and_then(|signed| policy.witnessing().verify_checkpoint(signed).ok()).map_or_else(Vec::new, |it| it.by)
}

const fn days(days: u32) -> Duration {
    Duration::from_secs(days as u64 * 24 * 60 * 60)
}

impl Party {
    fn of<P>(recorded: &Recorded<P>) -> Self {
        let signers = recorded.signers().iter();
        Self {
            id: recorded.id(),
            signers: signers.map(|it| (it.organisation.to_string(), it.key.to_string())).collect(),
            log: recorded.checkpoint().origin().clone(),
            index: recorded.index().get(),
            tree: recorded.checkpoint().size().get(),
            time: recorded.time(),
        }
    }

    fn to_json(&self) -> serde_json::Value {
        let signer =
            |(organisation, key): &(String, String)| serde_json::json!({"organisation": organisation, "key": key});
        serde_json::json!({
            "statement": self.id.to_string(),
            "signers": self.signers.iter().map(signer).collect::<Vec<_>>(),
            "log": self.log.to_string(),
            "index": self.index,
            "tree_size": self.tree,
            "evidence_time": self.time.to_string(),
        })
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (organisation, key) in &self.signers {
            write!(f, "{organisation} ({key}), ")?;
        }
        write!(f, "entry {} of {} in {}, seen by the quorum at {}", self.index, self.tree, self.log, self.time)
    }
}

impl Proof {
    /// The proof for machines.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "verified": true,
            "file": self.file.display().to_string(),
            "sha256": self.content.to_string(),
            "bytes": self.size,
            "artifact": self.artifact,
            "product": self.release.product,
            "version": self.release.version,
            "number": self.release.number,
            "lane": self.release.lane,
            "ring": self.ring,
            "result": self.built.to_json(),
            "approvals": self.approved.iter().map(Party::to_json).collect::<Vec<_>>(),
            "release": self.released.to_json(),
            "status": self.status.to_json(),
            "status_expires": self.expires,
            "age_s": self.age.as_secs(),
            "age_max_s": self.age_max.as_secs(),
            "witnesses": self.witnesses.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "quorum": {
                "needed": self.quorum.needed,
                "witnesses": self.quorum.witnesses,
                "faulty": self.quorum.faulty,
            },
            "policy": {
                "name": self.policy_name,
                "version": self.policy_version,
                "statement": self.policy_id.to_string(),
            },
        })
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lane = match self.release.lane {
            Lane::Slow => "code, approved by people",
            Lane::Fast => "declarative rules",
        };
        writeln!(f, "verified: {}", self.file.display())?;
        writeln!(f, "  content     {} bytes, SHA-256 {}", self.size, self.content)?;
        writeln!(f, "  artifact    {}", self.artifact)?;
        writeln!(
            f,
            "  product     {} {}, release {}",
            self.release.product, self.release.version, self.release.number
        )?;
        writeln!(f, "  lane, ring  {lane}; ring {}", self.ring)?;
        writeln!(f, "  built       {}", self.built)?;
        for approval in &self.approved {
            writeln!(f, "  approved    {approval}")?;
        }
        writeln!(f, "  released    {}", self.released)?;
        writeln!(f, "  status      {}", self.status)?;
        let names: Vec<_> = self.witnesses.iter().map(ToString::to_string).collect();
        let (needed, all) = (self.quorum.needed, self.quorum.witnesses);
        writeln!(f, "  witnessed   by {} ({needed} of {all} are needed)", names.join(", "))?;
        let (age, age_max) = (Age(self.age), Age(self.age_max));
        writeln!(f, "  age         {age}, at most {age_max}; online the status holds until {}", self.expires)?;
        write!(f, "  policy      {}, version {}, {}", self.policy_name, self.policy_version, self.policy_id)
    }
}

/// A duration in the largest unit that it fills.
struct Age(Duration);

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs() {
            seconds @ 0..120 => write!(f, "{seconds} s"),
            seconds @ 120..7_200 => write!(f, "{} min", seconds / 60),
            seconds @ 7_200..172_800 => write!(f, "{} h", seconds / 3_600),
            seconds => write!(f, "{} days", seconds / 86_400),
        }
    }
}
