//! The predicates, in the order in which a release meets them.
//!
//! Every one refuses unknown members: a statement that says more than its reader understands is
//! not read at all (`docs/formats/statements.md`).

pub(crate) mod approval;
pub(crate) mod assembly;
pub(crate) mod canary;
pub(crate) mod data;
pub(crate) mod release;
pub(crate) mod slsa;
pub(crate) mod status;

/// Implements [`crate::Predicate`] for types that stand in a stream.
macro_rules! in_stream {
    ($($name:ident => $uri:literal),+ $(,)?) => {
        $(impl crate::Predicate for $name {
            const TYPE: &'static str = $uri;

            fn position(&self) -> Option<&crate::Position> {
                Some(&self.position)
            }
        })+
    };
}
pub(crate) use in_stream;
