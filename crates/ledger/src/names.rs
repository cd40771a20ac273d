//! Names that many rows share, by number.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

/// Each name once; its number never changes. Number 0 is no name.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(from = "Vec<String>", into = "Vec<String>")]
pub(crate) struct Names {
    all: Vec<String>,
    numbers: HashMap<String, u32>,
}

impl Default for Names {
    fn default() -> Self {
        vec![String::new()].into()
    }
}

impl From<Vec<String>> for Names {
    fn from(all: Vec<String>) -> Self {
        // A name that was forgotten is empty, as number 0 is.
        let numbers = all.iter().zip(0..).filter(|(name, _)| !name.is_empty());
        let numbers = numbers.map(|(name, number)| (name.clone(), number)).collect();
        Self { all, numbers }
    }
}

impl From<Names> for Vec<String> {
    fn from(names: Names) -> Self {
        names.all
    }
}

impl Names {
    /// The name's number, a new one if need be.
    pub(crate) fn number(&mut self, name: &str) -> u32 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = u32::try_from(self.all.len()).unwrap_or(0);
        self.all.push(name.to_owned());
        self.numbers.insert(name.to_owned(), number);
        number
    }

    /// The same where there are few: organisations, purposes, regions, classes. Who makes 65,535 of them has all
    /// that come after under no name.
    pub(crate) fn small(&mut self, name: &str) -> u16 {
        u16::try_from(self.number(name)).unwrap_or(0)
    }

    pub(crate) fn name(&self, number: u32) -> &str {
        usize::try_from(number).ok().and_then(|number| self.all.get(number)).map_or("", String::as_str)
    }

    /// One bit for each number: whether its name is `wanted`.
    pub(crate) fn wanted(&self, wanted: impl Fn(&str) -> bool) -> Vec<bool> {
        self.all.iter().map(|name| !name.is_empty() && wanted(name)).collect()
    }

    /// The number stays, without the name.
    pub(crate) fn forget(&mut self, number: u32) {
        if let Some(name) = usize::try_from(number).ok().and_then(|number| self.all.get_mut(number)) {
            self.numbers.remove(name);
            name.clear();
        }
    }
}
