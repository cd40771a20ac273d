//! `clerestory-agent lookup` and `clerestory-agent share`.

use std::fmt::Display;
use std::path::PathBuf;

use agent::{
    After, Bounds, Class, Config, Failure, FileOffer, Findings, InstalledRules, Mode, Outcome, Ports, Recorded,
    RegionSeal, STATEMENT, Sending, Share, SharePorts, ShareSection, Target, look_up, statement_digest,
};
use clap::Subcommand;
use serde::Serialize;
use stdx::{Digest, SystemEntropy};

use crate::cli::Arguments;
use crate::print;

#[derive(Debug, Subcommand)]
pub(crate) enum ShareCommand {
    /// Print what you can agree to, and its SHA-256
    Statement,
    /// Show what was agreed to, and how much waits and was sent
    Status,
    /// Agree to the statement, for the classes that you name
    Agree {
        /// The statement's SHA-256, as `share statement` prints it
        #[arg(long, value_name = "SHA256")]
        statement: Digest,
        /// What is done with it
        #[arg(long, value_enum)]
        mode: Mode,
        /// A class of data; may be given several times
        #[arg(long = "class", value_enum, value_name = "CLASS")]
        classes: Vec<Class>,
    },
    /// Agree no more; what waits goes
    Withdraw,
    /// Print every byte that was sent and will be sent
    Show,
    /// Print the names of the sealed objects that were sent: who has read them stands in the log
    Objects,
    /// Write the same as `show` into a file
    Export {
        /// The file, which must not exist
        file: PathBuf,
        /// Forget here what was sent; in the mode `file` also what waits
        #[arg(long)]
        remove: bool,
    },
    /// Give the content of one file
    SendFile {
        /// The file
        file: PathBuf,
        /// The rule that found it
        #[arg(long)]
        rule: String,
        /// The file's SHA-256; without it, nothing is given, and it is shown
        #[arg(long, value_name = "SHA256")]
        sha256: Option<Digest>,
    },
    /// Write what the region's gateway needs to have what was sent erased
    Erase {
        /// The file, which must not exist; keep it to yourself until you hand it over
        file: PathBuf,
        /// This batch only, by the SHA-256 that `share show` prints; may be given several times
        #[arg(long = "batch", value_name = "SHA256")]
        batches: Vec<Digest>,
    },
    /// Send what waits now
    Send,
}

/// A hash, or else a file's path.
pub(crate) fn target(text: &str) -> Target {
    text.parse().map_or_else(|_| Target::File(text.into()), Target::Hash)
}

pub(crate) fn lookup(arguments: &Arguments, config: &Config, ports: Ports<'_>, text: &str) -> anyhow::Result<u8> {
    let known = look_up(config, ports, share_ports(ports), &target(text))?;
    show(arguments, &known)?;
    Ok(u8::from(known.is_bad()))
}

pub(crate) fn share(
    arguments: &Arguments,
    config: &Config,
    ports: Ports<'_>,
    command: &ShareCommand,
) -> anyhow::Result<u8> {
    if matches!(command, ShareCommand::Statement) {
        let (text, digest) = (STATEMENT, statement_digest());
        let json = serde_json::json!({"statement": text, "sha256": digest});
        return print(arguments, &json, &format!("{text}\nSHA-256 {digest}"));
    }
    let mut share = open(config, ports)?;
    match command {
        ShareCommand::Statement | ShareCommand::Status => {}
        ShareCommand::Agree { statement, mode, classes } => {
            share.agree(statement, *mode, classes.iter().copied().collect())?;
        }
        ShareCommand::Withdraw => share.withdraw()?,
        ShareCommand::Show => {
            let shown = share.show()?;
            let text: Vec<String> = shown.iter().map(ToString::to_string).collect();
            return print(arguments, &serde_json::to_value(&shown)?, text.concat().trim_end());
        }
        ShareCommand::Objects => return show(arguments, &share.objects()?),
        ShareCommand::Export { file, remove } => {
            let after = if *remove { After::Remove } else { After::Keep };
            let count = share.export(file, after)?;
            let text = format!("{count} records in {}", file.display());
            return print(arguments, &serde_json::json!({"records": count}), &text);
        }
        ShareCommand::SendFile { file, rule, sha256 } => {
            let offer = FileOffer { path: file, rule, sha256: *sha256 };
            return match share.give_file(&InstalledRules { config, ports }, offer)? {
                Recorded::Waits(id) => print(arguments, &serde_json::json!({"event": id}), &format!("{id} waits")),
                Recorded::NotAgreed | Recorded::Dropped => Ok(1),
            };
        }
        ShareCommand::Erase { file, batches } => {
            let count = share.erase(file, batches)?;
            let text = format!("{count} batches in {}", file.display());
            return print(arguments, &serde_json::json!({"batches": count}), &text);
        }
        ShareCommand::Send => return send(arguments, &mut share, config, ports),
    }
    show(arguments, &share.state()?)
}

