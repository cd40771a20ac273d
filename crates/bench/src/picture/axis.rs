//! An axis: from values to places, and where its ticks are.

use anyhow::ensure;
use serde::{Deserialize, Serialize};

/// What an axis shows, with its unit, and how.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Axis {
    pub(crate) label: String,
    pub(crate) scale: Scale,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Scale {
    /// From zero.
    Linear,
    /// From a power of ten to another.
    Log,
}

impl Axis {
    /// The axis over these values.
    pub(super) fn over(&self, values: impl Iterator<Item = f64>) -> anyhow::Result<Range> {
        let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values {
            least = least.min(value);
            most = most.max(value);
        }
        ensure!(least <= most, "`{}` has no points", self.label);
        match self.scale {
            Scale::Log => {
                ensure!(least > 0.0, "`{}` is logarithmic and has {least}", self.label);
                let (start, end) = (least.log10().floor(), most.log10().ceil());
                Ok(Range { scale: Scale::Log, start, end: if end > start { end } else { start + 1.0 }, step: 1.0 })
            }
            Scale::Linear => {
                let step = step(most.max(least.abs()).max(f64::MIN_POSITIVE));
                let end = (most / step).ceil().max(1.0) * step;
                Ok(Range { scale: Scale::Linear, start: (least / step).floor().min(0.0) * step, end, step })
            }
        }
    }
}

/// A round step that gives about five ticks up to `most`.
fn step(most: f64) -> f64 {
    let rough = most / 5.0;
    let power = 10f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 2.5, 5.0].into_iter().find(|factor| rough <= factor * power).unwrap_or(10.0);
    factor * power
}

/// An axis with its ends, in powers of ten if it is logarithmic.
pub(super) struct Range {
    scale: Scale,
    start: f64,
    end: f64,
    step: f64,
}

impl Range {
    /// The value where it starts.
    pub(super) fn start(&self) -> f64 {
        self.value(self.start)
    }

    /// Where `value` lies, from 0 to 1.
    pub(super) fn share(&self, value: f64) -> f64 {
        let value = if self.scale == Scale::Log { value.log10() } else { value };
        (value - self.start) / (self.end - self.start)
    }

    pub(super) fn ticks(&self) -> Vec<f64> {
        #[expect(clippy::cast_possible_truncation, reason = "a handful of ticks")]
        let count = ((self.end - self.start) / self.step).round() as i32;
        (0..=count).map(|index| self.value(self.start + f64::from(index) * self.step)).collect()
    }

    fn value(&self, place: f64) -> f64 {
        if self.scale == Scale::Log { 10f64.powf(place) } else { place }
    }
}

#[cfg(test)]
mod tests {
    use super::{Axis, Scale};

    fn ticks(scale: Scale, values: &[f64]) -> Vec<String> {
        let axis = Axis { label: "a".to_owned(), scale };
        axis.over(values.iter().copied()).unwrap().ticks().iter().map(|tick| format!("{tick:.2}")).collect()
    }

    #[test]
    fn ticks_are_round_and_hold_all_values() {
        assert_eq!(ticks(Scale::Linear, &[3.0, 9.7]), ["0.00", "2.00", "4.00", "6.00", "8.00", "10.00"]);
        assert_eq!(ticks(Scale::Linear, &[0.0]), ["0.00", "0.00"]);
        assert_eq!(ticks(Scale::Log, &[20.0, 900.0]), ["10.00", "100.00", "1000.00"]);
        assert_eq!(ticks(Scale::Log, &[10.0]), ["10.00", "100.00"]);
    }
}
