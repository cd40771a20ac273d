//! What changes something goes to the process that works for the domain.

use std::future::Future;
use std::time::Duration;

use api::BaseUrl;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderName, HeaderValue, header};
use tokio::time::timeout;

use crate::duty::{Duty, OnDuty};
use crate::http::error::{Code, HttpError};
use crate::lease::{BEAT, EXPIRES, Hold};

/// Marks what another front end has forwarded, so that nothing goes round in circles while two of
/// them have different news.
const FORWARDED: HeaderName = HeaderName::from_static("clerestory-forwarded");

/// A machine of the same domain that doesn't take a connection by then is down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// A lease that runs out is taken over within this, and the log is mostly open by then.
const HANDS_CHANGE: Duration = EXPIRES.saturating_add(BEAT).saturating_add(BEAT);

/// Forwards to whoever is on duty.
#[derive(Clone)]
pub struct Forward {
    duty: OnDuty,
    hold: Hold,
    client: reqwest::Client,
}

impl Forward {
    /// Follows `duty`; `hold` tells whether it is still so.
    ///
    /// # Errors
    /// When TLS can't be set up.
    pub fn new(duty: OnDuty, hold: Hold) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).no_proxy().build()?;
        Ok(Self { duty, hold, client })
    }
}

/// Reading is served here; everything else here only if this process is on duty.
pub async fn forward(State(forward): State<Forward>, request: Request, next: Next) -> Response {
    let mut duty = forward.duty;
    if request.method().is_safe() {
        return next.run(request).await;
    }
    // A change of hands is waited for here, rather than by every client for itself.
    let somebody = timeout(HANDS_CHANGE, duty.wait_for(|duty| !matches!(duty, Duty::Nobody))).await;
    let somebody = somebody.ok().and_then(Result::ok).map_or(Duty::Nobody, |duty| duty.clone());
    let holder = match somebody {
        Duty::Here(_) => None,
        Duty::There(address) => Some(address),
        Duty::Nobody => return nobody("no process of this domain sequences just now").into_response(),
    };
    let Some(holder) = holder else { return here(&forward.hold, next.run(request).await) };
    if request.headers().contains_key(FORWARDED) {
        return nobody(&format!("the process at {holder} sequences, and not this one")).into_response();
    }
    let sent = sent(&forward.client, &holder, request);
    tokio::select! {
        answer = sent => match answer {
            Ok(answer) => return relay(answer),
            Err(error) => tracing::warn!("the process at {holder} does not answer: {:#}", anyhow::Error::new(error)),
        },
        // One that sleeps holds its connections open for as long as it likes.
        _ = duty.changed() => return nobody(&format!("the process at {holder} sequences no more")).into_response(),
    }
    // Until another takes over, every further try would end like this one.
    let _ = timeout(HANDS_CHANGE, duty.changed()).await;
    nobody(&format!("the process at {holder} does not answer")).into_response()
}

/// A refusal counts only from a process that certainly is on duty: one that was asleep knows no more
/// what the log has, and its "no" would be taken for final. What it grants rests on a quorum.
fn here(hold: &Hold, response: Response) -> Response {
    if response.status().is_client_error() && !hold.is_certain() {
        return nobody("this process can't tell whether it still sequences").into_response();
    }
    response
}

fn sent(
    client: &reqwest::Client,
    holder: &BaseUrl,
    request: Request,
) -> impl Future<Output = reqwest::Result<reqwest::Response>> + use<> {
    let path = request.uri().path_and_query().map_or("/", |it| it.as_str());
    let mut sent = client.request(request.method().clone(), holder.join(path)).header(FORWARDED, "1");
    for name in [header::CONTENT_TYPE, header::CONTENT_LENGTH] {
        if let Some(value) = request.headers().get(&name) {
            sent = sent.header(name, value);
        }
    }
    sent.body(reqwest::Body::wrap_stream(request.into_body().into_data_stream())).send()
}

fn nobody(message: &str) -> HttpError {
    HttpError::new(Code::NoSequencer, message)
}

fn relay(answer: reqwest::Response) -> Response {
    let (status, headers) = (answer.status(), answer.headers().clone());
    let mut response = Response::new(Body::from_stream(answer.bytes_stream()));
    *response.status_mut() = status;
    for name in [header::CONTENT_TYPE, header::CONTENT_LENGTH, header::RETRY_AFTER] {
        if let Some(value) = headers.get(&name) {
            response.headers_mut().insert(name, HeaderValue::clone(value));
        }
    }
    response
}
