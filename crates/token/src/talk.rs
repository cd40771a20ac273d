//! Questions and answers, a JSON object a line.

use std::io::{BufRead as _, Read as _, Write as _};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use zeroize::Zeroize as _;

use crate::token::{Point, Token};

/// 4,096 points of 88 characters, and what stands around them.
const LINE_BYTES_MAX: u64 = 1 << 20;

#[derive(Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Question {
    /// Make a key.
    Generate,
    /// Which keys are there?
    Keys,
    /// Agree on a secret with the owner of each point.
    Derive { key: String, points: Vec<String> },
    /// Destroy a key.
    Destroy { key: String },
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Key(String),
    Keys { keys: Vec<String>, uses: u64 },
    Secrets(Vec<String>),
    Done,
    Error(String),
}

/// Answers until nobody asks any more.
pub(crate) fn talk(token: &Token) -> anyhow::Result<()> {
    let mut input = std::io::stdin().lock();
    let mut output = std::io::stdout().lock();
    loop {
        let mut line = String::new();
        (&mut input).take(LINE_BYTES_MAX).read_line(&mut line).context("standard input")?;
        if line.is_empty() {
            return Ok(());
        }
        let mut answer = answer(token, &line).unwrap_or_else(|error| Answer::Error(format!("{error:#}")));
        let mut text = serde_json::to_string(&answer)?;
        text.push('\n');
        output.write_all(text.as_bytes()).and_then(|()| output.flush()).context("standard output")?;
        text.zeroize();
        if let Answer::Secrets(secrets) = &mut answer {
            secrets.iter_mut().for_each(String::zeroize);
        }
    }
}

fn answer(token: &Token, line: &str) -> anyhow::Result<Answer> {
    Ok(match serde_json::from_str(line).context("not a question")? {
        Question::Generate => Answer::Key(text(&token.generate()?)),
        Question::Keys => Answer::Keys { keys: token.keys()?.iter().map(text).collect(), uses: token.uses()? },
        Question::Derive { key, points } => {
            let points = points.iter().map(|it| point(it)).collect::<Result<Vec<_>, _>>()?;
            let secrets = token.derive(&point(&key)?, &points)?;
            Answer::Secrets(secrets.iter().map(|secret| STANDARD.encode(&**secret)).collect())
        }
        Question::Destroy { key } => {
            token.destroy(&point(&key)?)?;
            Answer::Done
        }
    })
}

fn text(point: &Point) -> String {
    STANDARD.encode(point.bytes())
}

fn point(text: &str) -> anyhow::Result<Point> {
    Point::new(STANDARD.decode(text).context("a point that is not base64")?)
}
