//! Real services for tests: each in a temporary folder, ended by its process id.
//!
//! A test binary starts each once: [`Postgres::shared`] and [`Seaweed::shared`] give the running one
//! while anybody still holds it. The process is a child of a thread of its own, with a parent-death
//! signal, so that it ends with the test binary whatever ends that.

mod postgres;
mod process;
mod seaweed;

pub use postgres::Postgres;
pub use seaweed::{ACCESS_KEY_ID, SECRET_ACCESS_KEY, Seaweed};

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use stdx::durable;

/// Writes the section of an organisation's shared stores into `ORGANISATION.toml`, and the secrets beside it. The bucket
/// must be there.
pub fn write_section(folder: &Path, on: (&Postgres, &Seaweed), bucket: &str, organisation: &str) {
    let ((postgres, seaweed), at) = (on, |file: &str| folder.join(file));
    durable::write_private(&at("s3-secret"), format!("{SECRET_ACCESS_KEY}\n").as_bytes()).unwrap();
    durable::write_private(&at("postgres-password"), format!("{}\n", postgres.password()).as_bytes()).unwrap();
    let schema = if organisation == "vendor" { bucket.to_owned() } else { format!("{bucket}-{organisation}") };
    let section = format!(
        "[shared]\n[shared.objects]\nendpoint = \"{}\"\nregion = \"eu-central-1\"\nbucket = \"{bucket}\"\n\
         prefix = \"{organisation}\"\naccess_key_id = \"{ACCESS_KEY_ID}\"\nsecret_access_key = \"{}\"\n\
         [shared.state]\nurl = \"{}\"\nschema = \"{schema}\"\npassword = \"{}\"\n",
        seaweed.endpoint(),
        at("s3-secret").display(),
        postgres.url(),
        at("postgres-password").display(),
    );
    durable::write(&at(&format!("{organisation}.toml")), section.as_bytes()).unwrap();
}

/// The one that runs, or a new one.
fn shared<T>(slot: &Mutex<Weak<T>>, start: impl FnOnce() -> T) -> Arc<T> {
    // A test that panicked meanwhile leaves nothing half done here.
    let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(running) = slot.upgrade() {
        return running;
    }
    let started = Arc::new(start());
    *slot = Arc::downgrade(&started);
    started
}
