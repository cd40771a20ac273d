//! Names of members as labels: `mail.eml!offer.zip!dir/offer.exe`.

/// Between a container and its member, when people are shown where something is.
const SEPARATOR: char = '!';

/// Longer names are cut; file systems allow 255 bytes in one name.
const NAME_BYTES_MAX: usize = 255;

/// A foreign name that may stand in a label: one line of printable characters in which only our
/// separators separate. Everything else becomes `%XX`, byte by byte.
pub(super) fn printable(name: &[u8]) -> String {
    let mut label = String::with_capacity(name.len().min(NAME_BYTES_MAX));
    for chunk in name.utf8_chunks() {
        for character in chunk.valid().chars() {
            if is_plain(character) {
                label.push(character);
            } else {
                let mut buffer = [0; 4];
                character.encode_utf8(&mut buffer).bytes().for_each(|byte| push_escaped(&mut label, byte));
            }
            if label.len() >= NAME_BYTES_MAX {
                label.push('…');
                return label;
            }
        }
        chunk.invalid().iter().for_each(|byte| push_escaped(&mut label, *byte));
    }
    if label.is_empty() { "%".to_owned() } else { label }
}

/// The name of what is in a compressed stream: the container's, without its last suffix.
pub(super) fn inner_name(label: &str) -> &str {
    let name = label.rsplit(['/', '\\']).next().unwrap_or(label);
    match name.rsplit_once('.') {
        Some((stem, _)) if !stem.is_empty() => stem,
        _ => "content",
    }
}

/// Letters, digits and signs that show, in any script, and can't turn the line around or hide in it.
fn is_plain(character: char) -> bool {
    match character {
        SEPARATOR | '%' => false,
        ' '..='~' => true,
        _ => character.is_alphanumeric(),
    }
}

fn push_escaped(label: &mut String, byte: u8) {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or('0');
    label.extend(['%', digit(byte >> 4), digit(byte & 15)]);
}
