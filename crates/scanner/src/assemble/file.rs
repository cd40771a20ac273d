//! One file of a tree, alone: is it rules, and which?

use std::collections::BTreeSet;

use detection::{
    Cause, FILE_BYTES_MAX, Module, Pin, RULE_BYTES_MAX, Rejected, RulesFile, Settings, hidden_character, visible,
};

use super::facts::Facts;
use super::split::{Item, split};

/// How files of compiled rules begin.
const COMPILED: &[u8] = b"YARA";
/// Where people may allow a slow condition, and none that never ends: a loop over the bytes of a file, or
/// 16 loops of a thousand. The slowest real condition goes round a thousand times.
const STEPS_MAX: u64 = 1 << 24;
/// Longest detail that is kept of the engine's words, in characters.
const DETAIL_CHARACTERS_MAX: usize = 300;

/// A rule of a file.
#[derive(Clone, Debug)]
pub(super) struct FileRule {
    pub(super) text: String,
    pub(super) pin: Pin,
    /// The line of the file that it begins on, from 1.
    pub(super) line: usize,
    pub(super) facts: Facts,
    pub(super) collects: Option<String>,
}

/// A file that is rules, as far as it can be seen alone.
#[derive(Clone, Debug)]
pub(super) struct RulesOfFile {
    pub(super) path: String,
    pub(super) imports: BTreeSet<Module>,
    pub(super) rules: Vec<FileRule>,
}

/// Why a file stays out.
pub(super) fn rejected(path: &str, cause: Cause, detail: &str) -> Rejected {
    let detail = visible(detail).chars().take(DETAIL_CHARACTERS_MAX).collect();
    Rejected { file: path.to_owned(), cause, detail }
}

/// Reads one file.
pub(super) fn read(file: &RulesFile, settings: &Settings) -> Result<RulesOfFile, Rejected> {
    let reject = |cause, detail: &str| rejected(&file.path, cause, detail);
    if file.bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(reject(Cause::FileTooLarge, &format!("more than {FILE_BYTES_MAX} bytes")));
    }
    if file.bytes.starts_with(COMPILED) {
        return Err(reject(Cause::Compiled, "rules are source, never compiled"));
    }
    let text = std::str::from_utf8(&file.bytes)
        .map_err(|error| reject(Cause::NotText, &format!("byte {} is not UTF-8", error.valid_up_to())))?;
    // Windows' ends of lines. A carriage return elsewhere would hide what stands before it.
    let text = text.replace("\r\n", "\n");
    let at_line = |at: usize| text.get(..at).unwrap_or_default().matches('\n').count().saturating_add(1);
    let hidden = hidden_character(&text).or_else(|| text.find('\r').map(|at| (at, '\r')));
    if let Some((at, character)) = hidden {
        let detail = format!("{}: U+{:04X} is not to be seen", at_line(at), u32::from(character));
        return Err(reject(Cause::HiddenCharacter, &detail));
    }
    let items =
        split(&text).map_err(|stopped| reject(Cause::Syntax, &format!("{}: {}", at_line(stopped.at), stopped.why)))?;
    let mut found = RulesOfFile { path: file.path.clone(), imports: BTreeSet::new(), rules: Vec::new() };
    // Lines are counted on the way: files have thousands of rules.
    let (mut counted, mut line) = (0, 1_usize);
    for item in items {
        match item {
            Item::Include(at) => {
                return Err(reject(Cause::Include, &format!("{}: rules come from the tree alone", at_line(at))));
            }
            Item::Import(name) => {
                let module = settings.imports.iter().find(|module| module.as_str() == name);
                let Some(module) = module else {
                    return Err(reject(Cause::Import, &format!("`{name}` is not among the imports of rules.toml")));
                };
                found.imports.insert(*module);
            }
            Item::Rule(span) => {
                line = line.saturating_add(text.get(counted..span.start).unwrap_or_default().matches('\n').count());
                counted = span.start;
                let rule =
                    rule(text.get(span).unwrap_or_default(), line).map_err(|(cause, detail)| reject(cause, &detail))?;
                found.rules.push(rule);
            }
        }
    }
    check_modules(&found).map_err(|(cause, detail)| reject(cause, &detail))?;
    Ok(found)
}

fn rule(text: &str, line: usize) -> Result<FileRule, (Cause, String)> {
    if text.len() > RULE_BYTES_MAX as usize {
        let detail = format!("{line}: a rule of {} bytes, and at most {RULE_BYTES_MAX} are read", text.len());
        return Err((Cause::RuleTooLarge, detail));
    }
    let file = boreal_parser::parse(text).map_err(|error| {
        let message = boreal::compiler::generate_description(&error.to_diagnostic(), "", text);
        (Cause::Syntax, located(&message, line))
    })?;
    let mut components = file.components.into_iter();
    let (Some(boreal_parser::file::YaraFileComponent::Rule(rule)), None) = (components.next(), components.next())
    else {
        return Err((Cause::Syntax, format!("{line}: the engine does not read this as one rule")));
    };
    let facts = Facts::of(*rule);
    if facts.steps > STEPS_MAX {
        let detail =
            format!("{line}: its condition may go round {} times, and at most {STEPS_MAX} are tried", facts.steps);
        return Err((Cause::Endless, detail));
    }
    let collects = collects(&facts).map_err(|detail| (Cause::Collects, format!("{line}: {detail}")))?;
    Ok(FileRule { text: text.to_owned(), pin: Pin::of(text.as_bytes()), line, facts, collects })
}

/// The engine's `NAME:LINE:COLUMN: error: WORDS`, with the line in the file.
pub(super) fn located(message: &str, line: usize) -> String {
    let mut parts = message.splitn(4, ':');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(_), Some(inner), Some(_), Some(words)) if inner.parse::<usize>().is_ok() => {
            let inner: usize = inner.parse().unwrap_or(1);
            let words = words.trim().trim_start_matches("error: ");
            format!("{}: {words}", line.saturating_add(inner).saturating_sub(1))
        }
        _ => format!("{line}: {}", message.trim().trim_start_matches("error: ")),
    }
}

/// The class of data that a rule declares to collect: one name, once.
fn collects(facts: &Facts) -> Result<Option<String>, &'static str> {
    let mut declared = facts.meta.iter().filter(|(name, _)| name.eq_ignore_ascii_case("collects"));
    let Some((name, value)) = declared.next() else { return Ok(None) };
    let detection::MetaValue::Text(class) = value else { return Err("`collects` is not a text") };
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if declared.next().is_some() || name != "collects" || !(1..=64).contains(&class.len()) || !class.bytes().all(plain)
    {
        return Err("`collects` stands once, and is a name of small letters, digits and `-`");
    }
    Ok(Some(class.clone()))
}

/// In the bundle every rule sees every import, so that a rule's own file has to have those it asks.
fn check_modules(file: &RulesOfFile) -> Result<(), (Cause, String)> {
    for rule in &file.rules {
        let missing = Module::ALL
            .iter()
            .find(|module| rule.facts.asks.contains(module.as_str()) && !file.imports.contains(module));
        if let Some(module) = missing {
            let detail = format!("{}: unknown identifier `{}`, which is not imported", rule.line, module.as_str());
            return Err((Cause::Compile, detail));
        }
    }
    Ok(())
}
