//! Who may ask what for which purpose: Cedar policies, which the policy in force names by their SHA-256.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use anyhow::Context as _;
use attest::{AccessMode, AccessRequest, OrganisationId, ReaderKind};
use cedar_policy::{
    Authorizer, Context, Decision, Entities, Entity, EntityId, EntityTypeName, EntityUid, PolicySet, Request,
    RestrictedExpression,
};
use policy::Signer;
use stdx::Digest;

use super::DataError;
use crate::command::read_limited;
use crate::failure::Failure;

/// A hundred pages of policies.
const RULES_BYTES_MAX: usize = 256 << 10;

/// The policies.
pub(super) struct Rules {
    policies: PolicySet,
    authorizer: Authorizer,
}

/// What somebody wants to do.
#[derive(Clone, Copy, Debug)]
pub(super) enum Act {
    /// Ask for it.
    Request,
    /// Read it, now.
    Query,
}

/// Who wants to do what.
pub(super) struct Question<'a> {
    pub(super) act: Act,
    pub(super) who: &'a Signer,
    /// What is asked for.
    pub(super) request: &'a AccessRequest,
    /// Whose request it is.
    pub(super) asked_by: &'a OrganisationId,
    /// Whether that is somebody else: the request is a template.
    pub(super) template: bool,
}

impl Rules {
    /// The policies in `path`, if they are those that the policy names.
    pub(super) fn load(path: &Path, named: Option<Digest>) -> anyhow::Result<Self> {
        let named = named.ok_or_else(|| {
            Failure::refused("the policy names no rules of access, so nobody may ask for anything")
                .hint("write their SHA-256 into the policy: `rules = \"…\"` under `[residency]`")
        })?;
        let bytes = read_limited(path, RULES_BYTES_MAX)?;
        if Digest::of(&bytes) != named {
            let message = format!("`{}` are not the rules of access that the policy names ({named})", path.display());
            return Err(Failure::refused(message).hint("a policy that names them is needed first").into());
        }
        let text = String::from_utf8(bytes).with_context(|| format!("`{}` is no text", path.display()))?;
        let policies = text.parse().with_context(|| format!("`{}` can't be read", path.display()))?;
        Ok(Self { policies, authorizer: Authorizer::new() })
    }

    /// The policies that allow it, by their names.
    ///
    /// # Errors
    /// [`DataError::Refused`] when none does, one forbids it, or one can't be evaluated.
    pub(super) fn decide(&self, question: &Question<'_>) -> Result<Vec<String>, DataError> {
        let broken = |error: anyhow::Error| DataError::Broken(format!("the rules of access: {error:#}"));
        let (request, entities) = question.cedar().map_err(broken)?;
        let answer = self.authorizer.is_authorized(&request, &self.policies, &entities);
        let errors: Vec<String> = answer.diagnostics().errors().map(ToString::to_string).collect();
        if !errors.is_empty() {
            return Err(DataError::refused(format!("the rules of access can't be evaluated: {}", errors.join("; "))));
        }
        let mut names: Vec<String> = answer.diagnostics().reason().map(|id| self.name(id)).collect();
        names.sort();
        match (answer.decision(), names.is_empty()) {
            (Decision::Allow, _) => Ok(names),
            (Decision::Deny, true) => Err(DataError::refused(format!("no rule of access allows {question}"))),
            (Decision::Deny, false) => {
                Err(DataError::refused(format!("rule of access `{}` forbids {question}", names.join("`, `"))))
            }
        }
    }

    /// What people call a policy: its annotation `@id`.
    fn name(&self, id: &cedar_policy::PolicyId) -> String {
        let annotated = self.policies.annotation(id, "id");
        annotated.map_or_else(|| id.to_string(), |it| it.to_string())
    }
}

impl Question<'_> {
    fn cedar(&self) -> anyhow::Result<(Request, Entities)> {
        let text = |text: &dyn std::fmt::Display| RestrictedExpression::new_string(text.to_string());
        let long = |number: u64| RestrictedExpression::new_long(i64::try_from(number).unwrap_or(i64::MAX));
        let flag = RestrictedExpression::new_bool;
        let AccessRequest { kind, purpose, region, class, countries, budget, mode, standing, .. } = self.request;
        let organisation = uid("Organisation", self.who.organisation.as_str())?;
        let reader = uid("Reader", self.who.key.as_str())?;
        let attributes = HashMap::from([
            ("organisation".to_owned(), text(&self.who.organisation)),
            ("key".to_owned(), text(&self.who.key.as_str())),
        ]);
        let reader_entity = Entity::new(reader.clone(), attributes, HashSet::from([organisation.clone()]))?;
        let (class_uid, region_uid) = (uid("Class", class.as_str())?, uid("Region", region.as_str())?);
        let class_entity = Entity::new_no_attrs(class_uid.clone(), HashSet::from([region_uid.clone()]));
        let others = [organisation, region_uid].map(|it| Entity::new_no_attrs(it, HashSet::new()));
        let entities = Entities::from_entities([reader_entity, class_entity].into_iter().chain(others), None)?;
        let countries = RestrictedExpression::new_set(countries.iter().map(|it| text(it)));
        let mode = match mode {
            AccessMode::Ordinary => "ordinary",
            AccessMode::BreakGlass => "break-glass",
        };
        let kind = match kind {
            ReaderKind::Person => "person",
            ReaderKind::Service => "service",
        };
        let context = Context::from_pairs([
            ("purpose".to_owned(), text(purpose)),
            ("region".to_owned(), text(region)),
            ("countries".to_owned(), countries),
            ("kind".to_owned(), text(&kind)),
            ("mode".to_owned(), text(&mode)),
            ("objects".to_owned(), long(budget.objects)),
            ("rows".to_owned(), long(budget.rows)),
            ("bytes".to_owned(), long(budget.bytes)),
            ("standing".to_owned(), flag(standing.is_some())),
            ("template".to_owned(), flag(self.template)),
            ("asked_by".to_owned(), text(self.asked_by)),
        ])?;
        let action = match self.act {
            Act::Request => "request",
            Act::Query => "query",
        };
        let request = Request::new(reader, uid("Action", action)?, class_uid, context, None)?;
        Ok((request, entities))
    }
}

