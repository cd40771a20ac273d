//! What a rule says of itself, from the engine's syntax tree.

use std::collections::BTreeSet;

use boreal_parser::expression::{
    Expression, ExpressionKind, ForIterator, ForSelection, Identifier, IdentifierOperationType,
};
use boreal_parser::hex_string::Token;
use boreal_parser::regex::{Node, RepetitionKind, RepetitionRange};
use boreal_parser::rule::{MetadataValue, Rule, VariableDeclarationValue};
use detection::MetaValue;

/// How often a loop is taken to go round whose bounds are not known: matches of a string, sections.
const UNKNOWN_STEPS: u64 = 1_000;
/// And one that goes over the bytes of a file.
const FILE_STEPS: u64 = 1 << 20;

/// What a rule says of itself.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) name: String,
    pub(super) tags: Vec<String>,
    pub(super) meta: Vec<(String, MetaValue)>,
    pub(super) private: bool,
    pub(super) global: bool,
    /// Names that its condition asks: modules, rules, externals, and the variables of its own loops.
    pub(super) asks: BTreeSet<String>,
    /// Beginnings of rules' names that its condition asks for.
    pub(super) asks_all: BTreeSet<String>,
    /// The most unbounded gaps in one of its strings.
    pub(super) gaps: u32,
    /// How often its innermost expression is evaluated at most.
    pub(super) steps: u64,
}

impl Facts {
    pub(super) fn of(rule: Rule) -> Self {
        let mut facts = Self {
            name: rule.name,
            tags: rule.tags.into_iter().map(|tag| tag.tag).collect(),
            meta: rule.metadatas.into_iter().map(|meta| (meta.name, value(meta.value))).collect(),
            private: rule.is_private,
            global: rule.is_global,
            asks: BTreeSet::new(),
            asks_all: BTreeSet::new(),
            gaps: 0,
            steps: 1,
        };
        for variable in &rule.variables {
            let gaps = match &variable.value {
                VariableDeclarationValue::Bytes(_) => 0,
                VariableDeclarationValue::Regex(regex) => regex_gaps(&regex.ast),
                VariableDeclarationValue::HexString(tokens) => hex_gaps(tokens),
            };
            facts.gaps = facts.gaps.max(gaps);
        }
        facts.walk(&rule.condition, 1);
        facts
    }

    /// `steps` is how often this expression is evaluated.
    fn walk(&mut self, expression: &Expression, steps: u64) {
        use ExpressionKind as Kind;
        self.steps = self.steps.max(steps);
        match &expression.expr {
            Kind::Filesize
            | Kind::Entrypoint
            | Kind::Integer(_)
            | Kind::Double(_)
            | Kind::Count(_)
            | Kind::Boolean(_)
            | Kind::Variable(_)
            | Kind::Bytes(_) => {}
            Kind::Regex(regex) => self.gaps = self.gaps.max(regex_gaps(&regex.ast)),
            Kind::ReadInteger { addr: one, .. }
            | Kind::Neg(one)
            | Kind::BitwiseNot(one)
            | Kind::Not(one)
            | Kind::Defined(one)
            | Kind::Offset { occurence_number: one, .. }
            | Kind::Length { occurence_number: one, .. }
            | Kind::VariableAt { offset: one, .. } => self.walk(one, steps),
            Kind::Matches(one, regex) => {
                self.gaps = self.gaps.max(regex_gaps(&regex.ast));
                self.walk(one, steps);
            }
            Kind::Add(left, right)
            | Kind::Sub(left, right)
            | Kind::Mul(left, right)
            | Kind::Div(left, right)
            | Kind::Mod(left, right)
            | Kind::BitwiseXor(left, right)
            | Kind::BitwiseAnd(left, right)
            | Kind::BitwiseOr(left, right)
            | Kind::ShiftLeft(left, right)
            | Kind::ShiftRight(left, right)
            | Kind::Eq(left, right)
            | Kind::NotEq(left, right)
            | Kind::IEquals(left, right)
            | Kind::Cmp { left, right, .. }
            | Kind::Contains { haystack: left, needle: right, .. }
            | Kind::StartsWith { expr: left, prefix: right, .. }
            | Kind::EndsWith { expr: left, suffix: right, .. }
            | Kind::CountInRange { from: left, to: right, .. }
            | Kind::VariableIn { from: left, to: right, .. } => {
                self.walk(left, steps);
                self.walk(right, steps);
            }
            Kind::And(all) | Kind::Or(all) => all.iter().for_each(|one| self.walk(one, steps)),
            Kind::Identifier(identifier) => self.identifier(identifier, steps),
            _ => self.walk_loop(&expression.expr, steps),
        }
    }

