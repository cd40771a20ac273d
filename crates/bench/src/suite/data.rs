//! What endpoints share, on its way to whoever may read it.

mod intake;

pub(super) use intake::{growth, intake};
