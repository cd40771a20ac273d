//! Rust source without its comments and literals, so that a word in them is not mistaken for code.

/// The same lines, with comments and the insides of literals blank.
pub(crate) fn code_only(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    let mut previous = ' ';
    while let Some(first) = rest.chars().next() {
        let length = literal_or_comment(rest, previous);
        let (blank, after) = rest.split_at(length);
        code.extend(blank.chars().map(|character| if character == '\n' { '\n' } else { ' ' }));
        rest = after;
        previous = ' ';
        if length == 0 {
            code.push(first);
            previous = first;
            rest = rest.get(first.len_utf8()..).unwrap_or_default();
        }
    }
    code
}

/// How many bytes at the start of `rest` are one comment or literal.
fn literal_or_comment(rest: &str, previous: char) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return block_comment(rest);
    }
    if rest.starts_with('"') {
        return escaped(rest, '"');
    }
    if rest.starts_with('\'') {
        return character(rest);
    }
    if previous.is_alphanumeric() || previous == '_' {
        return 0;
    }
    raw_string(rest).unwrap_or(0)
}

fn block_comment(rest: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(here) = rest.get(at..).filter(|here| !here.is_empty()) {
        if here.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if here.starts_with("*/") {
            depth = depth.saturating_sub(1);
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += here.chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// From the opening quote to the first closing one without a backslash.
fn escaped(rest: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (at, character) in rest.char_indices().skip(1) {
        if is_escaped {
            is_escaped = false;
        } else if character == '\\' {
            is_escaped = true;
        } else if character == quote {
            return at + quote.len_utf8();
        }
    }
    rest.len()
}

/// A character literal, or nothing where the quote starts a lifetime.
fn character(rest: &str) -> usize {
    let mut characters = rest.char_indices().skip(1);
    match (characters.next(), characters.next()) {
        (Some((_, '\\')), _) => escaped(rest, '\''),
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 0,
    }
}

fn raw_string(rest: &str) -> Option<usize> {
    let after = ["r", "br", "cr"]
        .iter()
        .find_map(|prefix| rest.strip_prefix(prefix).filter(|after| after.starts_with(['#', '"'])))?;
    let inside = after.trim_start_matches('#');
    let hashes = after.len() - inside.len();
    let inside = inside.strip_prefix('"')?;
    let closing = format!("\"{}", "#".repeat(hashes));
    let end = inside.find(&closing).map_or(inside.len(), |at| at + closing.len());
    Some(rest.len() - inside.len() + end)
}

#[cfg(test)]
mod tests {
    use super::code_only;

    fn squeezed(source: &str) -> String {
        code_only(source).split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn comments_and_literals_are_blank() {
        assert_eq!(squeezed("a // b\nc /* d /* e */ f */ g"), "a c g");
        assert_eq!(squeezed(r#"a("b \" c", 'd', '\'', '"') e"#), "a( , , , ) e");
        assert_eq!(squeezed("a(r\"b\\\", br#\"c \"d\" \"#) e"), "a( , ) e");
        assert_eq!(squeezed("fn a<'b>(c: &'b str, r#in: u8) { \"é\" }"), "fn a<'b>(c: &'b str, r#in: u8) { }");
        assert_eq!(squeezed("a \"never closed"), "a");
    }

    #[test]
    fn lines_stay_where_they_are() {
        let source = "a\n/* b\nc */ d\n\"e\nf\" g";
        let lines: Vec<String> = code_only(source).lines().map(|line| line.trim().to_owned()).collect();
        assert_eq!(lines, ["a", "", "d", "", "g"]);
    }
}
