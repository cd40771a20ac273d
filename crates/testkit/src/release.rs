//! A release from source to bundle, each step signed by whoever must.

use std::time::Duration;

use attest::{
    Approval, Artifact, BuildResult, Bundle, Delta, Envelope, EnvironmentKind, Lane, ProductId, Release, ReleaseNumber,
    Ring, Source, Statement, Status, Subject,
};
use policy::Role;
use stdx::{Clock as _, Digest, UnixTime};
use tlog::SignerKey;

use crate::world::{SUPERVISOR_LOG, VENDOR_LOG, World};

const HOUR: Duration = Duration::from_secs(60 * 60);
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A build that both builders signed.
#[derive(Clone, Debug)]
pub struct Build {
    /// The product.
    pub product: ProductId,
    /// Its version.
    pub version: String,
    /// The outputs.
    pub outputs: Vec<Subject>,
    /// The logged result.
    pub result: Envelope,
}

/// What may be odd about a release.
#[derive(Clone, Debug)]
pub struct ReleaseOptions {
    /// The lane, whose role signs.
    pub lane: Lane,
    /// The ring it is for.
    pub ring: Ring,
    /// Who signs the result.
    pub builders: Vec<&'static str>,
    /// Who signs the release.
    pub releasers: Vec<&'static str>,
    /// Who approves.
    pub approvers: Vec<&'static str>,
    /// Where the environment came from.
    pub environment: EnvironmentKind,
    /// How long it may be newly installed.
    pub lifetime: Duration,
    /// Patches that lead to the first artifact: SHA-256 of what they start from, and their bytes.
    pub patches: Vec<(Digest, Vec<u8>)>,
}

impl Default for ReleaseOptions {
    fn default() -> Self {
        let both = || vec!["vendor", "supervisor"];
        Self {
            lane: Lane::Slow,
            ring: Ring::All,
            builders: both(),
            releasers: both(),
            approvers: both(),
            environment: EnvironmentKind::Pinned,
            lifetime: YEAR,
            patches: Vec::new(),
        }
    }
}

impl ReleaseOptions {
    /// As rules are released: for the canary ring, and nobody approves.
    #[must_use]
    pub fn rules() -> Self {
        Self { lane: Lane::Fast, ring: Ring::Canary, approvers: Vec::new(), ..Self::default() }
    }

    const fn role(&self) -> Role {
        match self.lane {
            Lane::Slow => Role::Release,
            Lane::Fast => Role::Rules,
        }
    }
}

/// A release and everything it rests on.
#[derive(Clone, Debug)]
pub struct Released {
    /// The build.
    pub build: Build,
    /// The logged approvals.
    pub approvals: Vec<Envelope>,
    /// The logged release.
    pub release: Envelope,
    /// Its number.
    pub number: ReleaseNumber,
    /// Release, result and approvals, as the channel publishes them.
    pub bundle: Bundle,
}

impl World {
    /// Builds and releases `files` as the sample policy demands.
    pub fn release(&mut self, product: &str, version: &str, files: &[(&str, &[u8])]) -> Released {
        self.release_with(product, version, files, &ReleaseOptions::default())
    }

    /// Builds and releases `files`, with whatever is odd in `options`.
    pub fn release_with(
        &mut self,
        product: &str,
        version: &str,
        files: &[(&str, &[u8])],
        options: &ReleaseOptions,
    ) -> Released {
        let build = self.build(product, version, files, options);
        let approvals: Vec<_> = options.approvers.iter().map(|party| self.approve(&build, party)).collect();
        let statement = self.draft(&build, files, options);
        let release = self.sign_as(&statement, options.role(), &options.releasers);
        let number = statement.predicate.number;
        self.releases.insert(product.to_owned(), (number.get(), Some(release.id())));
        let bundle = self.release_bundle(&build, &approvals, &release);
        Released { build, approvals, release, number, bundle }
    }

    /// Source and result, logged.
    pub fn build(&mut self, product: &str, version: &str, files: &[(&str, &[u8])], options: &ReleaseOptions) -> Build {
        let product: ProductId = product.parse().unwrap();
        let source = Source {
            position: self.position(VENDOR_LOG, "assembly/vendor"),
            product: product.clone(),
            version: version.to_owned(),
            files: 1,
            bytes: 1,
            revision: None,
        };
        let subject = vec![Subject::new("source", Digest::of(version.as_bytes()))];
        let source = self.sign_as(&Statement { subject, predicate: source }, Role::Recorder, &["vendor"]);
        let outputs: Vec<_> = files.iter().map(|(name, bytes)| Subject::new(*name, Digest::of(bytes))).collect();
        let result = BuildResult {
            position: self.position(VENDOR_LOG, "assembly/vendor"),
            product: product.clone(),
            version: version.to_owned(),
            source: source.id(),
            recipe: Digest::of(b"recipe"),
            inputs: Digest::of(b"inputs"),
            environment: Digest::of(b"environment"),
            environment_kind: options.environment,
            sbom: Digest::of(b"sbom"),
            lane: (options.lane == Lane::Fast).then_some(Lane::Fast),
        };
        let statement = Statement { subject: outputs.clone(), predicate: result };
        let result = self.sign_as(&statement, Role::Builder, &options.builders);
        Build { product, version: version.to_owned(), outputs, result }
    }