/// Takes in what rules found, if the owner has ever agreed to anything.
pub(crate) fn record(config: &Config, ports: Ports<'_>, findings: &mut Findings) -> Result<(), Failure> {
    if !Share::exists(&config.state) {
        *findings = Findings::default();
        return Ok(());
    }
    open(config, ports)?.record_all(findings)
}

/// Whether what rules find in a scan by hand is to be shared.
pub(crate) fn shares_detections(config: &Config, ports: Ports<'_>) -> Result<bool, Failure> {
    Ok(Share::exists(&config.state) && open(config, ports)?.consent().allows(Class::Detections).is_some())
}

/// Whether anything waits to be sent, without opening it.
pub(crate) fn waits(config: &Config) -> bool {
    let share = config.state.join("share");
    let outbox = std::fs::read_dir(share.join("outbox"));
    config.share.is_some()
        && (outbox.is_ok_and(|mut events| events.next().is_some()) || share.join("batch.json").exists())
}

/// Sends what waits, in the course of `run`. A machine that never agreed has nothing to open.
pub(crate) fn send_in_passing(config: &Config, ports: Ports<'_>) -> Result<(), Failure> {
    let Some(section) = config.share.as_ref().filter(|_| Share::exists(&config.state)) else { return Ok(()) };
    let seal = region_seal(config, section, ports);
    let sending = Sending { intake: &section.intake, seal: &seal, client: ports.client };
    open(config, ports)?.send(sending).map(drop)
}

fn send(arguments: &Arguments, share: &mut Share<'_>, config: &Config, ports: Ports<'_>) -> anyhow::Result<u8> {
    let Some(section) = &config.share else {
        return print(arguments, &serde_json::json!({"outcome": "off"}), "no intake is configured: nothing is sent");
    };
    let seal = region_seal(config, section, ports);
    let sending = Sending { intake: &section.intake, seal: &seal, client: ports.client };
    let outcome = share.send(sending)?;
    let text = match &outcome {
        Outcome::Off => "nothing is sent: the owner did not agree to it".to_owned(),
        Outcome::Sent(count) => format!("{count} batches were sent"),
        Outcome::Later(time) => format!("an earlier try failed; the next one is at {time}"),
    };
    print(arguments, &serde_json::to_value(&outcome)?, &text)
}

fn open<'a>(config: &Config, ports: Ports<'a>) -> Result<Share<'a>, Failure> {
    Share::open(&config.state, share_ports(ports), Bounds::default())
}

fn share_ports(ports: Ports<'_>) -> SharePorts<'_> {
    SharePorts { clock: ports.clock, disk: ports.disk, entropy: &SystemEntropy }
}

fn region_seal<'a>(config: &'a Config, section: &ShareSection, ports: Ports<'a>) -> RegionSeal<'a> {
    RegionSeal { state: &config.state, country: section.country, ports: share_ports(ports) }
}

fn show<T: Serialize + Display>(arguments: &Arguments, value: &T) -> anyhow::Result<u8> {
    print(arguments, &serde_json::to_value(value)?, &value.to_string())
}
