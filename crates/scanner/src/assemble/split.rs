//! Takes a file of rules apart before the engine's parser sees it, so that each rule's text is known,
//! and with its length how deep the parser can go into it.
//!
//! This is no parser: what it takes for a rule, the engine must read as exactly one rule.

use std::ops::Range;

/// Something at the top of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// `import "NAME"`.
    Import(String),
    /// `include "…"`, and where.
    Include(usize),
    /// A rule, from its first modifier to its closing brace.
    Rule(Range<usize>),
}

/// The text stops being rules here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stopped {
    pub(super) at: usize,
    pub(super) why: &'static str,
}

/// The items of `text`, in order.
pub(super) fn split(text: &str) -> Result<Vec<Item>, Stopped> {
    let mut cursor = Cursor { text: text.as_bytes(), at: 0 };
    let mut items = Vec::new();
    loop {
        cursor.skip_blank()?;
        let start = cursor.at;
        if cursor.peek().is_none() {
            return Ok(items);
        }
        let mut word = cursor.word();
        let stopped = |why| Stopped { at: start, why };
        match word {
            b"import" => {
                cursor.skip_blank()?;
                let name = cursor.quoted().ok_or(stopped("an import without a name"))?;
                items.push(Item::Import(text.get(name).unwrap_or_default().to_owned()));
                continue;
            }
            b"include" => {
                cursor.skip_blank()?;
                cursor.quoted().ok_or(stopped("an include without a path"))?;
                items.push(Item::Include(start));
                continue;
            }
            _ => {}
        }
        while matches!(word, b"private" | b"global") {
            cursor.skip_blank()?;
            word = cursor.word();
        }
        if word != b"rule" {
            return Err(stopped("neither `rule`, `import` nor a comment"));
        }
        cursor.skip_body(start)?;
        items.push(Item::Rule(start..cursor.at));
    }
}

struct Cursor<'t> {
    text: &'t [u8],
    at: usize,
}

impl<'t> Cursor<'t> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn rest(&self) -> &'t [u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// Goes behind the next `wanted`; false if there is none.
    fn skip_past(&mut self, wanted: &[u8]) -> bool {
        let found = self.rest().windows(wanted.len()).position(|window| window == wanted);
        self.at = found.map_or(self.text.len(), |found| self.at + found + wanted.len());
        found.is_some()
    }

    /// Goes over white space and comments.
    fn skip_blank(&mut self) -> Result<(), Stopped> {
        loop {
            match self.rest() {
                [b' ' | b'\t' | b'\n' | b'\r', ..] => self.at += 1,
                [b'/', b'/', ..] => {
                    self.skip_past(b"\n");
                }
                [b'/', b'*', ..] => {
                    let start = self.at;
                    self.at += 2;
                    if !self.skip_past(b"*/") {
                        return Err(Stopped { at: start, why: "a comment without an end" });
                    }
                }
                _ => return Ok(()),
            }
        }
    }

    fn word(&mut self) -> &'t [u8] {
        let rest = self.rest();
        let length = rest.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
        self.at += length;
        rest.get(..length).unwrap_or_default()
    }

    /// What stands between two quotes on one line, without escapes.
    fn quoted(&mut self) -> Option<Range<usize>> {
        let start = self.at + 1;
        let inside = self.rest().strip_prefix(b"\"")?;
        let length = inside.iter().position(|byte| matches!(byte, b'"' | b'\n' | b'\\'))?;
        self.at = start + length + 1;
        (inside.get(length) == Some(&b'"')).then_some(start..start + length)
    }

    /// From behind `rule` to behind the rule's closing brace.
    fn skip_body(&mut self, start: usize) -> Result<(), Stopped> {
        // 0: before the body; 1: in it; 2: in a hex string.
        let mut depth = 0_u8;
        while let Some(byte) = self.peek() {
            match byte {
                b'{' => {
                    depth += 1;
                    if depth > 2 {
                        return Err(Stopped { at: self.at, why: "a brace within a hex string" });
                    }
                }
                b'}' => {
                    let Some(less) = depth.checked_sub(1) else {
                        return Err(Stopped { at: self.at, why: "a brace that closes nothing" });
                    };
                    depth = less;
                    if depth == 0 {
                        self.at += 1;
                        return Ok(());
                    }
                }
                b'"' => {
                    self.skip_literal(b'"')?;
                    continue;
                }
                b'/' if matches!(self.rest(), [_, b'/' | b'*', ..]) => {
                    self.skip_blank()?;
                    continue;
                }
                b'/' => {
                    self.skip_literal(b'/')?;
                    continue;
                }
                _ => {}
            }
            self.at += 1;
        }
        Err(Stopped { at: start, why: "a rule without an end" })
    }

    /// A string or regular expression: to the next `end` on this line that is not escaped.
    fn skip_literal(&mut self, end: u8) -> Result<(), Stopped> {
        let start = self.at;
        self.at += 1;
        while let Some(byte) = self.peek() {
            self.at += 1;
            match byte {
                b'\\' => self.at += 1,
                b'\n' => break,
                byte if byte == end => return Ok(()),
                _ => {}
            }
        }
        Err(Stopped { at: start, why: "a string or regular expression without an end" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_taken_apart() {
        let text = r#"
            import "pe" /* } */ // {
            private
            global rule a:x{strings: $a = "}\"" $b = /[{}]\/{2}/i $c = { 01 /* } */ ( 02 | 03 ) } condition: any of them}rule b
            { // }
              condition: true /* } */ }
            include "x""#;
        let items = split(text).unwrap();
        let parts: Vec<&str> = items
            .iter()
            .map(|item| match item {
                Item::Rule(span) => text[span.clone()].split('{').next().unwrap(),
                Item::Import(name) => name.as_str(),
                Item::Include(_) => "an include",
            })
            .collect();
        assert_eq!(
            parts.iter().map(|part| part.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>(),
            ["pe", "private global rule a:x", "rule b", "an include"]
        );
        assert!(
            items
                .iter()
                .filter_map(|item| match item {
                    Item::Rule(span) => Some(&text[span.clone()]),
                    _ => None,
                })
                .all(|rule| rule.ends_with('}') && boreal_parser::parse(rule).is_ok())
        );
    }

    #[test]
    fn what_is_no_rule_stops_it() {
        for (text, at) in [
            ("rule a { condition: true } x", 27),
            ("rule a { condition: true", 0),
            ("/* ", 0),
            ("rule a } {", 7),
            ("private import \"pe\"", 0),
            ("import pe", 0),
            ("rule a { strings: $a = \"x\n\" condition: $a }", 23),
            ("rule a { strings: $a = { { 01 } } condition: $a }", 25),
        ] {
            assert_eq!(split(text).unwrap_err().at, at, "{text}");
        }
    }
}
