//! A bar on a terminal, plain lines elsewhere.

use std::cell::RefCell;
use std::io::IsTerminal as _;

use agent::Progress;
use indicatif::{ProgressBar, ProgressStyle};

/// Smaller downloads are over before anyone could read about them.
const BYTES_MIN: u64 = 1 << 20;

/// Shows long downloads on standard error.
#[derive(Debug, Default)]
pub(crate) struct Bar(RefCell<Option<ProgressBar>>);

impl Progress for Bar {
    fn begin(&self, what: &str, bytes: u64) {
        if bytes < BYTES_MIN {
            return;
        }
        if !std::io::stderr().is_terminal() {
            eprintln!("fetching {what}, {bytes} bytes");
            return;
        }
        let bar = ProgressBar::new(bytes).with_message(what.to_owned());
        let style = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes}, {eta}");
        *self.0.borrow_mut() = Some(style.map_or_else(|_| bar.clone(), |style| bar.clone().with_style(style)));
    }

    fn add(&self, bytes: u64) {
        if let Some(bar) = &*self.0.borrow() {
            bar.inc(bytes);
        }
    }

    fn end(&self) {
        if let Some(bar) = self.0.borrow_mut().take() {
            bar.finish_and_clear();
        }
    }
}
