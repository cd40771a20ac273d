//! The bytes of a bundle.

use std::collections::BTreeSet;

use detection::{BUNDLE_FORMAT, Module, Settings, hidden_character};

use super::names::Named;

/// The bundle of these rules: a comment with the notice, the imports, the rules.
pub(super) fn write(settings: &Settings, notice: &str, rules: &[Named<'_>]) -> String {
    let length: usize = rules.iter().map(|one| one.rule.text.len() + 2).sum();
    let mut bundle = String::with_capacity(length + notice.len() + 1_000);
    let mut line = |text: &str| {
        bundle.push_str(text.trim_end());
        bundle.push('\n');
    };
    line(&format!("// {BUNDLE_FORMAT}"));
    line(&format!("// product: {}", settings.product));
    line("//");
    for text in notice.lines() {
        line(&format!("// {text}"));
    }
    line("");
    let imports: BTreeSet<Module> = rules.iter().flat_map(|one| one.file.imports.iter().copied()).collect();
    for module in &imports {
        line(&format!("import \"{}\"", module.as_str()));
    }
    for one in rules {
        bundle.push('\n');
        bundle.push_str(&one.rule.text);
        bundle.push('\n');
    }
    bundle
}

/// The notice's text, as it stands in a bundle.
pub(super) fn notice(bytes: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "the notice is not UTF-8".to_owned())?;
    let text = text.replace("\r\n", "\n");
    match hidden_character(&text) {
        None if !text.contains('\r') => Ok(text),
        _ => Err("the notice has characters that are not to be seen".to_owned()),
    }
}
