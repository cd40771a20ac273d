//! The relay: passes a question on, and nothing that came with it.

use std::time::Duration;

use api::BaseUrl;
use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use futures::StreamExt as _;
use http::{HeaderMap, header};
use oblivious::{REQUEST_BYTES_MAX, REQUEST_TYPE, RESPONSE_BYTES_MAX, RESPONSE_TYPE};

use crate::config::RelayConfig;
use crate::http::error::{Code, HttpError};
use crate::http::server::checked_body;
use crate::http::stream::NO_CACHE;

/// A gateway that doesn't take a connection by then is down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Clone)]
struct Relay {
    client: reqwest::Client,
    gateway: BaseUrl,
}

/// Serves `POST /`.
///
/// # Errors
/// When TLS can't be set up.
pub(crate) fn router(section: &RelayConfig) -> anyhow::Result<Router> {
    let timeout = Duration::from_secs(section.http.timeout_s);
    // Connections to the gateway are this relay's own: which asker a question came from, they don't show.
    let client = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).timeout(timeout).no_proxy();
    // The gateway is another organisation's: it must not choose where in this network a request goes.
    let client = client.redirect(reqwest::redirect::Policy::none());
    let relay = Relay { client: client.build()?, gateway: section.gateway.clone() };
    let ask = post(ask).layer(DefaultBodyLimit::max(REQUEST_BYTES_MAX));
    Ok(Router::new().route("/", ask).with_state(relay))
}

/// Of a request only its body goes on; of an answer only its body comes back.
async fn ask(
    State(relay): State<Relay>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, HttpError> {
    let body = checked_body(body)?;
    if headers.get(header::CONTENT_TYPE).is_none_or(|kind| kind != REQUEST_TYPE) {
        return Err(HttpError::new(Code::Request, format!("a question is of type {REQUEST_TYPE}")));
    }
    let sent = relay.client.post(relay.gateway.join("/")).header(header::CONTENT_TYPE, REQUEST_TYPE).body(body);
    let answer = sent.send().await.map_err(|error| unavailable(&error.without_url()))?;
    let status = answer.status();
    if status.is_client_error() {
        return Err(HttpError::new(Code::Request, format!("the gateway does not take this question ({status})")));
    }
    let ours = answer.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == RESPONSE_TYPE);
    if !status.is_success() || !ours {
        return Err(unavailable(&format_args!("it answers {status}")));
    }
    let (mut sealed, mut parts) = (Vec::new(), answer.bytes_stream());
    while let Some(part) = parts.next().await {
        sealed.extend_from_slice(&part.map_err(|error| unavailable(&error.without_url()))?);
        if sealed.len() > RESPONSE_BYTES_MAX {
            return Err(unavailable(&"its answer is too long"));
        }
    }
    Ok(([(header::CONTENT_TYPE, RESPONSE_TYPE), (header::CACHE_CONTROL, NO_CACHE)], sealed).into_response())
}

fn unavailable(error: &dyn std::fmt::Display) -> HttpError {
    HttpError::new(Code::Gateway, format!("the gateway gives no answer: {error}"))
}
