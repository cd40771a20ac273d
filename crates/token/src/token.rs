//! A PKCS#11 token (OASIS PKCS #11 v3.0): keys by their point, secrets by ECDH.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::elliptic_curve::{EcKdf, Ecdh1DeriveParams};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;
use zeroize::Zeroizing;

/// The object identifier of P-256 (`secp256r1`), in DER.
const P256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// An uncompressed point: 4, and two coordinates.
const POINT_BYTES: usize = 65;
const SECRET_BYTES: usize = 32;
const PIN_BYTES_MAX: u64 = 4096;

/// What our objects are called on the token.
const LABEL: &[u8] = b"clerestory region key";
const USES: &[u8] = b"clerestory uses";

/// A point of P-256, uncompressed; whether it is on the curve, the token tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Point(Vec<u8>);

impl Point {
    pub(crate) fn new(bytes: Vec<u8>) -> anyhow::Result<Self> {
        ensure!(bytes.len() == POINT_BYTES && bytes.first() == Some(&4), "not an uncompressed point of P-256");
        Ok(Self(bytes))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// As `CKA_EC_POINT` has it: an octet string in DER.
    fn der(&self) -> Vec<u8> {
        [&[0x04, 0x41], &*self.0].concat()
    }
}

/// A session with a token.
pub(crate) struct Token {
    session: Session,
}

impl Token {
    /// Loads the module and logs in.
    pub(crate) fn open(module: &Path, label: &str, pin: &Path) -> anyhow::Result<Self> {
        let pin = read_pin(pin)?;
        let module_name = || format!("the PKCS#11 module `{}`", module.display());
        let pkcs11 = Pkcs11::new(module).with_context(module_name)?;
        pkcs11.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).with_context(module_name)?;
        let mut found = None;
        for slot in pkcs11.get_slots_with_initialized_token().with_context(module_name)? {
            if pkcs11.get_token_info(slot)?.label().trim_end() == label {
                found = Some(slot);
            }
        }
        let slot = found.with_context(|| format!("{}: no token has the label `{label}`", module_name()))?;
        let session = pkcs11.open_rw_session(slot).with_context(module_name)?;
        session.login(UserType::User, Some(&pin)).with_context(|| format!("token `{label}` refuses the PIN"))?;
        Ok(Self { session })
    }

