//! The server of a vendor's channel, without the rest of the vendor.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use server::config::HttpSection;
use server::http;
use server::kept::KeptFolder;
use tokio::sync::watch;

/// Serves a folder as `clerestory serve` serves a channel, until it is dropped.
pub(super) struct Web {
    address: String,
    _stop: watch::Sender<bool>,
    _runtime: tokio::runtime::Runtime,
}

impl Web {
    pub(super) fn serve(folder: &Path) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = TcpListener::bind("127.0.0.1:0").context("can't listen on the loopback address")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?.to_string();
        let (stop, stopped) = watch::channel(false);
        let folder = KeptFolder::new("channel", folder.to_owned(), None)?;
        let router = http::tree::router(Arc::new(folder));
        runtime.spawn(async move {
            let serving = async {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                http::serve(router, listener, HttpSection::default(), stopped).await
            };
            if let Err(error) = serving.await {
                eprintln!("the web server ended: {error:#}");
            }
        });
        Ok(Self { address, _stop: stop, _runtime: runtime })
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }
}
