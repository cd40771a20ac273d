//! The engine: rules compiled, and asked about bytes.

use std::collections::BTreeSet;
use std::time::Duration;

use boreal::MetadataValue;
use boreal::compiler::CompilerParams;
use boreal::scanner::{EvaluatedRule, ScanError, ScanParams};
use boreal::{Compiler, Scanner};
use detection::{Declared, Match, MetaValue, Note, NoteCode, StringHit};

use crate::content::{Content, Deadline};
use crate::self_test;

/// What rules may ask about a file beside its content. Rules of the field's collections use these
/// names (they come from the scanners LOKI and THOR) and do not compile without them.
const EXTERNALS: [&str; 5] = ["filename", "filepath", "extension", "filetype", "owner"];

/// The engine's identity: builders that agree on a bundle had this one. A test compares it with `Cargo.lock`.
pub(crate) const ENGINE: &str = "boreal 1.4.0 authenticode hash object";

/// The namespace of the bundle's rules; the self-test's rule is alone in its own.
const BUNDLE: &str = "default";

/// For one match of a rule. With 7,000 rules that all match, an answer stays below 4 MB.
const STRINGS_MAX: usize = 8;

/// Of one string of a rule.
const HITS_MAX: usize = 2;

/// Rules that match one content, at most: more says nothing more.
const MATCHES_MAX: usize = 1_000;

/// Compiled rules. A copy shares them, and has its own externals.
#[derive(Clone, Debug)]
pub(crate) struct Engine {
    scanner: Scanner,
}

impl Engine {
    /// Compiles a bundle.
    pub(crate) fn compile(bundle: &str) -> Result<Self, String> {
        let mut compiler = compiler();
        compiler.add_rules_str_in_namespace(bundle, BUNDLE).map_err(|error| error.to_string())?;
        Self::finish(compiler)
    }

    /// With the rules of a bundle that `compiler` has, each added by itself.
    pub(crate) fn finish(mut compiler: Compiler) -> Result<Self, String> {
        let own = self_test::rule();
        compiler.add_rules_str_in_namespace(own, self_test::NAMESPACE).map_err(|error| error.to_string())?;
        Ok(Self { scanner: compiler.finalize() })
    }

    /// How many rules the bundle has.
    pub(crate) fn rules(&self) -> impl Iterator<Item = &str> {
        self.scanner.rules().filter(|rule| rule.namespace == BUNDLE).map(|rule| rule.name)
    }

    /// What a rule of the bundle says of itself.
    pub(crate) fn declared(&self, name: &str) -> Option<Declared> {
        let rule = self.scanner.rules().find(|rule| rule.namespace == BUNDLE && rule.name == name)?;
        let value = |value: &MetadataValue| match value {
            MetadataValue::Bytes(text) => {
                MetaValue::Text(String::from_utf8_lossy(self.scanner.get_bytes_symbol(*text)).into_owned())
            }
            MetadataValue::Integer(value) => MetaValue::Integer(*value),
            MetadataValue::Boolean(value) => MetaValue::Boolean(*value),
        };
        let text = |symbol| self.scanner.get_string_symbol(symbol).to_owned();
        Some(Declared {
            rule: name.to_owned(),
            tags: rule.tags.iter().map(|tag| text(*tag)).collect(),
            meta: rule.metadatas.iter().map(|meta| (text(meta.name), value(&meta.value))).collect(),
        })
    }

    /// The rules of the bundle that fire on `bytes`, of which nothing else is known.
    pub(crate) fn firing(&self, bytes: &[u8]) -> Result<Vec<&str>, String> {
        let mut scanner = self.scanner.clone();
        scanner.set_scan_params(ScanParams::default().compute_full_matches(false));
        let names = match scanner.scan_mem(bytes) {
            Ok(result) => {
                let rules = result.rules.iter().filter(|rule| rule.namespace == BUNDLE);
                rules.map(|rule| rule.name.to_owned()).collect::<BTreeSet<_>>()
            }
            Err((error, _)) => return Err(error.to_string()),
        };
        Ok(self.rules().filter(|name| names.contains(*name)).collect())
    }

    /// Whether the self-test's own rule finds `bytes`.
    pub(crate) fn finds_itself(&self, bytes: &[u8], time: Duration) -> bool {
        let mut scanner = self.scanner.clone();
        scanner.set_scan_params(ScanParams::default().timeout_duration(Some(time)));
        let result = scanner.scan_mem(bytes);
        result.is_ok_and(|result| result.rules.iter().any(|rule| rule.namespace == self_test::NAMESPACE))
    }

