//! Samples of one quantity.

/// All samples of one quantity, sorted; never none.
#[derive(Clone, Debug)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    /// # Errors
    /// Without a sample there is nothing to say, and a figure that is no number says nothing.
    pub(crate) fn new(mut samples: Vec<f64>) -> anyhow::Result<Self> {
        anyhow::ensure!(!samples.is_empty(), "nothing was measured");
        anyhow::ensure!(samples.iter().all(|sample| sample.is_finite()), "a sample is no number");
        samples.sort_by(f64::total_cmp);
        Ok(Self(samples))
    }

    /// A quantity that one look tells, such as a size on disk.
    pub(crate) fn one(sample: f64) -> Self {
        Self(vec![sample])
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The smallest sample that `percent` of all samples do not exceed (nearest rank).
    pub(crate) fn percentile(&self, percent: f64) -> f64 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank among the samples")]
        let rank = (percent / 100.0 * self.0.len() as f64).ceil().max(1.0) as usize;
        let index = rank.min(self.0.len()) - 1;
        self.0.get(index).copied().unwrap_or(f64::NAN)
    }

    /// The middle one, or the mean of the two in the middle.
    pub(crate) fn median(&self) -> f64 {
        let middle = self.0.len() / 2;
        let upper = self.0.get(middle).copied().unwrap_or(f64::NAN);
        if self.0.len() % 2 == 1 {
            return upper;
        }
        f64::midpoint(self.0.get(middle.saturating_sub(1)).copied().unwrap_or(f64::NAN), upper)
    }

    pub(crate) fn min(&self) -> f64 {
        self.0.first().copied().unwrap_or(f64::NAN)
    }

    pub(crate) fn max(&self) -> f64 {
        self.0.last().copied().unwrap_or(f64::NAN)
    }

    /// The width of the middle half of the samples, as a share of the median.
    pub(crate) fn spread(&self) -> f64 {
        let median = self.median();
        if median == 0.0 { 0.0 } else { (self.percentile(75.0) - self.percentile(25.0)) / median }
    }

    /// Points of the distribution up to `percent`: at which value (x) how many percent of all
    /// samples lie (y). About 200 points, so that a picture stays small; its axis need not reach
    /// the one slowest run.
    pub(crate) fn distribution(&self, percent: f64) -> Vec<(f64, f64)> {
        let share = |index: usize| (index + 1) as f64 / self.0.len() as f64 * 100.0;
        let shown = (0..self.0.len()).take_while(|index| share(*index) <= percent).count().max(1);
        let step = shown.div_ceil(200);
        let kept = self.0.iter().take(shown).enumerate().filter(|(index, _)| index % step == 0 || index + 1 == shown);
        kept.map(|(index, value)| (*value, share(index))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Samples;

    #[test]
    fn ranks_are_the_nearest() {
        let samples = Samples::new((1..=100).rev().map(f64::from).collect()).unwrap();
        assert_eq!(samples.percentile(50.0).to_string(), "50");
        assert_eq!(samples.percentile(99.0).to_string(), "99");
        assert_eq!(samples.percentile(100.0).to_string(), "100");
        assert_eq!(samples.median().to_string(), "50.5");
        assert_eq!((samples.min().to_string(), samples.max().to_string()), ("1".to_owned(), "100".to_owned()));
        assert!((samples.spread() - 50.0 / 50.5).abs() < 1e-9);
    }

    #[test]
    fn one_sample_is_all_of_them() {
        let samples = Samples::one(7.0);
        assert_eq!([samples.percentile(0.0), samples.percentile(99.0), samples.median()], [7.0; 3]);
        assert_eq!(samples.spread().to_string(), "0");
    }

    #[test]
    fn nothing_is_no_measurement() {
        assert!(Samples::new(Vec::new()).is_err());
        assert!(Samples::new(vec![f64::NAN]).is_err());
    }

    #[test]
    fn a_distribution_ends_with_the_slowest() {
        let samples = Samples::new((1..=1000).map(f64::from).collect()).unwrap();
        let points = samples.distribution(100.0);
        assert!(points.len() <= 201);
        assert_eq!(points.last(), Some(&(1000.0, 100.0)));
        assert_eq!(samples.distribution(99.0).last(), Some(&(990.0, 99.0)));
    }
}
