//! The server's routers, asked without a socket.

use axum::Router;
use axum::body::Body;
use http::{Method, header};
use tower::ServiceExt as _;

use crate::network::{Parcel, Reply};

/// Asks a router.
pub(crate) async fn ask(router: Router, parcel: Parcel) -> Reply {
    let method = if parcel.post { Method::POST } else { Method::GET };
    let request = http::Request::builder().method(method).uri(&parcel.path).body(Body::from(parcel.body)).unwrap();
    let response = router.oneshot(request).await.unwrap_or_else(|never| match never {});
    let status = response.status().as_u16();
    let media_type = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = media_type.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_owned();
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap_or_default().to_vec();
    Reply { status, media_type, body }
}
