//! A genuine release with anything done to its bundle: approved is nothing but the genuine release.

use std::cell::OnceCell;
use std::time::Duration;

use attest::{Bundle, Lane, Ring};
use stdx::UnixTime;
use testkit::{PRODUCT, World};
use verify::{CurrentStatus, Evidence, Moment, Request};

use crate::Target;
use crate::edits::edited;

pub(crate) const TARGETS: &[Target] = &[("approve", approve)];

struct Genuine {
    world: World,
    bytes: Vec<u8>,
    release: attest::StatementId,
    status: CurrentStatus,
    at: Moment,
}

thread_local! {
    static GENUINE: OnceCell<Genuine> = const { OnceCell::new() };
}

impl Genuine {
    fn new() -> Self {
        let mut world = World::new();
        let released = world.release(PRODUCT, "1.0", &[("a", b"content")]);
        let status = world.status();
        let at = Moment::new(&world.clock, UnixTime::EPOCH, Duration::from_secs(24 * 3600));
        let evidence = Evidence::open(world.policy(), &status).expect("genuine");
        let status = world.policy().current_status(&evidence, Lane::Slow, None, &at).expect("genuine");
        Self { bytes: released.bundle.to_bytes(), release: released.release.id(), world, status, at }
    }

    /// Whether the bundle was approved, and then as the genuine release.
    fn judge(&self, bytes: &[u8]) -> bool {
        let Ok(bundle) = Bundle::parse(bytes) else { return false };
        let Ok(evidence) = Evidence::open(self.world.policy(), &bundle) else { return false };
        let product = PRODUCT.parse().expect("a product");
        let request =
            Request { product: &product, ring: Ring::All, status: &self.status, at: &self.at, installed: None };
        let Ok(approved) = self.world.policy().approve(&evidence, &request) else { return false };
        assert_eq!(approved.id(), self.release);
        true
    }
}

fn approve(edits: &[u8]) {
    GENUINE.with(|genuine| {
        let genuine = genuine.get_or_init(|| {
            let genuine = Genuine::new();
            assert!(genuine.judge(&genuine.bytes), "the genuine bundle is approved");
            genuine
        });
        genuine.judge(&edited(&genuine.bytes, edits));
    });
}
