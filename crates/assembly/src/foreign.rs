//! A vendor's existing CI as the first builder: an artifact with SLSA provenance v1, taken as a
//! candidate that a rebuild must confirm.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use stdx::Digest;

/// Longest statement: provenance of builds with 10,000 dependencies has 3 MB.
const STATEMENT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Statement v1 (in-toto/attestation, spec/v1/statement.md).
const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// Provenance v1 (slsa-framework/slsa, spec/build-provenance.md).
const PROVENANCE_TYPE: &str = "https://slsa.dev/provenance/v1";

/// Provenance that we do not accept.
#[derive(Debug, thiserror::Error)]
pub enum ForeignError {
    /// Too long.
    #[error("provenance of {0} bytes is too long")]
    TooLong(usize),
    /// Not the JSON that SLSA specifies.
    #[error("not an in-toto statement with SLSA provenance v1: {0}")]
    Syntax(String),
    /// Another kind of statement.
    #[error("`{field}` is `{got}`; only `{expected}` is accepted")]
    Type {
        /// The member.
        field: &'static str,
        /// What it must be.
        expected: &'static str,
        /// What it is.
        got: String,
    },
    /// The artifact is not what the provenance is about.
    #[error("the provenance names no subject with SHA-256 {0}: it is about something else")]
    Subject(Digest),
    /// The builder that signed is not the one it names.
    #[error("the provenance names the builder `{got}`; `{expected}` signed it")]
    Builder {
        /// Whom the policy knows this signer as.
        expected: String,
        /// What the provenance says.
        got: String,
    },
    /// External parameters that nobody checked.
    #[error("the build was given the unknown external parameter `{0}`")]
    Parameter(String),
}

/// What a foreign builder says it made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForeignBuild {
    /// The builder's identity.
    pub builder: String,
    /// The kind of build.
    pub build_type: String,
    /// The artifacts: name and SHA-256, sorted.
    pub outputs: Vec<(String, Digest)>,
    /// What it says went in, where it gives a SHA-256: URI and digest, sorted.
    pub dependencies: Vec<(String, Digest)>,
    /// The git commits it says went in: URI and commit, sorted.
    pub commits: Vec<(String, String)>,
    /// SHA-256 of the statement.
    pub provenance: Digest,
}

/// What the policy knows of the signer.
#[derive(Clone, Debug)]
pub struct KnownBuilder<'a> {
    /// The builder identity that this signer may name.
    pub id: &'a str,
    /// The external parameters that the policy's owner has looked at.
    pub parameters: &'a [&'a str],
}

impl ForeignBuild {
    /// Reads the payload of an envelope whose signature the caller has verified, for `artifact`.
    ///
    /// # Errors
    /// [`ForeignError`]. Unknown external parameters are refused, as SLSA's verification asks
    /// (spec/verifying-artifacts.md, step 2).
    pub fn from_provenance(
        statement: &[u8],
        artifact: &Digest,
        known: &KnownBuilder<'_>,
    ) -> Result<Self, ForeignError> {
        if statement.len() > STATEMENT_BYTES_MAX {
            return Err(ForeignError::TooLong(statement.len()));
        }
        let parsed: Statement =
            serde_json::from_slice(statement).map_err(|error| ForeignError::Syntax(error.to_string()))?;
        expect("_type", STATEMENT_TYPE, &parsed.statement_type)?;
        expect("predicateType", PROVENANCE_TYPE, &parsed.predicate_type)?;
        let Predicate { build_definition: definition, run_details: run } = parsed.predicate;
        if run.builder.id != known.id {
            return Err(ForeignError::Builder { expected: known.id.to_owned(), got: run.builder.id });
        }
        for name in definition.external_parameters.keys() {
            if !known.parameters.contains(&name.as_str()) {
                return Err(ForeignError::Parameter(name.chars().take(80).collect()));
            }
        }
        let mut outputs: Vec<_> =
            parsed.subject.into_iter().filter_map(|subject| Some((subject.name?, subject.digest.sha256?))).collect();
        if !outputs.iter().any(|(_, digest)| digest == artifact) {
            return Err(ForeignError::Subject(*artifact));
        }
        let mut dependencies = Vec::new();
        let mut commits = Vec::new();
        for dependency in definition.resolved_dependencies {
            let uri = dependency.uri.or(dependency.name).unwrap_or_default();
            if let Some(digest) = dependency.digest.sha256 {
                dependencies.push((uri, digest));
            } else if let Some(commit) = dependency.digest.git_commit {
                commits.push((uri, commit));
            }
        }
        outputs.sort();
        dependencies.sort();
        commits.sort();
        Ok(Self {
            builder: run.builder.id,
            build_type: definition.build_type,
            outputs,
            dependencies,
            commits,
            provenance: Digest::of(statement),
        })
    }
}