impl std::fmt::Display for Question<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (who, AccessRequest { class, purpose, .. }) = (&self.who.organisation, self.request);
        let act = match (self.act, self.template) {
            (Act::Request, _) => "to ask for",
            (Act::Query, false) => "to read",
            (Act::Query, true) => "to read by this template",
        };
        write!(f, "`{}` of `{who}` {act} `{class}` for `{purpose}`", self.who.key.as_str())
    }
}

fn uid(kind: &str, id: &str) -> anyhow::Result<EntityUid> {
    let kind: EntityTypeName = kind.parse().map_err(|error| anyhow::anyhow!("`{kind}`: {error}"))?;
    Ok(EntityUid::from_type_name_and_id(kind, EntityId::new(id)))
}

#[cfg(test)]
mod tests {
    use attest::{Budget, Commitment, KeyRef, Position, PrivateField, Standing};
    use stdx::UnixTime;

    use super::*;

    const SAMPLE: &[u8] = include_bytes!("../../../../docs/samples/access.cedar");

    fn request(class: &str) -> AccessRequest {
        let private = Commitment::new(PrivateField { label: "reader", value: "an analyst" }, &[7; 32]);
        AccessRequest {
            position: Position {
                log: "supervisor.example/log".parse().unwrap(),
                stream: "data/vendor".parse().unwrap(),
                epoch: 0,
                sequence: 0,
                previous: None,
                time: UnixTime::EPOCH,
            },
            reader: private,
            kind: ReaderKind::Person,
            purpose: "detection-quality".parse().unwrap(),
            ticket: private,
            region: "zurich".parse().unwrap(),
            class: class.parse().unwrap(),
            countries: vec!["DE".parse().unwrap()],
            budget: Budget { objects: 1, rows: 1, bytes: 1 },
            until: UnixTime::EPOCH,
            mode: AccessMode::Ordinary,
            standing: None,
        }
    }

    fn decided(request: &AccessRequest, organisation: &str) -> Result<Vec<String>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.cedar");
        stdx::durable::write(&path, SAMPLE).unwrap();
        let rules = Rules::load(&path, Some(Digest::of(SAMPLE))).unwrap();
        let key = tlog::SignerKey::generate("a/reader".parse().unwrap(), tlog::KeyKind::Ed25519, &stdx::SystemEntropy);
        let (organisation, key) = (organisation.parse().unwrap(), KeyRef::of(key.unwrap().verifier()));
        let who = Signer { organisation, key };
        let asked_by = "vendor".parse().unwrap();
        let question = Question { act: Act::Query, who: &who, request, asked_by: &asked_by, template: false };
        rules.decide(&question).map_err(|error| error.to_string())
    }

    #[test]
    fn the_sample_says_who_may_what_and_a_no_weighs_more() {
        let analysts = "the vendor's analysts, for the quality of detections";
        assert_eq!(decided(&request("detections"), "vendor").unwrap(), [analysts]);
        assert!(decided(&request("detections"), "member").unwrap_err().contains("no rule of access allows"));
        let other = AccessRequest { purpose: "curiosity".parse().unwrap(), ..request("detections") };
        assert!(decided(&other, "vendor").unwrap_err().contains("no rule of access allows"));
        let standing = Some(Standing { code: Digest::of(b""), schema: Digest::of(b""), uses: 2 });
        let service = AccessRequest { kind: ReaderKind::Service, standing, ..request("statistics") };
        assert_eq!(decided(&service, "vendor").unwrap().len(), 1);
        let content = AccessRequest { kind: ReaderKind::Service, ..request("content") };
        assert!(decided(&content, "vendor").unwrap_err().contains("forbids"));
    }

    #[test]
    fn only_the_rules_that_the_policy_names_are_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.cedar");
        stdx::durable::write(&path, SAMPLE).unwrap();
        for named in [None, Some(Digest::of(b"others"))] {
            assert!(Rules::load(&path, named).is_err());
        }
    }
}
