//! `clerestory data query`: reads what was asked for and approved.

use std::io::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use api::{DataQuery, Parameter, Parameters, ResultEnd, ResultFormat, ResultPiece, ResultReader};
use attest::StatementId;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use policy::Role;
use stdx::{Digest, Hasher};

use super::ask::{Asker, Common, private, text};
use crate::command::Output;
use crate::failure::Failure;

/// As long as the longest lease that makes sense.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Arguments of `data query`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    common: Common,
    /// The request; your own, unless `--template` is given
    request: StatementId,
    /// How the result is written [default: table, with `--json` json]
    #[arg(long, value_enum)]
    format: Option<FormatArgument>,
    /// The request is somebody else's, which stands for several readers: who you are
    #[arg(long, value_name = "NAME")]
    template: Option<String>,
    /// A value for `$NAME` in the query: `yes`/`no` words stay text, `true`, `false` and whole numbers don't, unless
    /// they stand in double quotes; may be given several times
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = parameter)]
    parameters: Vec<(String, Parameter)>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FormatArgument {
    /// For people
    Table,
    /// One object a line
    Json,
    /// With a line of names
    Csv,
    /// An Arrow IPC stream
    Arrow,
}

fn parameter(text: &str) -> Result<(String, Parameter), String> {
    let (name, value) = text.split_once('=').ok_or("it reads NAME=VALUE")?;
    let parsed = serde_json::from_str(value).unwrap_or_else(|_| Parameter::Text(value.to_owned()));
    Ok((name.to_owned(), parsed))
}

fn format(arguments: &Arguments, output: Output) -> ResultFormat {
    match (arguments.format, output) {
        (Some(FormatArgument::Table), _) | (None, Output::Text) => ResultFormat::Table,
        (Some(FormatArgument::Json), _) | (None, Output::Json) => ResultFormat::Json,
        (Some(FormatArgument::Csv), _) => ResultFormat::Csv,
        (Some(FormatArgument::Arrow), _) => ResultFormat::Arrow,
    }
}

pub(super) fn run(arguments: &Arguments, output: Output) -> anyhow::Result<()> {
    let asker = Asker::open(&arguments.common, Role::Reader)?;
    let (state, statement) = asker.public(arguments.request)?;
    if let Some((who, count)) = state.missing.first() {
        let message = format!("request {}: {count} approval(s) of `{who}` missing", arguments.request);
        return Err(Failure::refused(message).hint("`clerestory data approve` is theirs").into());
    }
    let mut openings = Vec::new();
    let reader = match &arguments.template {
        None => statement.predicate.reader,
        Some(name) => {
            let reader = private("reader", name)?;
            openings.push(reader.clone());
            reader.commitment()
        }
    };
    let values: Parameters = arguments.parameters.iter().cloned().collect();
    let parameters =
        if values.is_empty() { None } else { Some(private("parameters", &serde_json::to_string(&values)?)?) };
    openings.extend(parameters.clone());
    let parameters = parameters.map(|it| it.commitment());
    let call = text(&asker.call(&statement, arguments.request, reader, parameters)?)?;
    let progress = ProgressBar::new_spinner().with_style(ProgressStyle::with_template("{spinner} {msg} {bytes}")?);
    progress.set_message("announced, opened and read:");
    progress.enable_steady_tick(Duration::from_millis(120));
    let query = DataQuery { call, openings, format: format(arguments, output) };
    let end = print(ResultReader::new(asker.query(&query, PATIENCE)?), &progress);
    progress.finish_and_clear();
    let end = end?;
    let (rows, bytes, workers) = (end.rows, end.bytes, end.workers);
    tracing::info!(data.rows = rows, data.bytes = bytes, data.workers = workers, "read; the outcome is in the log");
    if end.unreadable > 0 {
        let objects = end.unreadable;
        tracing::warn!(data.objects = objects, "not in it: what endpoints have sealed so that nobody can read it");
    }
    Ok(())
}

/// Writes what comes to standard output; it must be what the end says.
fn print(mut source: ResultReader<Box<dyn std::io::Read>>, progress: &ProgressBar) -> anyhow::Result<ResultEnd> {
    let (mut bytes, mut hasher) = (0, Hasher::default());
    let mut stdout = std::io::stdout().lock();
    loop {
        match source.piece().context("the result was cut off; what came is not all of it")? {
            ResultPiece::Bytes(piece) => {
                stdout.write_all(&piece).context("can't write to standard output")?;
                hasher.update(&piece);
                bytes += piece.len() as u64;
                progress.set_position(bytes);
            }
            ResultPiece::End(end) => {
                stdout.flush().context("can't write to standard output")?;
                if let Some(why) = end.failed {
                    let failure = Failure::refused(format!("what came is not all of it: {}", why.message));
                    return Err(why.hint.into_iter().fold(failure, Failure::hint).into());
                }
                return check(end, bytes, hasher.finish());
            }
        }
    }
}

fn check(end: ResultEnd, bytes: u64, sha256: Digest) -> anyhow::Result<ResultEnd> {
    if end.bytes == bytes && end.sha256 == sha256 {
        return Ok(end);
    }
    Err(Failure::refused("what came is not what the worker has written").into())
}
