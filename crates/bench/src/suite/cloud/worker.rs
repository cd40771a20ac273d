//! A worker as a process.

use stdx::{SystemEntropy, durable};
use testkit::REGION;
use tlog::{KeyKind, SignerKey};

use crate::bench::Bench;
use crate::programs::succeed;
use crate::suite::log::Server;
use crate::suite::system::{System, VENDOR};

/// One that has a place, and runs or does not.
pub(super) struct Worker {
    name: String,
    server: Server,
}

impl Worker {
    /// The one with this number; it is neither enrolled nor started.
    pub(super) fn bound(system: &System, number: usize) -> anyhow::Result<Self> {
        let name = format!("worker-{number}");
        Ok(Self { server: Server::bound(system.file(&name))?, name })
    }

    pub(super) fn url(&self) -> anyhow::Result<String> {
        Ok(format!("http://{}", self.server.address()?))
    }

    /// Enrols its host, and starts it.
    pub(super) fn start(&mut self, system: &System, bench: &Bench) -> anyhow::Result<()> {
        let (programs, name) = (bench.programs()?, &self.name);
        let host = SignerKey::generate(format!("{name}.example/host").parse()?, KeyKind::Ed25519, &SystemEntropy)?;
        let code = succeed(programs.command("clerestory-query")?.arg("code"))?;
        let (code, key) = (String::from_utf8(code.stdout)?, host.verifier().to_string());
        let enrol =
            ["data", "enrol", "--config", "supervisor/clerestory.toml", "--key", &key, "--code", code.trim_end()];
        let out = format!("{name}.enrolment");
        system.run(&[&enrol[..], &["--region", REGION, "--out", &out, name]].concat())?;
        let folder = system.file(name);
        durable::create_folder(&folder.join("policies"))?;
        std::fs::copy(system.file("vendor/policy/1.envelope"), folder.join("policies/1.envelope"))?;
        std::fs::copy(system.file(&out), folder.join("enrolment.bundle"))?;
        durable::write_private(&folder.join("host.key"), host.to_secret_text().as_bytes())?;
        let text = format!(
            "listen = \"stdin\"\nregion = \"{REGION}\"\npolicies = \"policies\"\ngenesis = \"{}\"\nhost_key = \
             \"host.key\"\nenrolment = \"enrolment.bundle\"\nvault = \"{}\"\nmemory_mb = 1024\n",
            system.genesis(),
            system.url(VENDOR)?
        );
        durable::write(&folder.join("clerestory.toml"), text.as_bytes())?;
        self.server.start(&programs.path("clerestory-query")?)
    }
}