    fn walk_loop(&mut self, kind: &ExpressionKind, steps: u64) {
        use ExpressionKind as Kind;
        match kind {
            Kind::For { selection, body, set } => {
                self.selection(selection, steps);
                let rounds = if set.elements.is_empty() { UNKNOWN_STEPS } else { set.elements.len() as u64 };
                if let Some(body) = body {
                    self.walk(body, steps.saturating_mul(rounds));
                }
            }
            Kind::ForIn { selection, from, to, .. } => {
                self.selection(selection, steps);
                self.walk(from, steps);
                self.walk(to, steps);
            }
            Kind::ForAt { selection, offset, .. } => {
                self.selection(selection, steps);
                self.walk(offset, steps);
            }
            Kind::ForIdentifiers { selection, iterator, body, .. } => {
                self.selection(selection, steps);
                let rounds = self.iterator(iterator, steps);
                self.walk(body, steps.saturating_mul(rounds));
            }
            Kind::ForRules { selection, set } => {
                self.selection(selection, steps);
                for element in &set.elements {
                    let names = if element.is_wildcard { &mut self.asks_all } else { &mut self.asks };
                    names.insert(element.name.clone());
                }
            }
            _ => {}
        }
    }

    /// How often it goes round.
    fn iterator(&mut self, iterator: &ForIterator, steps: u64) -> u64 {
        match iterator {
            ForIterator::Identifier(identifier) => {
                self.identifier(identifier, steps);
                UNKNOWN_STEPS
            }
            ForIterator::Range { from, to } => {
                self.walk(from, steps);
                self.walk(to, steps);
                match (&from.expr, &to.expr) {
                    (ExpressionKind::Integer(from), ExpressionKind::Integer(to)) => {
                        to.abs_diff(*from).saturating_add(1)
                    }
                    (_, to) if asks_filesize(to) => FILE_STEPS,
                    _ => UNKNOWN_STEPS,
                }
            }
            ForIterator::List(all) => {
                all.iter().for_each(|one| self.walk(one, steps));
                all.len() as u64
            }
        }
    }

    fn selection(&mut self, selection: &ForSelection, steps: u64) {
        if let ForSelection::Expr { expr, .. } = selection {
            self.walk(expr, steps);
        }
    }

    fn identifier(&mut self, identifier: &Identifier, steps: u64) {
        self.asks.insert(identifier.name.clone());
        for operation in &identifier.operations {
            match &operation.op {
                IdentifierOperationType::Subscript(one) => self.walk(one, steps),
                IdentifierOperationType::Subfield(_) => {}
                IdentifierOperationType::FunctionCall(all) => all.iter().for_each(|one| self.walk(one, steps)),
            }
        }
    }
}

fn value(value: MetadataValue) -> MetaValue {
    match value {
        MetadataValue::Boolean(value) => MetaValue::Boolean(value),
        MetadataValue::Integer(value) => MetaValue::Integer(value),
        MetadataValue::Bytes(bytes) => MetaValue::Text(String::from_utf8_lossy(&bytes).into_owned()),
    }
}

/// `filesize`, or arithmetic with it.
fn asks_filesize(kind: &ExpressionKind) -> bool {
    match kind {
        ExpressionKind::Filesize => true,
        ExpressionKind::Add(left, right)
        | ExpressionKind::Sub(left, right)
        | ExpressionKind::Mul(left, right)
        | ExpressionKind::Div(left, right) => asks_filesize(&left.expr) || asks_filesize(&right.expr),
        _ => false,
    }
}

/// How many parts of the expression may be as long as they like.
fn regex_gaps(node: &Node) -> u32 {
    match node {
        Node::Alternation(all) => all.iter().map(regex_gaps).max().unwrap_or_default(),
        Node::Concat(all) => all.iter().map(regex_gaps).fold(0, u32::saturating_add),
        Node::Group(node) => regex_gaps(node),
        Node::Repetition { node, kind, .. } => {
            let inside = regex_gaps(node);
            match kind {
                RepetitionKind::ZeroOrMore
                | RepetitionKind::OneOrMore
                | RepetitionKind::Range(RepetitionRange::AtLeast(_)) => inside.saturating_mul(2).saturating_add(1),
                RepetitionKind::ZeroOrOne | RepetitionKind::Range(_) => inside,
            }
        }
        _ => 0,
    }
}

fn hex_gaps(tokens: &[Token]) -> u32 {
    let gaps = tokens.iter().map(|token| match token {
        Token::Jump(jump) if jump.to.is_none() => 1,
        Token::Alternatives(all) => all.iter().map(|tokens| hex_gaps(tokens)).max().unwrap_or_default(),
        _ => 0,
    });
    gaps.fold(0, u32::saturating_add)
}
