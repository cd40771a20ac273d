//! The server around every router: limits, timeouts, and a graceful stop.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use stdx::{Clock as _, SystemClock};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tracing::Instrument as _;

use crate::config::HttpSection;
use crate::http::error::{Code, HttpError};
use crate::http::listener::{LimitedListener, RequestsMax, WaitingMax};
use crate::http::news::NEWS;
use crate::http::unread::Unread;
use crate::metrics::metrics;

/// A connection may be idle for longer than a request may take.
const IDLE_MARGIN: Duration = Duration::from_secs(15);

/// Becomes `true` when the process is to stop.
pub type Stop = watch::Receiver<bool>;

/// Serves `router` within the bounds of `section`, until `stop`; requests then have their grace.
///
/// # Errors
/// When the listening socket fails.
pub async fn serve(router: Router, listener: TcpListener, section: HttpSection, stop: Stop) -> anyhow::Result<()> {
    let timeout = Duration::from_secs(section.timeout_s);
    let address = listener.local_addr().context("the listening socket has no address")?;
    let limits = (RequestsMax(section.requests_max), WaitingMax(section.waiting_max));
    let listener = LimitedListener::new(listener, limits, timeout + IDLE_MARGIN);
    let bounds = Arc::new(Bounds {
        requests: Semaphore::new(section.requests_max),
        waiting: Semaphore::new(section.waiting_max),
        timeout,
        clock: SystemClock::new(),
        ids: Ids::new(),
    });
    let router = router
        .fallback(|request: Request| async move { HttpError::not_found(request.uri().path()) })
        .method_not_allowed_fallback(|request: Request| async move {
            HttpError::new(Code::Method, format!("`{}` is not served with {}", request.uri().path(), request.method()))
        })
        .layer(middleware::from_fn_with_state(bounds, observed));
    tracing::info!(http.address = %address, "listening");
    let serving = axum::serve(listener, router).with_graceful_shutdown(stopped(stop.clone()));
    let grace = async {
        stopped(stop).await;
        tokio::time::sleep(Duration::from_secs(section.grace_s)).await;
    };
    tokio::select! {
        outcome = async { serving.await } => outcome.context("the HTTP server failed"),
        () = grace => {
            tracing::warn!("requests were still open when the time to stop was over");
            Ok(())
        }
    }
}

/// Waits until `stop` becomes true, or its sender is gone.
pub async fn stopped(mut stop: Stop) {
    // Without a sender nobody could stop this any more, so that counts as stopping.
    let _ = stop.wait_for(|stop| *stop).await;
}

struct Bounds {
    requests: Semaphore,
    /// Requests that wait until there is something: they cost a connection, and no work.
    waiting: Semaphore,
    timeout: Duration,
    clock: SystemClock,
    ids: Ids,
}

/// Names a request in this process's log and in its answer, so that both can be brought together.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Counts a request, and gives it an id.
async fn observed(State(bounds): State<Arc<Bounds>>, request: Request, next: Next) -> Response {
    let start = bounds.clock.monotonic();
    // A route, not a path: paths are as many as clients like.
    let route = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_owned();
    let method = match *request.method() {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::HEAD => "HEAD",
        _ => "other",
    };
    let id = bounds.ids.next();
    let span = tracing::info_span!("request", request.id = %id, http.method = method, http.route = route);
    let (unread, request) = Unread::watch(request);
    let permits = if route == NEWS { &bounds.waiting } else { &bounds.requests };
    let mut response = within_bounds((permits, bounds.timeout), request, next).instrument(span).await;
    unread.close(&mut response);
    if route == NEWS && response.status() == StatusCode::SERVICE_UNAVAILABLE {
        // Who can't wait keeps no connection from others either.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let took = bounds.clock.monotonic().saturating_sub(start);
    metrics().request(&route, method, response.status().as_u16(), took);
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// Ids of requests: the process's own beginning, which is random, and a number.
struct Ids {
    process: u64,
    last: AtomicU64,
}

impl Ids {
    fn new() -> Self {
        // Hash maps get random keys from the system; an id needs no more than to differ.
        let process = RandomState::new().build_hasher().finish();
        Self { process, last: AtomicU64::new(0) }
    }

    fn next(&self) -> String {
        format!("{:08x}-{:x}", self.process >> 32, self.last.fetch_add(1, Ordering::Relaxed))
    }
}

async fn within_bounds((permits, timeout): (&Semaphore, Duration), request: Request, next: Next) -> Response {
    let Ok(_permit) = permits.try_acquire() else {
        return HttpError::new(Code::Busy, "more requests at once than are worked on").into_response();
    };
    match tokio::time::timeout(timeout, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let message = format!("the request took more than {} s", timeout.as_secs());
            HttpError::new(Code::Timeout, message).into_response()
        }
    }
}

/// The body, or why there is none.
pub(crate) fn checked_body(body: Result<Bytes, BytesRejection>) -> Result<Bytes, HttpError> {
    body.map_err(|rejection| {
        let code = if rejection.status().as_u16() == 413 { Code::TooLong } else { Code::Body };
        HttpError::new(code, rejection.body_text())
    })
}
