//! An organisation with a key for each role.

use std::collections::BTreeMap;

use attest::OrganisationId;
use policy::{Organisation, Role, RoleKey};
use stdx::SystemEntropy;
use tlog::{KeyKind, SignerKey};

const ROLES: [Role; 10] = [
    Role::Builder,
    Role::Release,
    Role::Approver,
    Role::Status,
    Role::Policy,
    Role::Recorder,
    Role::Rules,
    Role::Gateway,
    Role::Custodian,
    Role::Reader,
];

/// An organisation with a key for each role.
#[derive(Debug)]
pub struct Party {
    /// Its name in the policy.
    pub id: OrganisationId,
    keys: BTreeMap<Role, SignerKey>,
}

impl Party {
    /// Draws fresh keys for `id`.
    #[must_use]
    pub fn new(id: &str) -> Self {
        let keys = ROLES.map(|role| (role, key(&format!("{id}.example/{role}"), KeyKind::Ed25519)));
        Self { id: id.parse().unwrap(), keys: keys.into_iter().collect() }
    }

    /// Its key for `role`.
    #[must_use]
    pub fn key(&self, role: Role) -> &SignerKey {
        self.keys.get(&role).unwrap()
    }

    /// Draws a fresh key for `role`, in place of the one that it had.
    pub(crate) fn replace(&mut self, role: Role) {
        self.keys.insert(role, key(&format!("{}.example/{role}", self.id), KeyKind::Ed25519));
    }

    /// What a policy says of it.
    #[must_use]
    pub fn organisation(&self) -> Organisation {
        let keys = self.keys.iter().map(|(role, key)| RoleKey { role: *role, key: key.verifier().clone() });
        Organisation { id: self.id.clone(), keys: keys.collect() }
    }
}

/// A fresh key.
pub(crate) fn key(name: &str, kind: KeyKind) -> SignerKey {
    SignerKey::generate(name.parse().unwrap(), kind, &SystemEntropy).unwrap()
}