    /// Asks all rules about `content`; notes what was not done.
    pub(crate) fn scan(&mut self, content: &Content<'_>, deadline: &Deadline, notes: &mut Vec<Note>) -> Vec<Match> {
        self.describe(content);
        // Whether a rule matches is found out sooner than where, and most files match nothing.
        let (found, complete) = self.ask(content, deadline, Effort::Verdict);
        let (matches, complete) = match complete {
            Ok(()) if found.is_empty() => return found,
            Ok(()) => self.ask(content, deadline, Effort::Places),
            Err(error) => (found, Err(error)),
        };
        if let Err((code, message)) = complete {
            notes.push(content.note(code, message));
        }
        matches
    }

    fn ask(
        &mut self,
        content: &Content<'_>,
        deadline: &Deadline,
        effort: Effort,
    ) -> (Vec<Match>, Result<(), (NoteCode, String)>) {
        let Some(left) = deadline.left() else { return (Vec::new(), Err(timeout())) };
        let params = ScanParams::default()
            // Where a string was found is enough; what it was stays in the file.
            .match_max_length(0)
            .timeout_duration(Some(left))
            .compute_full_matches(effort == Effort::Places);
        self.scanner.set_scan_params(params);
        let (result, complete) = match self.scanner.scan_mem(content.bytes) {
            Ok(result) => (result, Ok(())),
            Err((ScanError::Timeout, result)) => (result, Err(timeout())),
            Err((error, result)) => (result, Err((NoteCode::Engine, error.to_string()))),
        };
        let rules = result.rules.iter().filter(|rule| rule.namespace == BUNDLE);
        (rules.take(MATCHES_MAX).map(|rule| self.describe_match(content, rule)).collect(), complete)
    }

    fn describe(&mut self, content: &Content<'_>) {
        let path = content.full_name();
        let name = path.rsplit(['/', '\\']).next().unwrap_or(path);
        let extension = name.rfind('.').and_then(|at| name.get(at..)).unwrap_or_default();
        for (external, value) in EXTERNALS.iter().zip([name, path, extension, kind(content.bytes), ""]) {
            let _ = self.scanner.define_symbol(*external, value);
        }
    }

    fn describe_match(&self, content: &Content<'_>, rule: &EvaluatedRule<'_>) -> Match {
        let mut strings = Vec::new();
        for string in rule.matches.iter().filter(|string| !string.matches.is_empty()).take(STRINGS_MAX) {
            for hit in string.matches.iter().take(HITS_MAX) {
                let (offset, length) = (hit.offset as u64, hit.length as u64);
                strings.push(StringHit { name: string.name.to_owned(), offset, length });
            }
        }
        let tags = rule.tags.iter().map(|tag| self.scanner.get_string_symbol(*tag).to_owned()).collect();
        Match { rule: rule.name.to_owned(), tags, inside: content.inside.to_vec(), strings }
    }
}

/// What a scan is to find out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effort {
    /// Which rules match.
    Verdict,
    /// And where.
    Places,
}

/// Has the engine's libraries ask the system what they ask once, and could not ask any more when this
/// process is confined: how many processors there are, at the first expression without a literal.
pub(crate) fn prepare() {
    // Our own text; were it refused, the first such rule would end the child, which is told.
    let _ = compiler().add_rules_str("rule prepare { strings: $a = /^[0-9]+$/ condition: $a }");
}

/// What the engine is told before it compiles anything. Its limits on depth are its own: 50 expressions
/// within each other, 40 in a condition, 30 groups in a pattern.
pub(crate) fn params() -> CompilerParams {
    CompilerParams::default().disable_includes(true).disable_unknown_escape_warning(true)
}

/// The engine as every bundle and every file of a tree is compiled with it.
pub(crate) fn compiler() -> Compiler {
    let mut compiler = Compiler::new();
    compiler.set_params(params());
    for external in EXTERNALS {
        compiler.define_symbol(external, "");
    }
    compiler
}

fn timeout() -> (NoteCode, String) {
    (NoteCode::Timeout, "it takes longer than is allowed".to_owned())
}

/// `filetype` as far as rules use it.
fn kind(bytes: &[u8]) -> &'static str {
    match bytes {
        [b'M', b'Z', ..] => "EXE",
        [0x7f, b'E', b'L', b'F', ..] => "ELF",
        [b'P', b'K', 3, 4, ..] => "ZIP",
        [b'%', b'P', b'D', b'F', ..] => "PDF",
        _ => "",
    }
}
