//! What endpoints share, on its way to whoever may read it.

mod grant;
mod intake;
mod openbao;

pub(super) use grant::{FOLDERS, add_access, add_residency, grant};
pub(super) use intake::{EVENTS, events, growth, intake};
