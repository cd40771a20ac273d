//! Where things lie. All names are plain ASCII, so that no web server, file system or percent
//! encoding can come between a name and its file (`docs/formats/channel.md`).

use attest::{Lane, ProductId, Release, ReleaseNumber, Ring};
use stdx::Digest;
use tuf::{Paths, RoleName, TargetPath};

/// Names what is new; replaced in place.
pub const TIMESTAMP: &str = "metadata/timestamp.json";

/// Of an artifact's name so much is kept in its path; the place in front keeps paths apart.
const NAME_BYTES_MAX: usize = 100;

/// The delegated role, and first folder, of a lane.
#[must_use]
pub const fn folder(lane: Lane) -> &'static str {
    match lane {
        Lane::Slow => "products",
        Lane::Fast => "rules",
    }
}

/// The delegated role of a lane.
///
/// # Panics
/// Never: both names are good.
#[must_use]
pub fn role(lane: Lane) -> RoleName {
    folder(lane).parse().expect("a short name that is not empty")
}

/// What the role of a lane may describe.
#[must_use]
pub fn paths(lane: Lane) -> Paths {
    let folder = folder(lane);
    Paths::Patterns(vec![format!("{folder}/*/releases"), format!("{folder}/*/*/*")])
}

/// A product of a lane.
#[derive(Clone, Copy, Debug)]
pub struct Product<'a> {
    /// The lane.
    pub lane: Lane,
    /// The product.
    pub id: &'a ProductId,
}

impl Product<'_> {
    /// The target that lists the product's releases.
    #[must_use]
    pub fn releases(&self) -> TargetPath {
        target(format!("{}/{}/releases", folder(self.lane), self.id))
    }

    /// The target that holds the evidence of a release.
    #[must_use]
    pub fn bundle(&self, number: ReleaseNumber) -> TargetPath {
        target(format!("{}bundle", self.release_prefix(number)))
    }

    /// What the paths of all targets of a release begin with.
    #[must_use]
    pub fn release_prefix(&self, number: ReleaseNumber) -> String {
        format!("{}/{}/{}/", folder(self.lane), self.id, number.get())
    }
}

/// An artifact's place in its release's manifest.
#[derive(Clone, Copy, Debug)]
pub struct ArtifactName<'a> {
    /// From 0.
    pub place: usize,
    /// The subject's name.
    pub name: &'a str,
}

/// The target that holds an artifact: its place, then its name with everything odd replaced.
#[must_use]
pub fn artifact(release: &Release, artifact: ArtifactName<'_>) -> TargetPath {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let name = artifact.name.bytes().take(NAME_BYTES_MAX).map(|byte| if plain(byte) { char::from(byte) } else { '_' });
    let product = Product { lane: release.lane, id: &release.product };
    target(format!("{}{}-{}", product.release_prefix(release.number), artifact.place, name.collect::<String>()))
}

/// The file that holds a patch, below the channel's URL: named by its content, which the release
/// pins, so that metadata has nothing to say of it.
#[must_use]
pub fn patch(product: &ProductId, content: &Digest) -> String {
    format!("patches/{product}/{content}")
}

/// The file that holds a lane's current status, below the channel's URL.
#[must_use]
pub fn status(lane: Lane) -> String {
    format!("status/{lane}.bundle")
}

/// Where our servers say what is new for a ring, below the channel's URL; after a state, when there is something.
#[must_use]
pub fn news(ring: Ring, after: Option<&Digest>) -> String {
    after.map_or_else(|| format!("news/{ring}"), |state| format!("news/{ring}/{state}"))
}

/// The file of policy version `version`: the genesis is an envelope, its successors are bundles.
#[must_use]
pub fn policy(version: u64) -> String {
    if version == 1 { "policy/1.envelope".to_owned() } else { format!("policy/{version}.bundle") }
}

fn target(path: String) -> TargetPath {
    path.parse().expect("product names, numbers and cleaned names are plain parts")
}
