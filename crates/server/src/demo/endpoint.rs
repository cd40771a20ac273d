//! An endpoint: `clerestory-agent` with a folder of its own, which knows nothing but a hash.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, bail};
use attest::Ring;
use serde_json::Value;
use stdx::durable;

use super::stage::{Stage, last_words};

const CONFIG: &str = "agent.toml";

/// What an endpoint's owner wants.
pub(super) struct Wanted<'a> {
    /// What its folder is called.
    pub(super) name: &'a str,
    /// What it takes.
    pub(super) products: &'a [String],
    /// How early.
    pub(super) ring: Ring,
    /// Further sections of its configuration.
    pub(super) sections: String,
}

/// An endpoint.
pub(super) struct Endpoint {
    program: PathBuf,
    folder: PathBuf,
}

impl Endpoint {
    /// Makes one, and gives it the policy's hash.
    pub(super) fn set(stage: &Stage, wanted: &Wanted<'_>) -> anyhow::Result<Self> {
        let folder = stage.folder().join(wanted.name);
        durable::create_folder(&folder)?;
        let mut text = format!(
            "# An endpoint's owner decides what it takes, from where, and how early.\n\
             state = \"{0}/state\"\ninstall = \"{0}/install\"\nchannel = [\"{1}/channel\"]\nring = \"{2}\"\n\
             interval_s = 1\n",
            folder.display(),
            stage.url("vendor")?,
            wanted.ring
        );
        for log in ["vendor", "supervisor"] {
            text.push_str(&format!("\n[[log]]\norigin = \"{log}.example/log\"\nurl = \"{}\"\n", stage.url(log)?));
        }
        text.push_str(&wanted.sections);
        for product in wanted.products {
            text.push_str(&format!("\n[[product]]\nid = \"{product}\"\n"));
        }
        durable::write(&folder.join(CONFIG), text.as_bytes())?;
        let endpoint = Self { program: stage.beside("clerestory-agent")?, folder };
        let (hash, policy) = (stage.genesis().to_string(), stage.file("vendor/policy/1.envelope"));
        endpoint.must(&["init", "--policy-hash", &hash, "--policy", &policy])?;
        Ok(endpoint)
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The agent with these arguments, to be run by whoever asks.
    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(self.folder.join(CONFIG)).arg("--json").args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs the agent, which must succeed, and gives what it printed as JSON.
    pub(super) fn must(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let output = self.run(arguments, &[])?;
        if !output.status.success() {
            bail!("`clerestory-agent {}`: {}", arguments.join(" "), last_words(&output));
        }
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("`clerestory-agent {}` printed no JSON", arguments.join(" ")))
    }

    /// What a person types.
    pub(super) fn line(&self, what: &str) -> String {
        format!("clerestory-agent --config {} {what}", self.folder.join(CONFIG).display())
    }

    /// Takes what is new, and says what is installed: product and version.
    pub(super) fn update(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let output = self.run(&["update"], &[])?;
        if !output.status.success() {
            bail!("the endpoint did not update: {}", reason(&output));
        }
        self.installed()
    }

    /// Updates, which must not succeed, and gives the reason. `through` runs it inside another
    /// program.
    pub(super) fn must_refuse(&self, through: &[&str]) -> anyhow::Result<String> {
        let output = self.run(&["update"], through)?;
        if output.status.success() {
            bail!("the endpoint accepted it");
        }
        Ok(reason(&output))
    }

    pub(super) fn must_have_installed(&self, product: &str) -> anyhow::Result<()> {
        if self.installed()?.contains_key(product) {
            return Ok(());
        }
        bail!("the endpoint has lost `{product}`")
    }

    /// What an endpoint does that has revoked content installed.
    pub(super) fn after_revocation(&self, product: &str) -> anyhow::Result<String> {
        let output = self.run(&["update"], &[])?;
        if self.installed()?.contains_key(product) {
            bail!("the endpoint keeps `{product}`, which is revoked");
        }
        Ok(reason(&output))
    }

    pub(super) fn status_command(&self) -> String {
        self.line("status")
    }

    pub(super) fn update_command(&self) -> String {
        self.line("update")
    }

    /// Each product with its version.
    pub(super) fn installed(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let output = self.run(&["status"], &[])?;
        let said: Value = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("the endpoint's status is no JSON: {}", last_words(&output)))?;
        let products = said.get("products").and_then(Value::as_array).cloned().unwrap_or_default();
        let text = |product: &Value, key: &str| product.get(key).and_then(Value::as_str).map(str::to_owned);
        Ok(products.iter().filter_map(|it| Some((text(it, "product")?, text(it, "version")?))).collect())
    }

    /// Runs the agent whatever comes of it.
    pub(super) fn run(&self, arguments: &[&str], through: &[&str]) -> anyhow::Result<Output> {
        let own = self.command(arguments);
        let mut command = match through.split_first() {
            Some((program, rest)) => {
                let mut command = Command::new(program);
                command.args(rest).arg(own.get_program()).args(own.get_args()).stdin(Stdio::null());
                command
            }
            None => own,
        };
        command.output().with_context(|| format!("can't run `{}`", command.get_program().display()))
    }
}

/// What an update says it did not do, or switched off.
fn reason(output: &Output) -> String {
    let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let list = |key: &str| said.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let text = |it: &Value, key: &str| it.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let disabled = list("changes").into_iter().filter(|it| text(it, "change") == "disabled");
    let off = disabled.map(|it| format!("{} is switched off: {}", text(&it, "product"), text(&it, "reason")));
    let failed = list("failures").into_iter().map(|it| format!("{}: {}", text(&it, "code"), text(&it, "message")));
    off.chain(failed).next().unwrap_or_else(|| last_words(output))
}
