//! The sample of `docs/formats/policy.md`, with the residency of `docs/samples/residency.toml`.

use attest::{CountryCode, RegionId};
use policy::{Organisation, Policy, PolicyError, Residency, Role, RoleKey, StreamPolicy, TimedKey};
use stdx::{SystemEntropy, UnixTime};
use tlog::{KeyKind, SignerKey};

const DOCUMENT: &str = include_str!("../../../../docs/formats/policy.md");
const RESIDENCY: &str = include_str!("../../../../docs/samples/residency.toml");

#[derive(serde::Deserialize)]
struct Section {
    residency: Residency,
}

pub(crate) fn residency() -> Residency {
    toml::from_str::<Section>(RESIDENCY).unwrap().residency
}

/// The sample of the document, as it is printed there.
pub(crate) fn plain() -> Policy {
    let text = DOCUMENT.split("```toml\nname = \"sample\"").nth(1).unwrap().split("```").next().unwrap();
    toml::from_str(&format!("name = \"sample\"{text}")).unwrap()
}

/// The same with the sample of residency, and whoever it needs.
pub(crate) fn with_residency() -> Policy {
    let mut policy = plain();
    let supervisor = policy.organisations.iter_mut().find(|it| it.id.as_str() == "supervisor").unwrap();
    supervisor.keys.extend([Role::Gateway, Role::Custodian].map(|role| key("supervisor", role)));
    let vendor = policy.organisations.iter_mut().find(|it| it.id.as_str() == "vendor").unwrap();
    vendor.keys.push(key("vendor", Role::Reader));
    let keys = vec![key("member", Role::Custodian)];
    policy.organisations.push(Organisation { id: "member".parse().unwrap(), keys });
    let residency = residency();
    for (stream, organisation) in [
        ("access/supervisor", "supervisor"),
        ("region/zurich", "supervisor"),
        ("custody/supervisor", "supervisor"),
        ("custody/member", "member"),
        ("data/vendor", "vendor"),
        ("data/supervisor", "supervisor"),
    ] {
        policy.streams.push(StreamPolicy {
            log: residency.log.clone(),
            stream: stream.parse().unwrap(),
            organisation: organisation.parse().unwrap(),
            interval_s: 86_400,
        });
    }
    policy.residency = Some(residency);
    policy
}

fn key(organisation: &str, role: Role) -> RoleKey {
    let name = format!("{organisation}.example/{role}").parse().unwrap();
    let key = SignerKey::generate(name, KeyKind::Ed25519, &SystemEntropy).unwrap();
    RoleKey { role, key: key.verifier().clone() }
}

/// Why the sample, changed like this, makes no sense.
pub(crate) fn refused(change: impl FnOnce(&mut Policy)) -> PolicyError {
    let mut policy = with_residency();
    change(&mut policy);
    policy.check().unwrap_err()
}

pub(crate) fn country(text: &str) -> CountryCode {
    text.parse().unwrap()
}

pub(crate) fn region(text: &str) -> RegionId {
    text.parse().unwrap()
}

pub(crate) fn time(text: &str) -> UnixTime {
    text.parse().unwrap()
}

/// A key that nobody has, of the right form.
pub(crate) fn timed(letter: char, form: (&str, usize), from: &str, until: &str) -> TimedKey {
    let key = format!("{}{}", form.0, letter.to_string().repeat(form.1)).parse().unwrap();
    TimedKey { key, from: time(from), until: time(until) }
}

pub(crate) const P256: (&str, usize) = ("p256:", 88);
pub(crate) const X_WING: (&str, usize) = ("x-wing:", 1624);
