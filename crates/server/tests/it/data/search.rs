//! Looks for what must not lie anywhere, in the ways in which it would be written: as it is, in hexadecimal, in base64.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// What is looked for.
pub(super) struct Needles {
    forms: Vec<(String, Vec<u8>)>,
    /// Whether a form begins with these two bytes: the rest of a large file costs one look a byte.
    begins: Vec<bool>,
}

impl Needles {
    pub(super) fn of<'a>(what: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Self {
        let mut needles = Self { forms: Vec::new(), begins: vec![false; 1 << 16] };
        for (name, bytes) in what {
            needles.add(name, bytes);
        }
        needles
    }

    pub(super) fn add(&mut self, name: &str, bytes: &[u8]) {
        assert!(bytes.len() >= 6, "`{name}` would be found by chance");
        let hexadecimal = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        // Base64 of something that has it in the middle: three bytes are four characters, so there are three ways.
        let base64 = (0..3).map(|before| {
            let text = STANDARD.encode([&[0; 2][..before], bytes].concat());
            let (first, last) = ([0, 2, 3][before], (before + bytes.len()) * 8 / 6);
            text.as_bytes()[first..last].to_vec()
        });
        for form in [bytes.to_vec(), hexadecimal.into_bytes()].into_iter().chain(base64) {
            self.begins[pair(&form)] = true;
            self.forms.push((name.to_owned(), form));
        }
    }

    /// Names of what is there.
    pub(super) fn found(&self, hay: &[u8]) -> BTreeSet<&str> {
        let mut found = BTreeSet::new();
        for (at, two) in hay.windows(2).enumerate() {
            if self.begins[pair(two)] {
                let here = self.forms.iter().filter(|(_, form)| hay[at..].starts_with(form));
                found.extend(here.map(|(name, _)| name.as_str()));
            }
        }
        found
    }
}

fn pair(bytes: &[u8]) -> usize {
    usize::from(bytes[0]) << 8 | usize::from(bytes[1])
}

#[test]
fn what_is_looked_for_is_found_however_it_is_written() {
    let needles = Needles::of([("mark", &b"a_marked_rule"[..])]);
    for before in 0..6 {
        let text = [&b"before"[..before], b"a_marked_rule", b"after"].concat();
        let hexadecimal: String = text.iter().map(|byte| format!("{byte:02x}")).collect();
        for hay in [text.clone(), hexadecimal.into_bytes(), STANDARD.encode(&text).into_bytes()] {
            assert_eq!(needles.found(&hay), BTreeSet::from(["mark"]), "{}", String::from_utf8_lossy(&hay));
        }
    }
    assert!(needles.found(b"a_marked_rul").is_empty() && needles.found(b"").is_empty());
}
