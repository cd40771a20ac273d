//! `clerestory-token`, asked.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use seal::{AgreedSecret, PublicKey};
use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

use crate::config::TokenSection;

/// 4,096 secrets of 44 characters.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// A token, whose program is started when it is needed, and again when it has ended.
pub(super) struct Token {
    section: TokenSection,
    program: Mutex<Option<Program>>,
}

struct Program {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Key(String),
    Keys { keys: Vec<String>, uses: u64 },
    Secrets(Vec<String>),
    Done,
    Error(String),
}

impl Token {
    pub(super) const fn new(section: TokenSection) -> Self {
        Self { section, program: Mutex::new(None) }
    }

    /// Makes a key on it.
    pub(super) fn generate(&self) -> anyhow::Result<PublicKey> {
        match self.ask(&json!("generate"))? {
            Answer::Key(point) => key(&point),
            _ => bail!("the token's program answers something else"),
        }
    }

    /// The keys on it, and how often any was used, ever.
    pub(super) fn keys(&self) -> anyhow::Result<(Vec<PublicKey>, u64)> {
        match self.ask(&json!("keys"))? {
            Answer::Keys { keys, uses } => Ok((keys.iter().map(|it| key(it)).collect::<Result<_, _>>()?, uses)),
            _ => bail!("the token's program answers something else"),
        }
    }

    /// What `key` and each of these points come to.
    pub(super) fn derive(&self, key: &PublicKey, points: &[Vec<u8>]) -> anyhow::Result<Vec<AgreedSecret>> {
        let points: Vec<String> = points.iter().map(|point| STANDARD.encode(point)).collect();
        let Answer::Secrets(secrets) = self.ask(&json!({"derive": {"key": text(key)?, "points": points}}))? else {
            bail!("the token's program answers something else");
        };
        let secrets: Vec<Zeroizing<String>> = secrets.into_iter().map(Zeroizing::new).collect();
        let agreed = |secret: &Zeroizing<String>| {
            let mut bytes = Zeroizing::new([0; 32]);
            let decoded = STANDARD.decode_slice(secret.as_bytes(), &mut *bytes);
            (decoded == Ok(32)).then(|| AgreedSecret::new(bytes)).context("the token's program gives no secret")
        };
        let agreed: Vec<AgreedSecret> = secrets.iter().map(agreed).collect::<Result<_, _>>()?;
        if agreed.len() == points.len() { Ok(agreed) } else { bail!("the token's program answers for others") }
    }

    /// Destroys a key.
    pub(super) fn destroy(&self, key: &PublicKey) -> anyhow::Result<()> {
        match self.ask(&json!({"destroy": {"key": text(key)?}}))? {
            Answer::Done => Ok(()),
            _ => bail!("the token's program answers something else"),
        }
    }

    fn ask(&self, question: &serde_json::Value) -> anyhow::Result<Answer> {
        let mut held = self.program.lock().unwrap_or_else(PoisonError::into_inner);
        let mut program = match held.take() {
            Some(program) => program,
            None => self.start()?,
        };
        // Whoever breaks off in the middle is started anew.
        let answer = program.exchange(question)?;
        *held = Some(program);
        match answer {
            Answer::Error(error) => bail!("the token refuses: {error}"),
            answer => Ok(answer),
        }
    }

    fn start(&self) -> anyhow::Result<Program> {
        let TokenSection { program, module, label, pin } = &self.section;
        let mut command = Command::new(program);
        command.arg("--module").arg(module).arg("--label").arg(label).arg("--pin").arg(pin);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.with_context(|| format!("can't start `{}`", program.display()))?;
        let pipes = (child.stdin.take(), child.stdout.take());
        let (Some(input), Some(output)) = pipes else { bail!("the token's program has no pipes") };
        Ok(Program { child, input, output: BufReader::new(output) })
    }
}

impl Program {
    fn exchange(&mut self, question: &serde_json::Value) -> anyhow::Result<Answer> {
        const ENDED: &str = "the token's program has ended; what it said stands in this process's log";
        writeln!(self.input, "{question}").and_then(|()| self.input.flush()).context(ENDED)?;
        // As long as it may get: nothing that was read is left behind in memory when it grows.
        let mut line = Zeroizing::new(String::with_capacity(64 << 10));
        (&mut self.output).take(ANSWER_BYTES_MAX).read_line(&mut line).context(ENDED)?;
        if line.is_empty() {
            bail!(ENDED);
        }
        serde_json::from_str(&line).map_err(|_| anyhow::anyhow!("the token's program answers something else"))
    }
}

fn text(key: &PublicKey) -> anyhow::Result<String> {
    Ok(STANDARD.encode(key.point().context("only keys on P-256 are on tokens")?))
}

fn key(point: &str) -> anyhow::Result<PublicKey> {
    Ok(PublicKey::of_point(&STANDARD.decode(point)?)?)
}
