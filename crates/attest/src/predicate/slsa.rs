//! SLSA's predicates, as we write them (slsa-framework/slsa `spec/build-provenance.md`,
//! `spec/verification_summary.md`). Provenance lies beside the log, a VSA in the supervisor's log.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use stdx::UnixTime;

use crate::statement::DigestSet;
use crate::{Position, Predicate};

/// SLSA provenance v1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Provenance {
    /// What was built, from what.
    pub build_definition: BuildDefinition,
    /// How and where.
    pub run_details: RunDetails,
}

/// `buildDefinition`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BuildDefinition {
    /// URI of the template; ours is `TYPE_BASE` + `build/v1`.
    pub build_type: String,
    /// What the outside chose: product, version, source, recipe. An unknown one is refused.
    pub external_parameters: BTreeMap<String, String>,
    /// What the builder chose.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub internal_parameters: BTreeMap<String, String>,
    /// Every input, by digest.
    pub resolved_dependencies: Vec<ResourceDescriptor>,
}

/// in-toto's `ResourceDescriptor`, as far as we write it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResourceDescriptor {
    /// A URI, such as a package URL.
    pub uri: String,
    /// SHA-256 of the content.
    pub digest: Sha256Map,
}

/// A digest set with SHA-256 only.
pub type Sha256Map = DigestSet;

/// `runDetails`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunDetails {
    /// Who built.
    pub builder: Builder,
    /// When.
    pub metadata: BuildMetadata,
    /// Build log, evidence of isolation, SBOM.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub byproducts: Vec<ResourceDescriptor>,
}

/// `runDetails.builder`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Builder {
    /// URI of the builder; accepted only from the organisation that the policy gives it to.
    pub id: String,
}

/// `runDetails.metadata`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BuildMetadata {
    /// Identifies this run of the builder.
    pub invocation_id: String,
    /// When it began.
    pub started_on: UnixTime,
    /// When it ended.
    pub finished_on: UnixTime,
}

impl Predicate for Provenance {
    const TYPE: &'static str = "https://slsa.dev/provenance/v1";

    fn position(&self) -> Option<&Position> {
        None
    }
}

/// SLSA verification summary v1: the supervisor's record that it rebuilt and found no difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Vsa {
    /// Who verified.
    pub verifier: VsaVerifier,
    /// When.
    pub time_verified: UnixTime,
    /// What the artifact is to its consumers.
    pub resource_uri: String,
    /// Against what.
    pub policy: VsaPolicy,
    /// With what: the `result` statement and each builder's provenance.
    pub input_attestations: Vec<VsaInput>,
    /// The outcome.
    pub verification_result: VsaResult,
    /// `SLSA_BUILD_REPRODUCED` needs provenance of at least two independent builders
    /// (`spec/verified-properties.md`).
    pub verified_levels: Vec<String>,
    /// The version of the SLSA specification.
    pub slsa_version: String,
    /// Our extension: where this stands ("extension fields using field names that are URIs").
    #[serde(rename = "https://clerestory.example/position")]
    pub position: Position,
}

/// `verifier`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VsaVerifier {
    /// URI of the verifier.
    pub id: String,
}

/// `policy`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VsaPolicy {
    /// Which policy.
    pub uri: String,
    /// The `policy` statement.
    pub digest: DigestSet,
}

/// One of `inputAttestations`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VsaInput {
    /// Which attestation.
    pub uri: String,
    /// Its digest.
    pub digest: DigestSet,
}

/// `verificationResult`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum VsaResult {
    /// It matched.
    Passed,
    /// It did not.
    Failed,
}

impl Predicate for Vsa {
    const TYPE: &'static str = "https://slsa.dev/verification_summary/v1";

    fn position(&self) -> Option<&Position> {
        Some(&self.position)
    }
}
