//! Characters that make people see another text than the engine does.

/// The first character in `text` that must not stand in a file of rules, and where.
///
/// Control characters other than tab and the ends of lines; what turns the direction of writing
/// around; what is not to be seen at all. (Unicode Technical Report 36, and "Trojan Source".)
#[must_use]
pub fn hidden_character(text: &str) -> Option<(usize, char)> {
    // Most files are ASCII without any of these: one look at each byte, and no decoding.
    let plain = |byte: u8| matches!(byte, b'\t' | b'\n' | b'\r' | 0x20..=0x7e);
    if text.bytes().all(plain) {
        return None;
    }
    text.char_indices().find(|(_, character)| is_hidden(*character))
}

/// `text` with each such character, and each end of a line, written as its number: for people to read.
#[must_use]
pub fn visible(text: &str) -> String {
    let mut seen = String::with_capacity(text.len());
    for character in text.chars() {
        if is_hidden(character) || matches!(character, '\n' | '\r') {
            seen.extend(character.escape_unicode());
        } else {
            seen.push(character);
        }
    }
    seen
}

const fn is_hidden(character: char) -> bool {
    match character {
        '\t' | '\n' | '\r' => false,
        // Controls (C0, DEL, C1), soft hyphen, Arabic letter mark, Khmer inherent vowels, Mongolian separators.
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{17b4}' | '\u{17b5}'
        | '\u{180b}'..='\u{180f}'
        // Hangul fillers, which are letters without a shape.
        | '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}'
        // Zero width, directional marks; separators of lines and paragraphs; embeddings and overrides;
        // invisible operators, isolates, deprecated formats.
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        // Variation selectors, the byte order mark, interlinear annotations, noncharacters.
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{fffe}' | '\u{ffff}'
        // Shorthand and musical formats, tags, more variation selectors.
        | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}' => true,
        _ => false,
    }
}

/// What `name` looks like: two names with one skeleton can be mistaken for each other.
///
/// Names of rules are ASCII, so of Unicode Technical Standard 39's table of confusables only the
/// rows from ASCII to ASCII remain (`0`→`O`, `1`→`l`, `I`→`l`, `m`→`rn`), to which we add the
/// difference between small and large letters.
#[must_use]
pub fn skeleton(name: &str) -> String {
    let mut skeleton = String::with_capacity(name.len());
    for character in name.chars() {
        match character {
            '1' | 'I' | 'i' => skeleton.push('l'),
            'm' | 'M' => skeleton.push_str("rn"),
            '0' => skeleton.push('o'),
            other => skeleton.push(other.to_ascii_lowercase()),
        }
    }
    skeleton
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_seen_is_found() {
        assert_eq!(hidden_character("rule a // caf\u{e9} \u{4e2d}\t\r\n"), None);
        for hidden in
            ['\u{202e}', '\u{2066}', '\u{200b}', '\0', '\u{1b}', '\u{feff}', '\u{e0041}', '\u{85}', '\u{3164}']
        {
            assert_eq!(hidden_character(&format!("\u{e9}{hidden}b")), Some((2, hidden)), "{hidden:?}");
        }
        assert_eq!(visible("a\u{202e}b\nc"), "a\\u{202e}b\\u{a}c");
    }

    #[test]
    fn names_that_look_alike_have_one_skeleton() {
        for (one, other) in
            [("APT_Lazarus_1", "APT_Lazarus_l"), ("Emotet_0", "Emotet_O"), ("modem", "rnodern"), ("Ab", "aB")]
        {
            assert_eq!(skeleton(one), skeleton(other));
        }
        assert_ne!(skeleton("APT_1"), skeleton("APT_2"));
    }
}
