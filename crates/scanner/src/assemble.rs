//! A tree of rules becomes one bundle: the same bytes for everybody who has the same tree and engine.

mod bundle;
mod facts;
mod file;
mod harmless;
mod names;
mod split;

use std::collections::{BTreeMap, BTreeSet};
use std::thread;

use boreal::Compiler;
use boreal::compiler::CompilerParams;
use boreal::statistics::CompiledString;
use detection::{
    Assembled, BUNDLE_BYTES_MAX, Cause, Cost, Index, IndexHead, IndexedRule, Pin, RULES_MAX, Rejected, RejectedFile,
    RulesFile, SETTINGS_FILE, Settings,
};
use stdx::Digest;

use crate::engine::{ENGINE, Engine, compiler, params};

use file::{RulesOfFile, located, read, rejected};
use names::{Named, unknown_rule};

/// The engine's parser has a frame for each operator of a chain, which a rule of
/// [`detection::RULE_BYTES_MAX`] bytes can have as many of: 128 Ki frames of up to 2 KiB.
const STACK_BYTES: usize = 256 << 20;
/// Each time round at least one more file is out. What fails to compile is found in the first, what asked
/// it in the second; wildcards that match nothing any more can need another.
const ROUNDS_MAX: usize = 8;

/// Makes one bundle of the tree's files; what can't be in it is rejected by name and cause. The engine has
/// the bundle's rules, so that it can be tried without being compiled again.
///
/// # Errors
/// If there can be no bundle at all: settings or notice are missing, or it is too large.
pub(crate) fn assemble(files: &[RulesFile]) -> Result<(Assembled, Engine), String> {
    let work = || Tree::read(files)?.assemble();
    thread::scope(|scope| {
        let builder = thread::Builder::new().stack_size(STACK_BYTES);
        let started = builder.spawn_scoped(scope, work).map_err(|error| error.to_string())?;
        started.join().map_err(|_| "the assembler failed".to_owned())?
    })
}

struct Tree {
    settings: Settings,
    recipe: Digest,
    notice: String,
    files: Vec<RulesOfFile>,
    rejected: Vec<Rejected>,
}

impl Tree {
    /// Reads each file alone.
    fn read(files: &[RulesFile]) -> Result<Self, String> {
        let find = |path: &str| files.iter().find(|file| file.path == path).map(|file| file.bytes.as_slice());
        let settings = find(SETTINGS_FILE).ok_or_else(|| format!("there is no {SETTINGS_FILE}"))?;
        let recipe = Digest::of(settings);
        let settings = std::str::from_utf8(settings).map_err(|_| format!("{SETTINGS_FILE} is not UTF-8"))?;
        let settings = Settings::parse(settings).map_err(|error| error.to_string())?;
        let notice = find(settings.notice.as_str()).ok_or_else(|| format!("there is no `{}`", settings.notice))?;
        let notice = bundle::notice(notice)?;
        let mut sources: Vec<&RulesFile> = files.iter().filter(|file| settings.is_source(&file.path)).collect();
        sources.sort_by(|one, other| one.path.cmp(&other.path));
        let mut tree = Self { settings, recipe, notice, files: Vec::new(), rejected: Vec::new() };
        // By one thread: several would wait for each other's memory for longer than it takes.
        for source in sources {
            match read(source, &tree.settings) {
                Ok(file) => tree.files.push(file),
                Err(file) => tree.rejected.push(file),
            }
        }
        let rules: usize = tree.files.iter().map(|file| file.rules.len()).sum();
        if rules > RULES_MAX as usize {
            return Err(format!("{rules} rules, and a bundle has at most {RULES_MAX}"));
        }
        Ok(tree)
    }

    fn assemble(mut self) -> Result<(Assembled, Engine), String> {
        let known: BTreeSet<String> =
            self.files.iter().flat_map(|file| file.rules.iter().map(|rule| rule.facts.name.clone())).collect();
        let known: BTreeSet<&str> = known.iter().map(String::as_str).collect();
        self.rejected.extend(names::duplicates(&self.files));
        let files = std::mem::take(&mut self.files);
        for _ in 0..ROUNDS_MAX {
            let out: BTreeSet<&str> = self.rejected.iter().map(|file| file.file.as_str()).collect();
            let left: Vec<&RulesOfFile> = files.iter().filter(|file| !out.contains(file.path.as_str())).collect();
            let problems = match names::order(&left, &known) {
                Ok(rules) => match compile(&rules) {
                    Ok(compiled) => return self.finish(&rules, compiled),
                    Err(problems) => problems,
                },
                Err(problems) => problems,
            };
            // A file is rejected once, for the first of its problems.
            let first: BTreeMap<String, Rejected> =
                problems.into_iter().rev().map(|problem| (problem.file.clone(), problem)).collect();
            self.rejected.extend(first.into_values());
        }
        Err(format!("after {ROUNDS_MAX} rounds there are still rules that can't be compiled"))
    }

