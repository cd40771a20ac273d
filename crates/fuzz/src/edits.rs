//! Something genuine, with anything done to it.

/// The input is a list of edits: where (two bytes), what (one byte), and with how many bytes (one byte), and these.
pub(crate) fn edited(genuine: &[u8], mut edits: &[u8]) -> Vec<u8> {
    let mut bytes = genuine.to_vec();
    while let Some((head, rest)) = edits.split_at_checked(4) {
        let at = usize::from(u16::from_be_bytes([head[0], head[1]])) % (bytes.len() + 1);
        let (with, rest) = rest.split_at(usize::from(head[3]).min(rest.len()));
        let end = (at + with.len().max(1)).min(bytes.len());
        match head[2] % 4 {
            0 => drop(bytes.splice(at..end, with.iter().copied())),
            1 => drop(bytes.splice(at..at, with.iter().copied())),
            2 => drop(bytes.drain(at..end)),
            _ => {
                // Something from elsewhere in it, which is well-formed more often.
                let from = usize::from(u16::from_be_bytes([head[1], head[0]])) % bytes.len().max(1);
                let copied = bytes[from..(from + usize::from(head[3])).min(bytes.len())].to_vec();
                drop(bytes.splice(at..end, copied));
            }
        }
        edits = rest;
        if bytes.len() > 1 << 20 {
            break;
        }
    }
    bytes
}
