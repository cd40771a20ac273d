//! One access as the index has it: numbers only, one column behind the other, so that a search reads what it
//! asks for and nothing else.

/// Rows of a block: 8 MB, of which a search reads a few hundred KB.
pub(crate) const BLOCK_ROWS: usize = 1 << 16;

/// No entry, no row.
pub(crate) const NONE: u64 = u64::MAX;
/// No row.
pub(crate) const NO_ROW: u32 = u32::MAX;

macro_rules! columns {
    ($($(#[$doc:meta])* $column:ident $field:ident: $type:ty,)*) => {
        /// A row.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) struct Row {
            $($(#[$doc])* pub(crate) $field: $type,)*
        }

        /// A column.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Column {
            $($(#[$doc])* $column,)*
        }

        impl Column {
            /// Every column, in the order in which they are stored.
            pub(crate) const ALL: &[Self] = &[$(Self::$column,)*];
        }

        const WIDTHS: &[usize] = &[$(size_of::<$type>(),)*];

        /// Bytes of a row.
        pub(crate) const ROW_BYTES: usize = 0 $(+ size_of::<$type>())*;

        /// The rows, column by column, little-endian.
        pub(crate) fn encode(rows: &[Row]) -> Vec<u8> {
            let mut bytes = Vec::with_capacity(rows.len() * ROW_BYTES);
            $(rows.iter().for_each(|row| Le::put(row.$field, &mut bytes));)*
            bytes
        }

        /// What [`encode`] gave; nothing if it is of another length.
        pub(crate) fn decode(bytes: &[u8]) -> Option<Vec<Row>> {
            if bytes.len() % ROW_BYTES != 0 {
                return None;
            }
            let empty = Row { $($field: <$type as Le>::ZERO,)* };
            let mut rows = vec![empty; bytes.len() / ROW_BYTES];
            let mut rest = bytes;
            $(
                let (column, after) = rest.split_at_checked(rows.len() * size_of::<$type>())?;
                rest = after;
                for (row, value) in rows.iter_mut().zip(column.chunks_exact(size_of::<$type>())) {
                    row.$field = <$type as Le>::of(value)?;
                }
            )*
            rest.is_empty().then_some(rows)
        }
    };
}

columns! {
    /// The entry's index in the log.
    Entry entry: u64,
    /// The outcome's.
    Outcome outcome: u64,
    /// Rows that were given out.
    Rows rows: u64,
    /// Bytes that were given out.
    Bytes bytes: u64,
    /// Sealed objects.
    Objects objects: u32,
    /// When, in seconds of Unix time.
    Time time: u32,
    /// Until when.
    Until until: u32,
    /// Who, if the private part is known.
    Who who: u32,
    /// Which set of countries.
    Countries countries: u32,
    /// The row of the request.
    Request request: u32,
    /// The organisation of who reads.
    Employer employer: u16,
    /// What for.
    Purpose purpose: u16,
    /// Where.
    Region region: u16,
    /// What kind of data.
    Class class: u16,
    /// [`What`](crate::What) it is.
    What what: u8,
    /// How it stands ([`AccessState`](crate::AccessState)).
    State state: u8,
    /// A person or a program.
    Kind kind: u8,
    /// Ordinary or break-glass.
    Mode mode: u8,
    /// How many people have approved.
    Approvals approvals: u8,
    /// The statement's identity.
    Id id: [u8; 32],
    /// The commitment to who.
    Reader reader: [u8; 32],
}

impl Column {
    /// Bytes of a value.
    pub(crate) fn width(self) -> usize {
        WIDTHS.get(self as usize).copied().unwrap_or(1)
    }

    /// Where it begins in a block of so many rows.
    pub(crate) fn offset(self, rows: usize) -> usize {
        rows * WIDTHS.iter().take(self as usize).sum::<usize>()
    }
}

/// A value of a column.
trait Le: Copy {
    const ZERO: Self;
    fn put(self, bytes: &mut Vec<u8>);
    fn of(bytes: &[u8]) -> Option<Self>;
}

macro_rules! integers {
    ($($type:ty),*) => {$(
        impl Le for $type {
            const ZERO: Self = 0;

            fn put(self, bytes: &mut Vec<u8>) {
                bytes.extend_from_slice(&self.to_le_bytes());
            }

            fn of(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self::from_le_bytes)
            }
        }
    )*};
}

integers!(u8, u16, u32, u64);

impl Le for [u8; 32] {
    const ZERO: Self = [0; 32];

    fn put(self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self);
    }

    fn of(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok()
    }
}
