//! Errors of services, in the words of the ports.

use storage::Error;

/// What failed at `service`, while it was asked to do `action`.
pub(crate) fn failed<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    service: &str,
    action: &'static str,
) -> impl FnOnce(E) -> Error + use<E> {
    let service = service.to_owned();
    move |source| Error::Service { service, action, source: source.into() }
}
