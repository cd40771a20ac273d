//! What endpoints have reported of files, counted: as much as no event alone tells.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use stdx::{Digest, UnixTime};

/// Files that are remembered: some 300 bytes each.
pub const FILES_MAX: usize = 1 << 20;

/// What events say of a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Said {
    /// Nothing is known of it.
    Nothing,
    /// It is known to be malicious: a verdict of ours that comes back.
    Echo,
    /// This rule found something in it.
    Rule(String),
}

/// So many events say the same of one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// The file's content.
    pub sha256: Digest,
    /// What they say.
    pub said: Said,
    /// The country that their senders name.
    pub country: String,
    /// When the intake had them.
    pub taken: UnixTime,
    /// How many.
    pub events: u64,
}

/// What was said of one file, in one way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counted {
    /// The first time.
    pub first: UnixTime,
    /// The last time.
    pub last: UnixTime,
    /// Events by the country that their senders name.
    pub countries: BTreeMap<String, u64>,
}

impl Counted {
    /// How many events.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.countries.values().fold(0, |sum, events| sum.saturating_add(*events))
    }
}

/// What was said of files, as far as it is remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct History(BTreeMap<Digest, BTreeMap<Key, Counted>>);

/// [`Said`] as a key of JSON.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", from = "String")]
struct Key(Said);

impl From<Key> for String {
    fn from(Key(said): Key) -> Self {
        match said {
            Said::Nothing => "nothing".to_owned(),
            Said::Echo => "echo".to_owned(),
            Said::Rule(name) => format!("rule {name}"),
        }
    }
}

impl From<String> for Key {
    fn from(text: String) -> Self {
        Self(match text.strip_prefix("rule ") {
            Some(name) => Said::Rule(name.to_owned()),
            None if text == "echo" => Said::Echo,
            None => Said::Nothing,
        })
    }
}

impl History {
    /// Takes in what was reported. The order makes no difference.
    pub fn absorb(&mut self, reports: impl IntoIterator<Item = Report>) {
        for Report { sha256, said, country, taken, events } in reports {
            let said = self.0.entry(sha256).or_default().entry(Key(said));
            let counted = said.or_insert_with(|| Counted { first: taken, last: taken, countries: BTreeMap::new() });
            counted.first = counted.first.min(taken);
            counted.last = counted.last.max(taken);
            let of_country = counted.countries.entry(country).or_insert(0);
            *of_country = of_country.saturating_add(events);
        }
    }

    /// Forgets what was said last before `before`, and of too many files those that were spoken of longest ago.
    /// Says how many files were too many.
    pub fn forget(&mut self, before: UnixTime) -> usize {
        let last = |said: &BTreeMap<Key, Counted>| said.values().map(|it| it.last).max().unwrap_or(UnixTime::EPOCH);
        self.0.retain(|_, said| last(said) >= before);
        let many = self.0.len().saturating_sub(FILES_MAX);
        if many > 0 {
            let mut ages: Vec<(UnixTime, Digest)> = self.0.iter().map(|(file, said)| (last(said), *file)).collect();
            ages.sort_unstable();
            for (_, file) in ages.iter().take(many) {
                self.0.remove(file);
            }
        }
        many
    }

    /// How many files are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing was ever said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Every file, with all that was said of it.
    pub fn files(&self) -> impl Iterator<Item = (&Digest, impl Iterator<Item = (&Said, &Counted)>)> {
        self.0.iter().map(|(file, said)| (file, said.iter().map(|(key, counted)| (&key.0, counted))))
    }
}