fn expect(field: &'static str, expected: &'static str, got: &str) -> Result<(), ForeignError> {
    if got == expected {
        Ok(())
    } else {
        Err(ForeignError::Type { field, expected, got: got.chars().take(120).collect() })
    }
}

// The members that we use; consumers must ignore those they do not know, except external parameters.

#[derive(Deserialize)]
struct Statement {
    #[serde(rename = "_type")]
    statement_type: String,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    subject: Vec<Resource>,
    predicate: Predicate,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Predicate {
    build_definition: Definition,
    run_details: Run,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Definition {
    build_type: String,
    external_parameters: serde_json::Map<String, Value>,
    #[serde(default)]
    resolved_dependencies: Vec<Resource>,
}

#[derive(Deserialize)]
struct Run {
    builder: BuilderId,
}

#[derive(Deserialize)]
struct BuilderId {
    id: String,
}

#[derive(Deserialize)]
struct Resource {
    name: Option<String>,
    uri: Option<String>,
    #[serde(default)]
    digest: DigestSet,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DigestSet {
    sha256: Option<Digest>,
    git_commit: Option<String>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const KNOWN: KnownBuilder<'static> = KnownBuilder { id: "https://ci.example/builder", parameters: &["workflow"] };

    fn statement() -> Value {
        json!({
            "_type": STATEMENT_TYPE,
            "subject": [{ "name": "tool", "digest": { "sha256": Digest::of(b"tool").to_string() } }],
            "predicateType": PROVENANCE_TYPE,
            "predicate": {
                "buildDefinition": {
                    "buildType": "https://ci.example/workflow/v1",
                    "externalParameters": { "workflow": "release" },
                    "internalParameters": { "anything": 1 },
                    "resolvedDependencies": [
                        { "uri": "git+https://example/x", "digest": { "gitCommit": "c0ffee" } },
                        { "uri": "pkg:x/y", "digest": { "sha256": Digest::of(b"y").to_string() } },
                    ],
                },
                "runDetails": { "builder": { "id": KNOWN.id } },
            },
        })
    }

    fn read(statement: &Value, artifact: &[u8]) -> Result<ForeignBuild, ForeignError> {
        ForeignBuild::from_provenance(statement.to_string().as_bytes(), &Digest::of(artifact), &KNOWN)
    }

    #[test]
    fn provenance_becomes_a_candidate() {
        let build = read(&statement(), b"tool").unwrap();
        assert_eq!(build.outputs, [("tool".to_owned(), Digest::of(b"tool"))]);
        assert_eq!(build.commits, [("git+https://example/x".to_owned(), "c0ffee".to_owned())]);
        assert_eq!(build.dependencies, [("pkg:x/y".to_owned(), Digest::of(b"y"))]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(matches!(read(&statement(), b"other"), Err(ForeignError::Subject(_))));
        let changed = |pointer: &str, value: Value| {
            let mut statement = statement();
            *statement.pointer_mut(pointer).unwrap() = value;
            read(&statement, b"tool").unwrap_err()
        };
        let error = changed("/predicate/runDetails/builder/id", json!("https://evil.example"));
        assert!(matches!(error, ForeignError::Builder { .. }));
        let error = changed("/predicate/buildDefinition/externalParameters", json!({ "script": "curl" }));
        assert!(matches!(error, ForeignError::Parameter(_)));
        assert!(matches!(changed("/predicateType", json!("x")), ForeignError::Type { .. }));
        assert!(matches!(changed("/_type", json!("x")), ForeignError::Type { .. }));
        assert!(matches!(changed("/subject", json!(1)), ForeignError::Syntax(_)));
    }
}
