//! The server around every router: limits, timeouts, and a graceful stop.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::config::HttpSection;
use crate::http::error::{Code, HttpError};
use crate::http::listener::{LimitedListener, RequestsMax};

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
    let listener = LimitedListener::new(listener, RequestsMax(section.requests_max), timeout + IDLE_MARGIN);
    let bounds = Arc::new(Bounds { requests: Semaphore::new(section.requests_max), timeout });
    let router = router
        .fallback(|request: Request| async move { HttpError::not_found(request.uri().path()) })
        .method_not_allowed_fallback(|request: Request| async move {
            HttpError::new(Code::Method, format!("`{}` is not served with {}", request.uri().path(), request.method()))
        })
        .layer(middleware::from_fn_with_state(bounds, within_bounds));
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
    timeout: Duration,
}

async fn within_bounds(State(bounds): State<Arc<Bounds>>, request: Request, next: Next) -> Response {
    let Ok(_permit) = bounds.requests.try_acquire() else {
        return HttpError::new(Code::Busy, "more requests at once than are worked on").into_response();
    };
    match tokio::time::timeout(bounds.timeout, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let message = format!("the request took more than {} s", bounds.timeout.as_secs());
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
