//! What a measurement has at hand: a clock, a folder on a real disk, and where its rows go.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use stdx::{Clock as _, SystemClock, durable};

use crate::picture::Picture;
use crate::programs::Programs;
use crate::row::Row;
use crate::samples::Samples;

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    Full,
    /// As little as shows that it runs.
    Quick,
}

impl Scale {
    pub(crate) const fn of(self, full: usize, quick: usize) -> usize {
        match self {
            Self::Full => full,
            Self::Quick => quick,
        }
    }
}

/// One measurement that is under way.
pub(crate) struct Bench {
    name: &'static str,
    scale: Scale,
    clock: SystemClock,
    folder: PathBuf,
    cache: PathBuf,
    pictures: Option<PathBuf>,
    rows: Vec<Row>,
}

/// Where a measurement's files go.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// On the disk that is measured; removed afterwards.
    pub(crate) scratch: PathBuf,
    /// What was fetched, kept for the next time.
    pub(crate) cache: PathBuf,
    /// Pictures and their points, if they are wanted.
    pub(crate) pictures: Option<PathBuf>,
}

impl Bench {
    /// A measurement whose files go into a new folder.
    pub(crate) fn new(name: &'static str, scale: Scale, places: &Places) -> anyhow::Result<Self> {
        let folder = places.scratch.join(name.replace('/', "-"));
        durable::create_folder(&folder).with_context(|| format!("can't make `{}`", folder.display()))?;
        let (cache, pictures) = (places.cache.clone(), places.pictures.clone());
        let bench = Self { name, scale, clock: SystemClock::new(), folder, cache, pictures, rows: Vec::new() };
        bench.say("begins");
        Ok(bench)
    }

    pub(crate) const fn scale(&self) -> Scale {
        self.scale
    }

    /// A folder of this measurement's own, on the disk that is measured.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// What was fetched from elsewhere, kept for the next time.
    pub(crate) fn cache(&self) -> &Path {
        &self.cache
    }

    /// The programs under measurement.
    pub(crate) fn programs(&self) -> anyhow::Result<Programs> {
        Programs::beside_this()
    }

    /// Progress, for people.
    pub(crate) fn say(&self, what: &str) {
        eprintln!("{:>8.1} s  {}: {what}", self.clock.monotonic().as_secs_f64(), self.name);
    }

    /// Seconds since this measurement began.
    pub(crate) fn seconds(&self) -> f64 {
        self.clock.monotonic().as_secs_f64()
    }

    /// How many seconds `work` takes, and what it gives.
    pub(crate) fn time<T>(&self, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<(f64, T)> {
        let start = self.clock.monotonic();
        let done = work()?;
        Ok(((self.clock.monotonic() - start).as_secs_f64(), done))
    }

    /// `runs` of each in turn, after one of each as warm-up; who begins alternates. Both give
    /// their figure in the row's unit.
    pub(crate) fn interleaved(
        &self,
        runs: usize,
        mut ours: impl FnMut() -> anyhow::Result<f64>,
        mut reference: impl FnMut() -> anyhow::Result<f64>,
    ) -> anyhow::Result<(Samples, Samples)> {
        ours()?;
        reference()?;
        let (mut of_ours, mut of_reference) = (Vec::with_capacity(runs), Vec::with_capacity(runs));
        for run in 0..runs {
            if run % 2 == 0 {
                of_ours.push(ours()?);
                of_reference.push(reference()?);
            } else {
                of_reference.push(reference()?);
                of_ours.push(ours()?);
            }
        }
        Ok((Samples::new(of_ours)?, Samples::new(of_reference)?))
    }

    /// Adds a figure. Its name is this measurement's, or begins with it and a `/`.
    pub(crate) fn row(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Writes the points and the picture `NAME.json` and `NAME.svg`, if pictures are wanted.
    pub(crate) fn picture(&self, name: &str, picture: &Picture) -> anyhow::Result<()> {
        self.pictures.as_ref().map_or(Ok(()), |folder| picture.write(folder, name))
    }

    /// The rows; their names are this measurement's.
    pub(crate) fn finish(self) -> anyhow::Result<Vec<Row>> {
        anyhow::ensure!(!self.rows.is_empty(), "no figure came out");
        for row in &self.rows {
            let rest = row.name().strip_prefix(self.name);
            anyhow::ensure!(
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
                "the row `{}` is not named after `{}`",
                row.name(),
                self.name
            );
        }
        std::fs::remove_dir_all(&self.folder).with_context(|| format!("can't remove `{}`", self.folder.display()))?;
        Ok(self.rows)
    }
}
