//! Zip's method 6, imploded (APPNOTE 6.3.10, section 5.3): what PKZIP made until 1993, and attackers still do,
//! because few programs look into it.

use std::io::{self, Read};

use super::super::fields::Fields;

/// The flags that say how: a window of 8 KiB instead of 4, and a tree for literals.
const FLAG_LARGE_WINDOW: u16 = 1 << 1;
const FLAG_LITERAL_TREE: u16 = 1 << 2;

const WINDOW_BYTES: usize = 8 << 10;

pub(super) struct Imploded<'a> {
    bits: Bits<'a>,
    literals: Option<Tree>,
    lengths: Tree,
    distances: Tree,
    /// How many bits of a distance stand as they are.
    low_bits: u32,
    window: Vec<u8>,
    place: usize,
    /// Distance, and bytes that are still to be copied.
    copy: (usize, usize),
    /// Nothing marks the end.
    left: u64,
}

impl<'a> Imploded<'a> {
    pub(super) fn new(flags: u16, size: u64, data: &'a [u8]) -> Option<Self> {
        let mut fields = Fields::new(data);
        let literals = if flags & FLAG_LITERAL_TREE != 0 { Some(Tree::read(&mut fields, 256)?) } else { None };
        let (lengths, distances) = (Tree::read(&mut fields, 64)?, Tree::read(&mut fields, 64)?);
        let low_bits = if flags & FLAG_LARGE_WINDOW != 0 { 7 } else { 6 };
        let (bits, window) = (Bits { fields, byte: 0, left: 0 }, vec![0; WINDOW_BYTES]);
        Some(Self { bits, literals, lengths, distances, low_bits, window, place: 0, copy: (0, 0), left: size })
    }

    fn next(&mut self) -> Option<u8> {
        while self.copy.1 == 0 {
            if self.bits.next()? == 1 {
                let literal = match &self.literals {
                    Some(tree) => tree.symbol(&mut self.bits)?,
                    None => self.bits.number(8)?,
                };
                return self.put(u8::try_from(literal).ok()?);
            }
            let low = self.bits.number(self.low_bits)?;
            let distance = (self.distances.symbol(&mut self.bits)? << self.low_bits | low) + 1;
            let mut length = self.lengths.symbol(&mut self.bits)?;
            if length == 63 {
                length += self.bits.number(8)?;
            }
            self.copy = (distance, length + if self.literals.is_some() { 3 } else { 2 });
        }
        self.copy.1 -= 1;
        let from = (self.place + WINDOW_BYTES - self.copy.0) % WINDOW_BYTES;
        let byte = *self.window.get(from)?;
        self.put(byte)
    }

    fn put(&mut self, byte: u8) -> Option<u8> {
        *self.window.get_mut(self.place)? = byte;
        self.place = (self.place + 1) % WINDOW_BYTES;
        Some(byte)
    }
}

impl Read for Imploded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut count = 0;
        for slot in buffer {
            if self.left == 0 {
                break;
            }
            match self.next() {
                Some(byte) => *slot = byte,
                None if count == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                None => break,
            }
            count += 1;
            self.left -= 1;
        }
        Ok(count)
    }
}

struct Bits<'a> {
    fields: Fields<'a>,
    byte: u8,
    left: u8,
}

impl Bits<'_> {
    /// The lowest bit of each byte comes first.
    fn next(&mut self) -> Option<usize> {
        if self.left == 0 {
            (self.byte, self.left) = (self.fields.u8()?, 8);
        }
        let bit = self.byte & 1;
        (self.byte, self.left) = (self.byte >> 1, self.left - 1);
        Some(bit.into())
    }

    fn number(&mut self, bits: u32) -> Option<usize> {
        (0..bits).try_fold(0, |number, place| Some(number | self.next()? << place))
    }
}

const CODE_BITS_MAX: usize = 16;

/// Codes of Shannon and Fano. Those of one length follow each other, and the longest are the lowest.
struct Tree {
    /// In the order of their codes, from the lowest.
    symbols: Vec<usize>,
    /// For each length: the first code, how many there are, and the place of the first in `symbols`.
    ranges: [(usize, usize, usize); CODE_BITS_MAX + 1],
}

impl Tree {
    /// Bytes that say how many symbols in turn have a code of which length.
    fn read(fields: &mut Fields<'_>, symbols: usize) -> Option<Self> {
        let mut lengths = Vec::with_capacity(symbols);
        for _ in 0..=fields.u8()? {
            let byte = fields.u8()?;
            lengths.extend(std::iter::repeat_n(usize::from(byte & 0x0f) + 1, usize::from(byte >> 4) + 1));
        }
        (lengths.len() == symbols).then_some(())?;
        let mut order: Vec<usize> = (0..symbols).collect();
        let length = |symbol: &usize| lengths.get(*symbol).copied().unwrap_or(0);
        order.sort_by_key(|symbol| std::cmp::Reverse((length(symbol), *symbol)));
        let mut ranges = [(0, 0, 0); CODE_BITS_MAX + 1];
        let mut code = 0;
        for (place, symbol) in order.iter().enumerate() {
            let bits = length(symbol);
            let range = ranges.get_mut(bits)?;
            if range.1 == 0 {
                *range = (code >> (CODE_BITS_MAX - bits), 0, place);
            }
            range.1 += 1;
            code += 1 << (CODE_BITS_MAX - bits);
        }
        Some(Self { symbols: order, ranges })
    }

    fn symbol(&self, bits: &mut Bits<'_>) -> Option<usize> {
        let mut code = 0;
        for (first, count, place) in self.ranges.iter().skip(1) {
            code = code << 1 | bits.next()?;
            if let Some(offset) = code.checked_sub(*first).filter(|offset| offset < count) {
                return self.symbols.get(place + offset).copied();
            }
        }
        None
    }
}
