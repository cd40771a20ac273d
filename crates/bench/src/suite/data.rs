//! What endpoints share, on its way to whoever may read it.

mod grant;
mod intake;
mod openbao;

pub(super) use grant::grant;
pub(super) use intake::{growth, intake};
