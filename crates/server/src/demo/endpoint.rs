//! An endpoint: `clerestory-agent` with a folder of its own, which knows nothing but a hash.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, bail};
use serde_json::Value;
use stdx::durable;

use super::stage::{Stage, last_words};

/// An endpoint.
pub(super) struct Endpoint {
    program: PathBuf,
    config: PathBuf,
}

impl Endpoint {
    /// Makes one that wants `products`, and gives it the policy's hash.
    pub(super) fn set(stage: &Stage, products: &[String]) -> anyhow::Result<Self> {
        let folder = stage.folder().join("endpoint");
        durable::create_folder(&folder)?;
        let mut text = format!(
            "# An endpoint's owner decides what it takes, from where, and how early.\n\
             state = \"{0}/state\"\ninstall = \"{0}/install\"\nchannel = [\"{1}/channel\"]\nring = \"all\"\n",
            folder.display(),
            stage.url("vendor")?
        );
        for log in ["vendor", "supervisor"] {
            text.push_str(&format!("\n[[log]]\norigin = \"{log}.example/log\"\nurl = \"{}\"\n", stage.url(log)?));
        }
        for product in products {
            text.push_str(&format!("\n[[product]]\nid = \"{product}\"\n"));
        }
        let config = folder.join("agent.toml");
        durable::write(&config, text.as_bytes())?;
        let endpoint = Self { program: stage.beside("clerestory-agent")?, config };
        let (hash, policy) = (stage.genesis().to_string(), stage.file("vendor/policy/1.envelope"));
        let output = endpoint.run(&["init", "--policy-hash", &hash, "--policy", &policy], &[])?;
        if !output.status.success() {
            bail!("the endpoint was not initialised: {}", last_words(&output));
        }
        Ok(endpoint)
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
        format!("clerestory-agent --config {} status", self.config.display())
    }

    pub(super) fn update_command(&self) -> String {
        format!("clerestory-agent --config {} update", self.config.display())
    }

    fn installed(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let output = self.run(&["status"], &[])?;
        let said: Value = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("the endpoint's status is no JSON: {}", last_words(&output)))?;
        let products = said.get("products").and_then(Value::as_array).cloned().unwrap_or_default();
        let text = |product: &Value, key: &str| product.get(key).and_then(Value::as_str).map(str::to_owned);
        Ok(products.iter().filter_map(|it| Some((text(it, "product")?, text(it, "version")?))).collect())
    }

    fn run(&self, arguments: &[&str], through: &[&str]) -> anyhow::Result<Output> {
        let config = self.config.display().to_string();
        let own = [&[self.program.to_str().context("a path that is text")?, "--config", &config, "--json"], arguments]
            .concat();
        let line = [through, &own].concat();
        let (program, rest) = line.split_first().context("a program")?;
        let mut command = Command::new(program);
        command.args(rest).stdin(Stdio::null());
        command.output().with_context(|| format!("can't run `{program}`"))
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