    fn finish(mut self, rules: &[Named<'_>], compiled: Compiled) -> Result<(Assembled, Engine), String> {
        let bundle = bundle::write(&self.settings, &self.notice, rules);
        if bundle.len() as u64 > BUNDLE_BYTES_MAX {
            return Err(format!("the bundle has {} bytes, and at most {BUNDLE_BYTES_MAX} are released", bundle.len()));
        }
        let engine = Engine::finish(compiled.compiler)?;
        let mut broad = fires_on_nothing(&engine)?;
        let mut costs = compiled.costs;
        let indexed = rules.iter().map(|one| {
            let (facts, name) = (&one.rule.facts, one.rule.facts.name.clone());
            IndexedRule {
                file: one.file.path.clone(),
                text: one.rule.pin,
                tags: facts.tags.clone(),
                meta: facts.meta.clone(),
                collects: one.rule.collects.clone(),
                private: facts.private,
                global: facts.global,
                modules: one
                    .file
                    .imports
                    .iter()
                    .copied()
                    .filter(|module| facts.asks.contains(module.as_str()))
                    .collect(),
                uses: one.uses.iter().map(|used| (*used).to_owned()).collect(),
                cost: Cost { gaps: facts.gaps, steps: facts.steps, ..costs.remove(&name).unwrap_or_default() },
                broad: broad.remove(&name).unwrap_or_default(),
                name,
            }
        });
        let indexed = indexed.collect();
        self.rejected.sort();
        let rejected = self.rejected.iter().map(|file| RejectedFile {
            path: file.file.clone(),
            cause: format!("{}: {}", file.cause.as_str(), file.detail),
        });
        let rejected = rejected.collect();
        let head = IndexHead {
            product: self.settings.product,
            engine: ENGINE.to_owned(),
            settings: self.recipe,
            bundle: Pin::of(bundle.as_bytes()),
        };
        let index = Index::new(head, self.rejected, indexed).to_bytes();
        Ok((Assembled { bundle: bundle.into_bytes(), index, rejected }, engine))
    }
}

struct Compiled {
    compiler: Compiler,
    costs: BTreeMap<String, Cost>,
}

/// Compiles the whole, rule by rule, so that a problem has a name.
fn compile(rules: &[Named<'_>]) -> Result<Compiled, Vec<Rejected>> {
    let mut compiler: Compiler = compiler();
    let with_statistics: CompilerParams = params().compute_statistics(true);
    compiler.set_params(with_statistics);
    let (mut problems, mut costs) = (Vec::new(), BTreeMap::new());
    let imports: BTreeSet<&str> =
        rules.iter().flat_map(|one| one.file.imports.iter().map(|module| module.as_str())).collect();
    for name in imports {
        if let Err(error) = compiler.add_rules_str(format!("import \"{name}\"")) {
            let asks = rules.iter().filter(|one| one.file.imports.iter().any(|module| module.as_str() == name));
            problems.extend(asks.map(|one| rejected(&one.file.path, Cause::Import, &error.to_string())));
        }
    }
    let mut missing: BTreeSet<&str> = BTreeSet::new();
    for one in rules {
        let name = one.rule.facts.name.as_str();
        if let Some(asked) = one.uses.iter().find(|asked| missing.contains(*asked)) {
            missing.insert(name);
            problems.push(unknown_rule(one.file, one.rule, asked));
            continue;
        }
        match compiler.add_rules_str(&one.rule.text) {
            Ok(status) => {
                costs.extend(status.statistics().map(|rule| (rule.name.to_string(), cost(&rule.strings))));
            }
            Err(error) => {
                missing.insert(name);
                problems.push(rejected(&one.file.path, Cause::Compile, &located(&error.to_string(), one.rule.line)));
            }
        }
    }
    if problems.is_empty() { Ok(Compiled { compiler, costs }) } else { Err(problems) }
}

fn cost(strings: &[CompiledString]) -> Cost {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let slow = strings.iter().filter(|string| string.literals.is_empty()).map(|string| format!("${}", string.name));
    Cost {
        strings: count(strings.len()),
        literals: count(strings.iter().map(|string| string.literals.len()).sum()),
        atom: strings.iter().flat_map(|string| &string.atoms).map(|atom| count(atom.len())).min(),
        slow: slow.collect(),
        ..Cost::default()
    }
}

/// The rules that fire on the built-in harmless samples, with the samples.
fn fires_on_nothing(engine: &Engine) -> Result<BTreeMap<String, BTreeSet<String>>, String> {
    let mut broad: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (sample, bytes) in harmless::samples() {
        for name in engine.firing(&bytes).map_err(|error| format!("scanning `{sample}`: {error}"))? {
            broad.entry(name.to_owned()).or_default().insert(sample.to_owned());
        }
    }
    Ok(broad)
}
