//! Compares the members of two archives: which, in what order, with what headers and what content.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::budget::{Budget, Stop};
use super::compressed::{self, Broken};
use super::walk::{Note, Pair, Walk};
use super::{Cause, Role};

/// An archive taken apart.
pub(super) struct Archive<'b> {
    pub(super) members: Vec<Member<'b>>,
    /// What lies outside every member.
    pub(super) rest: Cow<'b, [u8]>,
}

/// One member.
pub(super) struct Member<'b> {
    pub(super) name: Cow<'b, [u8]>,
    pub(super) body: Body<'b>,
    /// The header's fields, each named once.
    pub(super) facts: Vec<Fact>,
    /// The header itself, for what no fact covers.
    pub(super) header: Cow<'b, [u8]>,
}

/// How a member's content is stored.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Body<'b> {
    Plain(&'b [u8]),
    Deflated(&'b [u8]),
    /// In a way that can't be undone here (zip's method).
    Opaque(u16, &'b [u8]),
    /// An index that the archiver derived from the other members.
    Derived(&'b [u8]),
}

/// One field of a header.
pub(super) struct Fact {
    pub(super) what: &'static str,
    pub(super) cause: Cause,
    pub(super) value: String,
}

impl Fact {
    pub(super) fn new(what: &'static str, cause: Cause, value: impl ToString) -> Self {
        Self { what, cause, value: value.to_string() }
    }
}

/// Why an archive can't be taken apart.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("{0}")]
    Broken(Cow<'static, str>),
    #[error("a limit")]
    Stop(Stop),
}

impl From<Stop> for Unreadable {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

impl From<&'static str> for Unreadable {
    fn from(why: &'static str) -> Self {
        Self::Broken(Cow::Borrowed(why))
    }
}

/// One of the two builds.
#[derive(Clone, Copy)]
pub(super) enum Side {
    Left,
    Right,
}

impl Side {
    pub(super) const fn only(self) -> &'static str {
        match self {
            Self::Left => "only in the first build",
            Self::Right => "only in the second build",
        }
    }
}

/// Findings of one kind are shown once with a count, so that 10,000 wrong times are one line.
type Groups = BTreeMap<(Cause, &'static str), (Vec<u8>, String, String, usize)>;

pub(super) fn compare(walk: &mut Walk<'_>, left: &Archive<'_>, right: &Archive<'_>) -> Result<(), Stop> {
    walk.budget.take_members(left.members.len() + right.members.len())?;
    let matched = Matched::of(&left.members, &right.members);
    matched.report_set(walk);
    matched.report_order(walk);
    let mut groups = Groups::new();
    for (left, right) in &matched.common {
        let facts = compare_facts(&mut groups, left, right);
        let mut differs = facts > 0;
        if left.body != right.body {
            differs = true;
            walk.within(&left.name, |walk| compare_bodies(walk, left.body, right.body));
        }
        if !differs && left.header != right.header {
            let key = (Cause::Metadata, "header encoding");
            group(&mut groups, key, &left.name, (String::new(), String::new()));
        }
    }
    for ((cause, what), (name, left, right, count)) in groups {
        let note = Note::new(cause, what).excerpts(left.as_bytes(), right.as_bytes()).more(count - 1);
        walk.within(&name, |walk| walk.note(note));
    }
    if left.rest != right.rest {
        let padding = left.rest.iter().chain(right.rest.iter()).all(|byte| matches!(byte, 0 | b'\n'));
        let cause = if padding { Cause::Metadata } else { Cause::Content };
        let what = if padding { "padding" } else { "bytes outside the members" };
        walk.note(Note::new(cause, what).excerpts(&left.rest, &right.rest));
    }
    Ok(())
}

/// Which members belong together.
struct Matched<'m, 'b> {
    common: Vec<(&'m Member<'b>, &'m Member<'b>)>,
    /// The same pairs by their place in the second archive.
    places: Vec<usize>,
    renamed: Vec<(&'m Member<'b>, &'m Member<'b>, Cause)>,
    left: Vec<&'m Member<'b>>,
    right: Vec<&'m Member<'b>>,
}

impl<'m, 'b> Matched<'m, 'b> {
    /// Pairs members by name, the n-th of a name with the n-th; then by what a known cause makes of a name.
    fn of(left: &'m [Member<'b>], right: &'m [Member<'b>]) -> Self {
        let mut by_key: BTreeMap<_, _> = keys(right)
            .into_iter()
            .zip(right)
            .enumerate()
            .map(|(place, (key, member))| (key, (place, member)))
            .collect();
        let (mut common, mut places, mut only_left) = (Vec::new(), Vec::new(), Vec::new());
        for (key, member) in keys(left).into_iter().zip(left) {
            match by_key.remove(&key) {
                Some((place, other)) => {
                    common.push((member, other));
                    places.push(place);
                }
                None => only_left.push(member),
            }
        }
        let mut only_right: Vec<_> = by_key.into_values().collect();
        only_right.sort_by_key(|(place, _)| *place);
        let mut only_right: Vec<_> = only_right.into_iter().map(|(_, member)| member).collect();
        let mut renamed = Vec::new();
        type Shape = fn(&[u8]) -> Option<&[u8]>;
        for (shape, cause) in [(packed_stem as Shape, Cause::Compression), (id_stem as Shape, Cause::BuildId)] {
            let mut by_stem = BTreeMap::<&[u8], VecDeque<&Member<'b>>>::new();
            for member in only_right.iter().copied() {
                if let Some(stem) = shape(&member.name) {
                    by_stem.entry(stem).or_default().push_back(member);
                }
            }
            let mut taken = BTreeSet::new();
            only_left.retain(|member| {
                let other = shape(&member.name).and_then(|stem| by_stem.get_mut(stem)).and_then(VecDeque::pop_front);
                let Some(other) = other else { return true };
                taken.insert(std::ptr::from_ref(other));
                renamed.push((*member, other, cause));
                false
            });
            only_right.retain(|member| !taken.contains(&std::ptr::from_ref(*member)));
        }
        common.extend(renamed.iter().map(|(left, right, _)| (*left, *right)));
        Self { common, places, renamed, left: only_left, right: only_right }
    }

    fn report_set(&self, walk: &mut Walk<'_>) {
        for (left, right, cause) in &self.renamed {
            // A build-id in a name follows from the build-id in the file.
            let role = if *cause == Cause::BuildId { Role::Consequence } else { Role::Cause };
            let note = Note::new(*cause, "name").excerpts(&left.name, &right.name).role(role);
            walk.within(&left.name, |walk| walk.note(note));
        }
        for (side, only) in [(Side::Left, &self.left), (Side::Right, &self.right)] {
            for member in only {
                let note = Note::new(Cause::FileSet, format!("member {}", side.only()));
                walk.within(&member.name, |walk| walk.note(note));
            }
        }
    }

    fn report_order(&self, walk: &mut Walk<'_>) {
        if self.places.is_sorted() {
            return;
        }
        let mut sorted: Vec<_> = self.places.iter().zip(&self.common).collect();
        sorted.sort_by_key(|(place, _)| **place);
        let moved: Vec<_> =
            self.common.iter().zip(sorted).filter(|((a, _), (_, (b, _)))| !std::ptr::eq(*a, *b)).collect();
        if let Some(((left, _), (_, (_, right)))) = moved.first() {
            let note = Note::new(Cause::Order, "order of members").excerpts(&left.name, &right.name);
            walk.note(note.more(moved.len() - 1));
        }
    }
}

/// Each member's name and how many of that name came before it.
fn keys<'m>(members: &'m [Member<'_>]) -> Vec<(&'m [u8], usize)> {
    let mut seen = BTreeMap::<&[u8], usize>::new();
    let count = |member: &'m Member<'_>| {
        let count = seen.entry(&member.name).or_default();
        *count += 1;
        (&*member.name, *count)
    };
    members.iter().map(count).collect()
}

/// `data.tar` of `data.tar.xz`: the same member, compressed otherwise.
fn packed_stem(name: &[u8]) -> Option<&[u8]> {
    [".gz", ".xz", ".zst"].iter().find_map(|end| name.strip_suffix(end.as_bytes())).or_else(|| {
        // Debian's packages may hold a plain `data.tar` too.
        name.ends_with(b".tar").then_some(name)
    })
}

/// `usr/lib/debug/.build-id/` of `usr/lib/debug/.build-id/1f/c0ffee.debug`.
fn id_stem(name: &[u8]) -> Option<&[u8]> {
    const FOLDER: &[u8] = b"/.build-id/";
    let at = name.windows(FOLDER.len()).position(|window| window == FOLDER)? + FOLDER.len();
    let (stem, id) = name.split_at_checked(at)?;
    let id = id.strip_suffix(b".debug").or_else(|| id.strip_suffix(b"/")).unwrap_or(id);
    (!id.is_empty() && id.iter().all(|byte| byte.is_ascii_hexdigit() || *byte == b'/')).then_some(stem)
}

fn group(groups: &mut Groups, key: (Cause, &'static str), name: &[u8], (left, right): (String, String)) {
    groups.entry(key).or_insert_with(|| (name.to_owned(), left, right, 0)).3 += 1;
}

/// Groups the facts that differ, and says how many did.
fn compare_facts(groups: &mut Groups, left: &Member<'_>, right: &Member<'_>) -> usize {
    let differing = differing_facts(&left.facts, &right.facts);
    let count = differing.len();
    for (cause, what, left_value, right_value) in differing {
        group(groups, (cause, what), &left.name, (left_value, right_value));
    }
    count
}

/// Facts with other values, or that only one side has.
pub(super) fn differing_facts(left: &[Fact], right: &[Fact]) -> Vec<(Cause, &'static str, String, String)> {
    let value = |facts: &[Fact], what| facts.iter().find(|fact| fact.what == what).map(|fact| fact.value.clone());
    let mut differing = Vec::new();
    for fact in left {
        let other = value(right, fact.what);
        if other.as_ref() != Some(&fact.value) {
            differing.push((fact.cause, fact.what, fact.value.clone(), other.unwrap_or_else(|| "none".to_owned())));
        }
    }
    for fact in right.iter().filter(|fact| value(left, fact.what).is_none()) {
        differing.push((fact.cause, fact.what, "none".to_owned(), fact.value.clone()));
    }
    differing
}

fn compare_bodies(walk: &mut Walk<'_>, left: Body<'_>, right: Body<'_>) {
    if let (Body::Derived(left), Body::Derived(right)) = (left, right) {
        let note = Note::new(Cause::Content, "index of the other members").role(Role::Consequence);
        return walk.note(note.excerpts(left, right));
    }
    match (unpack(left, &walk.budget), unpack(right, &walk.budget)) {
        (Ok(plain_left), Ok(plain_right)) if plain_left == plain_right => {
            let note = Note::new(Cause::Compression, "the same content, compressed otherwise");
            walk.note(note.excerpts(way(left).as_bytes(), way(right).as_bytes()));
        }
        (Ok(left), Ok(right)) => walk.differ(Pair { left: &left, right: &right }),
        (Err(Broken::Stop(stop)), _) | (_, Err(Broken::Stop(stop))) => walk.stop(stop),
        (Err(Broken::Stream(why)), _) | (_, Err(Broken::Stream(why))) => {
            walk.note(Note::new(Cause::Content, format!("compressed bytes ({why})")));
        }
    }
}

fn unpack<'b>(body: Body<'b>, budget: &Budget<'_>) -> Result<Cow<'b, [u8]>, Broken> {
    match body {
        Body::Plain(bytes) | Body::Derived(bytes) => Ok(Cow::Borrowed(bytes)),
        Body::Deflated(bytes) => compressed::inflate(bytes, budget).map(Cow::Owned),
        Body::Opaque(method, _) => Err(Broken::Stream(format!("method {method} is not read here"))),
    }
}

fn way(body: Body<'_>) -> String {
    match body {
        Body::Plain(_) | Body::Derived(_) => "stored".to_owned(),
        Body::Deflated(bytes) => format!("deflate, {} bytes", bytes.len()),
        Body::Opaque(method, bytes) => format!("method {method}, {} bytes", bytes.len()),
    }
}
