//! Keys, and the algorithms that a client accepts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::NonZeroU32;

use ed25519_dalek::VerifyingKey;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use stdx::{Digest, Hasher};

use crate::json::Json;

/// The id of a key (TUF 4.2.1 `KEYID`): SHA-256 of the key's canonical form, in hexadecimal.
/// Other text is kept but names no key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId(String);

impl KeyId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A public key of any type (TUF 4.2.2 `KEY`), with the members that we don't know, since its id
/// covers them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    id: KeyId,
    key_type: String,
    scheme: String,
    public: Option<String>,
    json: Json,
}

impl PublicKey {
    /// The Ed25519 key with these 32 bytes.
    #[must_use]
    pub fn ed25519(bytes: &[u8; 32]) -> Self {
        let text = |text: &str| Json::String(text.to_owned());
        let keyval = Json::Object([("public".to_owned(), text(&hex::encode(bytes)))].into());
        let members = [("keytype", text("ed25519")), ("keyval", keyval), ("scheme", text("ed25519"))];
        let json = Json::Object(members.map(|(name, value)| (name.to_owned(), value)).into());
        Self::from_json(json).expect("all members were just given")
    }

    fn from_json(json: Json) -> Option<Self> {
        let text = |name| json.member(name).and_then(Json::text).map(str::to_owned);
        let key_type = text("keytype")?;
        let scheme = text("scheme")?;
        let public = json.member("keyval")?.member("public").and_then(Json::text).map(str::to_owned);
        let id = KeyId(Digest::of(&json.canonical()).to_string());
        Some(Self { id, key_type, scheme, public, json })
    }

    /// The id, calculated from the key itself.
    #[must_use]
    pub const fn id(&self) -> &KeyId {
        &self.id
    }

    /// `KEYTYPE`, such as `ed25519`.
    #[must_use]
    pub fn key_type(&self) -> &str {
        &self.key_type
    }

    /// `SCHEME`, such as `ed25519`.
    #[must_use]
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// The member `public` of `KEYVAL`, in the encoding of the key's type.
    #[must_use]
    pub fn public(&self) -> Option<&str> {
        self.public.as_deref()
    }

    /// What makes two keys the same key, whatever else is written beside it.
    fn material(&self) -> (&str, Option<&str>) {
        (&self.key_type, self.public())
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.json.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Json::deserialize(deserializer)?;
        Self::from_json(json).ok_or_else(|| de::Error::custom("a key needs keytype, scheme and keyval"))
    }
}

/// The keys that a root or a delegation lists.
///
/// A key that stands under an id not its own is left out (4.3: clients must calculate each id):
/// refusing the whole file would stop clients for an error in one key that nobody need use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct KeyRing(BTreeMap<KeyId, PublicKey>);

impl KeyRing {
    /// The key with this id.
    #[must_use]
    pub fn get(&self, id: &KeyId) -> Option<&PublicKey> {
        self.0.get(id)
    }

    /// Adds a key under its id.
    pub fn insert(&mut self, key: PublicKey) {
        self.0.insert(key.id.clone(), key);
    }
}

impl<'de> Deserialize<'de> for KeyRing {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let listed = BTreeMap::<KeyId, PublicKey>::deserialize(deserializer)?;
        Ok(Self(listed.into_iter().filter(|(id, key)| *id == key.id).collect()))
    }
}

/// Who signs for a role (TUF 4.3 `ROLE`). An id listed twice counts once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleKeys {
    /// The ids of the role's keys.
    pub keyids: BTreeSet<KeyId>,
    /// How many of them must have signed.
    pub threshold: NonZeroU32,
}

/// A message and what is said to be its signature.
#[derive(Clone, Copy, Debug)]
pub struct SignedMessage<'a> {
    /// The canonical form of the metadata's `signed` member.
    pub message: &'a [u8],
    /// The signature's bytes, in the encoding of its scheme.
    pub signature: &'a [u8],
}

/// The signature schemes and hash functions that a client accepts.
///
/// Whatever an implementation doesn't know counts as not signed, or not hashed.
pub trait Suite: Send + Sync {
    /// Whether `key` made this signature, strictly by its scheme.
    fn verifies(&self, key: &PublicKey, signed: SignedMessage<'_>) -> bool;

    /// A fresh run of the hash function that metadata calls `name`.
    fn hash(&self, name: &str) -> Option<Box<dyn RunningHash>>;
}

/// A hash function at work.
pub trait RunningHash {
    /// Adds `bytes`.
    fn update(&mut self, bytes: &[u8]);

    /// The hash of everything written, in lower-case hexadecimal.
    fn finish(self: Box<Self>) -> String;
}

/// The endpoint's suite: Ed25519 (strict, weak keys refused) and SHA-256, nothing else.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ed25519Sha256;

impl Suite for Ed25519Sha256 {
    fn verifies(&self, key: &PublicKey, signed: SignedMessage<'_>) -> bool {
        if key.key_type != "ed25519" || key.scheme != "ed25519" {
            return false;
        }
        // Lower case only: one key must have one spelling, or it could count twice.
        let public = key.public().and_then(|text| text.parse::<Digest>().ok());
        let Some(public) = public else { return false };
        let Ok(signature) = ed25519_dalek::Signature::from_slice(signed.signature) else { return false };
        VerifyingKey::from_bytes(public.as_bytes())
            .is_ok_and(|key| key.verify_strict(signed.message, &signature).is_ok())
    }

    fn hash(&self, name: &str) -> Option<Box<dyn RunningHash>> {
        (name == "sha256").then(|| Box::new(Hasher::default()) as Box<dyn RunningHash>)
    }
}

impl RunningHash for Hasher {
    fn update(&mut self, bytes: &[u8]) {
        Self::update(self, bytes);
    }

    fn finish(self: Box<Self>) -> String {
        Self::finish(*self).to_string()
    }
}

/// How many different keys these are: one key under two ids counts once.
pub(crate) fn distinct<'k>(keys: impl Iterator<Item = &'k PublicKey>) -> usize {
    keys.map(PublicKey::material).collect::<BTreeSet<_>>().len()
}