    /// Makes a key that can't leave the token.
    pub(crate) fn generate(&self) -> anyhow::Result<Point> {
        let public = [
            Attribute::Token(true),
            Attribute::Private(false),
            Attribute::Label(LABEL.to_vec()),
            Attribute::KeyType(KeyType::EC),
            Attribute::EcParams(P256.to_vec()),
        ];
        let private = [
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Derive(true),
            Attribute::Sign(false),
            Attribute::Decrypt(false),
            Attribute::Unwrap(false),
            Attribute::Label(LABEL.to_vec()),
        ];
        let (public, private) = self.session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private)?;
        let point = self.point(public)?;
        // The token's own number for the pair: the point.
        for half in [public, private] {
            self.session.update_attributes(half, &[Attribute::Id(point.0.clone())])?;
        }
        self.check(private)?;
        Ok(point)
    }

    /// A key that was ever readable is no key of ours.
    fn check(&self, private: ObjectHandle) -> anyhow::Result<()> {
        let asked = [
            AttributeType::Extractable,
            AttributeType::NeverExtractable,
            AttributeType::AlwaysSensitive,
            AttributeType::Local,
        ];
        let found = self.session.get_attributes(private, &asked)?;
        let wanted = [
            Attribute::Extractable(false),
            Attribute::NeverExtractable(true),
            Attribute::AlwaysSensitive(true),
            Attribute::Local(true),
        ];
        ensure!(wanted.iter().all(|it| found.contains(it)), "the token has made a key that could leave it");
        Ok(())
    }

    /// The points of all keys that are here and can't leave.
    pub(crate) fn keys(&self) -> anyhow::Result<Vec<Point>> {
        let ours = [Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::Label(LABEL.to_vec())];
        let mut points = Vec::new();
        for private in self.session.find_objects(&ours)? {
            self.check(private)?;
            match self.session.get_attributes(private, &[AttributeType::Id])?.pop() {
                Some(Attribute::Id(id)) => points.push(Point::new(id)?),
                _ => bail!("a key on the token has no id"),
            }
        }
        Ok(points)
    }

    /// ECDH (SEC 1, 3.3.1) of the key with each point: the agreed point's x coordinate. All of them are counted first.
    pub(crate) fn derive(&self, key: &Point, points: &[Point]) -> anyhow::Result<Vec<Zeroizing<Vec<u8>>>> {
        let private = self.private(key)?;
        self.check(private)?;
        self.count(points.len())?;
        points.iter().map(|point| self.agree(private, point)).collect()
    }

    fn agree(&self, private: ObjectHandle, point: &Point) -> anyhow::Result<Zeroizing<Vec<u8>>> {
        let template = [
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(KeyType::GENERIC_SECRET),
            Attribute::Token(false),
            Attribute::Sensitive(false),
            Attribute::Extractable(true),
            Attribute::ValueLen((SECRET_BYTES as u64).into()),
        ];
        let derive = |point: &[u8]| {
            let mechanism = Mechanism::Ecdh1Derive(Ecdh1DeriveParams::new(EcKdf::null(), point));
            self.session.derive_key(&mechanism, private, &template)
        };
        // PKCS #11 wants the raw point; tokens from before 2.20 want it in DER.
        let agreed = derive(point.bytes()).or_else(|_| derive(&point.der()))?;
        let value = self.session.get_attributes(agreed, &[AttributeType::Value]);
        self.session.destroy_object(agreed)?;
        match value?.pop() {
            Some(Attribute::Value(secret)) if secret.len() == SECRET_BYTES => Ok(Zeroizing::new(secret)),
            _ => bail!("the token gave no secret of {SECRET_BYTES} bytes"),
        }
    }

    /// Destroys both halves.
    pub(crate) fn destroy(&self, key: &Point) -> anyhow::Result<()> {
        for half in self.session.find_objects(&[Attribute::Id(key.0.clone())])? {
            self.session.destroy_object(half)?;
        }
        Ok(())
    }

    /// How often keys of this token were used, ever.
    pub(crate) fn uses(&self) -> anyhow::Result<u64> {
        Ok(self.counters()?.into_iter().map(|(_, uses)| uses).max().unwrap_or(0))
    }

    /// Another counter is made before those before it go: whoever stops in between has counted too much, never too
    /// little. (Not every token lets a value be changed: SoftHSM2 does only where the object was made.)
    fn count(&self, uses: usize) -> anyhow::Result<()> {
        let before = self.counters()?;
        let last = before.iter().map(|(_, uses)| *uses).max().unwrap_or(0);
        let sum = last.checked_add(uses as u64).context("the token's counter is at its end")?;
        let template = [
            Attribute::Class(ObjectClass::DATA),
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Label(USES.to_vec()),
            Attribute::Value(sum.to_string().into_bytes()),
        ];
        self.session.create_object(&template)?;
        for (counter, _) in before {
            self.session.destroy_object(counter)?;
        }
        Ok(())
    }

    fn counters(&self) -> anyhow::Result<Vec<(ObjectHandle, u64)>> {
        let ours = [Attribute::Class(ObjectClass::DATA), Attribute::Label(USES.to_vec())];
        let read = |counter: ObjectHandle| {
            let values = self.session.get_attributes(counter, &[AttributeType::Value])?;
            let text = values.into_iter().find_map(|it| match it {
                Attribute::Value(value) => String::from_utf8(value).ok(),
                _ => None,
            });
            let uses = text.and_then(|text| text.parse().ok()).context("the token's counter is no number")?;
            anyhow::Ok((counter, uses))
        };
        self.session.find_objects(&ours)?.into_iter().map(read).collect()
    }

    fn private(&self, key: &Point) -> anyhow::Result<ObjectHandle> {
        let wanted = [Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::Id(key.0.clone())];
        self.session.find_objects(&wanted)?.first().copied().context("the key is not on the token")
    }

    fn point(&self, public: ObjectHandle) -> anyhow::Result<Point> {
        match self.session.get_attributes(public, &[AttributeType::EcPoint])?.pop() {
            // Some tokens give the point, and some its DER.
            Some(Attribute::EcPoint(point)) if point.len() == POINT_BYTES => Point::new(point),
            Some(Attribute::EcPoint(point)) => Point::new(point.get(2..).unwrap_or_default().to_vec()),
            _ => bail!("the token's key has no point"),
        }
    }
}

fn read_pin(path: &Path) -> anyhow::Result<AuthPin> {
    let name = || format!("the PIN's file `{}`", path.display());
    let metadata = std::fs::metadata(path).with_context(name)?;
    ensure!(metadata.permissions().mode() & 0o077 == 0, "{} can be read by others", name());
    ensure!(metadata.len() <= PIN_BYTES_MAX, "{} is too long", name());
    let text = Zeroizing::new(std::fs::read_to_string(path).with_context(name)?);
    Ok(AuthPin::new(text.trim_end_matches(['\r', '\n']).into()))
}