    /// `party` approves `build`.
    pub fn approve(&mut self, build: &Build, party: &str) -> Envelope {
        let approval = Approval {
            position: self.position(VENDOR_LOG, &format!("approval/{party}")),
            product: build.product.clone(),
            version: build.version.clone(),
            result: build.result.id(),
            comment: String::new(),
        };
        let statement = Statement { subject: build.outputs.clone(), predicate: approval };
        self.sign_as(&statement, Role::Approver, &[party])
    }

    /// The release statement that `build` leads to, not yet signed.
    #[must_use]
    pub fn draft(&self, build: &Build, files: &[(&str, &[u8])], options: &ReleaseOptions) -> Statement<Release> {
        let (last, previous) = self.releases.get(build.product.as_str()).copied().unwrap_or((0, None));
        let mut artifacts: Vec<_> =
            files.iter().map(|(_, bytes)| Artifact { size: bytes.len() as u64, deltas: Vec::new() }).collect();
        let deltas = options.patches.iter().map(|(from, bytes)| Delta {
            from: *from,
            patch: Digest::of(bytes),
            size: bytes.len() as u64,
        });
        artifacts[0].deltas = deltas.collect();
        let release = Release {
            position: self.position(VENDOR_LOG, "release/vendor"),
            product: build.product.clone(),
            version: build.version.clone(),
            number: ReleaseNumber::new(last + 1),
            previous,
            lane: options.lane,
            ring: options.ring,
            result: build.result.id(),
            policy: self.policy().id(),
            artifacts,
            not_before: UnixTime::EPOCH,
            expires: self.clock.now().after(options.lifetime),
            minimum_engine: None,
        };
        Statement { subject: build.outputs.clone(), predicate: release }
    }

    /// What the channel publishes beside the artifacts, under fresh checkpoints.
    #[must_use]
    pub fn release_bundle(&self, build: &Build, approvals: &[Envelope], release: &Envelope) -> Bundle {
        let mut entries = vec![(VENDOR_LOG, release), (VENDOR_LOG, &build.result)];
        entries.extend(approvals.iter().map(|approval| (VENDOR_LOG, approval)));
        self.bundle(&entries)
    }

    /// A fresh status of the slow lane with the world's revocations, floors and stops.
    pub fn status(&mut self) -> Bundle {
        self.status_with(|_| {})
    }

    /// A status of the slow lane that `change` makes odd before it is signed.
    pub fn status_with(&mut self, change: impl FnOnce(&mut Status)) -> Bundle {
        self.status_of(Lane::Slow, change)
    }

    /// A status of `lane` that `change` makes odd before it is signed.
    pub fn status_of(&mut self, lane: Lane, change: impl FnOnce(&mut Status)) -> Bundle {
        let mut status = Status {
            position: self.position(SUPERVISOR_LOG, &format!("status/{lane}")),
            lane,
            policy: self.policy().id(),
            expires: self.clock.now().after(24 * HOUR),
            revoked: self.revoked.clone(),
            floors: self.floors.clone(),
            stops: self.stops.clone(),
            mismatches: self.mismatches.clone(),
        };
        status.revoked.sort();
        status.floors.sort();
        status.stops.sort();
        status.mismatches.sort();
        change(&mut status);
        let subject = vec![Subject::new(lane.as_str(), Digest::of(lane.as_str().as_bytes()))];
        let envelope = self.sign_as(&Statement { subject, predicate: status }, Role::Status, &["supervisor"]);
        self.bundle(&[(SUPERVISOR_LOG, &envelope)])
    }

    /// Signs with the `role` keys of `parties` and logs.
    pub fn sign_as<P: attest::Predicate>(
        &mut self,
        statement: &Statement<P>,
        role: Role,
        parties: &[&str],
    ) -> Envelope {
        let envelope = {
            let keys: Vec<&SignerKey> = parties
                .iter()
                .map(|party| if *party == "vendor" { self.vendor.key(role) } else { self.supervisor.key(role) })
                .collect();
            Envelope::sign(statement.encode().unwrap(), &keys).unwrap()
        };
        self.append(statement.predicate.position().unwrap(), &envelope);
        envelope
    }
}
