//! Circumstances that must not matter, made different on purpose.

use serde::{Deserialize, Serialize};
use stdx::{Digest, durable};

use crate::inputs::{Depot, InputsError, io_at};
use crate::source::Order;
use crate::tool::{ToolError, compile_shared};

/// Source of the library that moves the clock and turns listings around.
const SHIM: &str = include_str!("shim.c");
/// 400 days: another year, month, week day and daylight saving.
const CLOCK_OFFSET_SECONDS: i64 = 400 * 24 * 3_600;

/// What a build sees that should make no difference to what comes out. All of it is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conditions {
    /// The folder below which everything is written, and so its path's length and depth.
    pub base: String,
    /// Where vendored crates are shown: a name below `/`.
    pub vendor: String,
    /// User and group id inside.
    pub uid: u32,
    /// How many processors the build may use; all, if none is given.
    pub processors: Option<std::num::NonZeroU16>,
    /// Seconds added to the clock that programs see.
    pub clock_offset_seconds: i64,
    /// The host name inside.
    pub hostname: String,
    /// The file mode creation mask.
    pub umask: u16,
    /// `TZ`.
    pub time_zone: String,
    /// In which order the source's files are made.
    pub file_order: Order,
    /// In which order programs see folders listed.
    pub listing: Listing,
    /// How many process ids are used up before the build starts.
    pub process_ids_skipped: u16,
    /// The time of the source's files, in seconds.
    pub source_time: u64,
}

/// The order in which programs see folders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Listing {
    /// As the file system has it.
    Natural,
    /// Turned around.
    Reversed,
}

impl Conditions {
    /// Plain circumstances, as a vendor's builder has.
    #[must_use]
    pub fn plain() -> Self {
        Self {
            base: "/build".to_owned(),
            vendor: "vendor".to_owned(),
            uid: 1_000,
            processors: None,
            clock_offset_seconds: 0,
            hostname: "builder".to_owned(),
            umask: 0o022,
            time_zone: "UTC".to_owned(),
            file_order: Order::Ascending,
            listing: Listing::Natural,
            process_ids_skipped: 0,
            source_time: 1_000_000_000,
        }
    }

    /// Circumstances in which everything differs from [`Conditions::plain`], drawn from `seed` (the
    /// digest of what is rebuilt), so that rebuilds of different things differ among each other too.
    #[must_use]
    pub fn different(seed: &Digest) -> Self {
        let byte = |index: usize| seed.as_bytes().get(index).copied().unwrap_or_default();
        let pick = |index: usize, choices: &[&str]| {
            let choice = choices.get(usize::from(byte(index)).checked_rem(choices.len()).unwrap_or_default());
            choice.map_or_else(String::new, |text| (*text).to_owned())
        };
        let zone = pick(0, &["Asia/Tokyo", "America/St_Johns", "Australia/Lord_Howe", "Pacific/Apia"]);
        let host = pick(1, &["rebuild", "second-look", "b", "supervisor-west"]);
        Self {
            base: format!("/r{:02x}/rebuild/of/{}", byte(2), pick(3, &["it", "this-product", "x/y"])),
            vendor: format!("crates{:02x}", byte(4)),
            uid: 2_000 + u32::from(byte(5)),
            processors: std::num::NonZeroU16::new(1),
            clock_offset_seconds: CLOCK_OFFSET_SECONDS + i64::from(byte(6)) * 3_607,
            hostname: format!("{host}-{:02x}", byte(7)),
            umask: if byte(8).is_multiple_of(2) { 0o002 } else { 0o027 },
            time_zone: posix_zone(&zone),
            file_order: Order::Descending,
            listing: Listing::Reversed,
            process_ids_skipped: 50 + u16::from(byte(9)),
            source_time: 1_100_000_000 + u64::from(byte(10)) * 86_461,
        }
    }

    /// Whether the shim is needed to have them.
    pub(crate) fn needs_shim(&self) -> bool {
        self.clock_offset_seconds != 0 || self.listing == Listing::Reversed
    }
}

/// As a POSIX rule, which needs no time-zone database in the environment.
fn posix_zone(name: &str) -> String {
    match name {
        "Asia/Tokyo" => "JST-9",
        "America/St_Johns" => "NST3:30NDT,M3.2.0,M11.1.0",
        "Australia/Lord_Howe" => "<+1030>-10:30<+11>-11,M10.1.0,M4.1.0",
        _ => "<+13>-13",
    }
    .to_owned()
}

/// The compiled shim, made by the host's C compiler once for a depot.
pub(crate) fn shim(depot: &Depot) -> Result<std::path::PathBuf, ShimError> {
    let object = depot.part("work").join(format!("shim-{}.so", Digest::of(SHIM.as_bytes())));
    if !object.exists() {
        let work = depot.work("shim")?;
        let source = work.path().join("shim.c");
        durable::write(&source, SHIM.as_bytes()).map_err(io_at(&source))?;
        let built = work.path().join("shim.so");
        compile_shared(&source, &built)?;
        durable::rename(&built, &object).map_err(io_at(&object))?;
    }
    Ok(object)
}

/// The shim cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ShimError {
    /// The compiler.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// The depot.
    #[error(transparent)]
    Inputs(#[from] InputsError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_differs() {
        let plain = serde_json::to_value(Conditions::plain()).unwrap();
        let different = serde_json::to_value(Conditions::different(&Digest::of(b"x"))).unwrap();
        for (name, value) in plain.as_object().unwrap() {
            assert_ne!(value, &different[name], "{name}");
        }
        assert_ne!(Conditions::different(&Digest::of(b"x")), Conditions::different(&Digest::of(b"y")));
    }
}
