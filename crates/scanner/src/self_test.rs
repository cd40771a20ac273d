//! What freshly compiled rules say of two samples, made on the spot.

use std::time::Duration;

use detection::SelfTest;

use crate::content::{Content, Deadline};
use crate::engine::Engine;

/// The namespace of the rule that belongs to the scanner itself. What it finds in files is not reported.
pub(crate) const NAMESPACE: &str = "self-test";

/// The EICAR test file in two halves, so that no scanner takes this program for it.
const EICAR: [&str; 2] = ["X5O!P%@AP[4\\PZX54(P^)7CC)7}", "$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"];

/// Nothing in it is of interest to anybody.
const HARMLESS: &str = "The high row of windows lets daylight into the building.\n";

/// Rules take microseconds for samples of one line; what takes seconds is there to take them.
const TIME_MAX: Duration = Duration::from_secs(3);

/// A rule that finds the EICAR test file.
pub(crate) fn rule() -> String {
    let text = EICAR.concat().replace('\\', "\\\\");
    format!("rule eicar {{ strings: $file = \"{text}\" condition: $file at 0 }}")
}

/// Tests the engine with these rules; an error means that it does not work.
pub(crate) fn run(engine: &Engine) -> Result<SelfTest, String> {
    let eicar = EICAR.concat();
    let found = names(engine, "eicar.com", &eicar)?;
    let harmless = names(engine, "harmless.txt", HARMLESS)?;
    if !engine.finds_itself(eicar.as_bytes(), TIME_MAX) || engine.finds_itself(HARMLESS.as_bytes(), TIME_MAX) {
        return Err(
            "the self-test failed: the engine does not tell the EICAR test file from a harmless text".to_owned()
        );
    }
    Ok(SelfTest { found, harmless })
}

fn names(engine: &Engine, path: &str, text: &str) -> Result<Vec<String>, String> {
    let mut notes = Vec::new();
    let content = Content { path, inside: &[], bytes: text.as_bytes() };
    let matches = engine.clone().scan(&content, &Deadline::after(TIME_MAX), &mut notes);
    match notes.first() {
        Some(note) => Err(format!("the self-test failed: {path}: {}", note.message)),
        None => Ok(matches.into_iter().map(|one| one.rule).collect()),
    }
}
