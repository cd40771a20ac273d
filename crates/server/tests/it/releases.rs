//! A system that releases: what stands before `clerestory release publish`.

use attest::{BuildResult, Bundle, Envelope, EnvironmentKind, Source, Statement, Subject};
use policy::Policy;
use server::config::Config;
use server::domain::Domain;
use stdx::{Digest, durable};

use crate::process::Server;
use crate::system::{Scope, System};

impl System {
    /// Everything serves, the supervisor has published a status, and the channel carries it.
    pub(crate) fn with_releases() -> Self {
        Self::with_releases_under(|_, _| {})
    }

    /// The same, under a policy that is otherwise.
    pub(crate) fn with_releases_under(change: impl FnOnce(&Self, &mut Policy)) -> Self {
        let mut system = Self::made_in(tempfile::tempdir().unwrap(), Scope::Releases, [&[], &[]], change);
        system.witnesses.iter_mut().for_each(Server::start);
        system.supervisor.start();
        system.run(&["status", "publish", "--config", "supervisor/clerestory.toml"]).ok();
        system.vendor.start();
        system.run(&["release", "freshen", "--config", "vendor/clerestory.toml"]).ok();
        for place in [crate::statement::Place::vendor(), crate::statement::Place::supervisor()] {
            system.beat(&place);
        }
        system
    }

    /// A result of one file that both builders signed and both organisations approved. (The builders
    /// are the test; that builds agree is shown elsewhere.)
    pub(crate) fn approved_build(&self, version: &str, content: &[u8]) {
        let folder = format!("vendor/builds/libexample/{version}");
        durable::create_folder(&self.file(&format!("{folder}/outputs"))).unwrap();
        durable::create_folder(&self.file(&format!("{folder}/approvals"))).unwrap();
        durable::write(&self.file(&format!("{folder}/outputs/product")), content).unwrap();
        let result = format!("{folder}/result.bundle");
        durable::write(&self.file(&result), &self.result(version, content).to_bytes()).unwrap();
        for name in ["vendor", "supervisor"] {
            let (config, key) = (format!("{name}/clerestory.toml"), format!("{name}/keys/approver.key"));
            let out = format!("{folder}/approvals/{name}.bundle");
            let approve = ["release", "approve", "--config", &config, "--key", &key, "--result", &result];
            self.run(&[&approve[..], &["--out", &out]].concat()).ok();
        }
    }

    /// Source and result, logged in the vendor's stream.
    fn result(&self, version: &str, content: &[u8]) -> Bundle {
        let config = Config::load(&self.file("vendor/clerestory.toml")).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let (recorder, builders) =
            (self.key("vendor", "recorder"), ["vendor", "supervisor"].map(|name| self.key(name, "builder")));
        runtime.block_on(async {
            let stream = Domain::open(&config).await.unwrap().stream("assembly/vendor").unwrap();
            let source = stream.write(|position| {
                let source = Source {
                    position,
                    product: "libexample".parse()?,
                    version: version.to_owned(),
                    files: 1,
                    bytes: 1,
                    revision: None,
                };
                let subject = vec![Subject::new("source", Digest::of(version.as_bytes()))];
                Ok(Envelope::sign(Statement { subject, predicate: source }.encode()?, &[&recorder])?)
            });
            let source = source.await.unwrap().envelope.id();
            let entry = stream.write(|position| {
                let result = BuildResult {
                    position,
                    product: "libexample".parse()?,
                    version: version.to_owned(),
                    source,
                    recipe: Digest::of(b"recipe"),
                    inputs: Digest::of(b"inputs"),
                    environment: Digest::of(b"environment"),
                    environment_kind: EnvironmentKind::Pinned,
                    sbom: Digest::of(b"sbom"),
                    lane: None,
                };
                let subject = vec![Subject::new("product", Digest::of(content))];
                let keys: Vec<_> = builders.iter().collect();
                Ok(Envelope::sign(Statement { subject, predicate: result }.encode()?, &keys)?)
            });
            Bundle::new(vec![entry.await.unwrap()]).unwrap()
        })
    }
}
