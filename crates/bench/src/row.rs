//! One figure, with what it is compared to and what it should be.

use std::fmt;

use serde::Serialize;

use crate::samples::Samples;

/// What of the samples is the figure.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Figure {
    Median,
    Percentile(f64),
    /// The largest, for sizes and peaks.
    Max,
}

impl Figure {
    fn of(self, samples: &Samples) -> f64 {
        match self {
            Self::Median => samples.median(),
            Self::Percentile(percent) => samples.percentile(percent),
            Self::Max => samples.max(),
        }
    }
}

/// What a figure should be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    /// In the row's unit.
    AtMost(f64),
    /// In the row's unit.
    AtLeast(f64),
    /// Ours divided by the reference.
    RatioAtMost(f64),
    /// Ours divided by the reference.
    RatioAtLeast(f64),
}

impl Target {
    fn is_met(self, row: &Row) -> bool {
        let ratio = row.ratio();
        match self {
            Self::AtMost(limit) => row.ours <= limit,
            Self::AtLeast(limit) => row.ours >= limit,
            Self::RatioAtMost(limit) => ratio.is_some_and(|ratio| ratio <= limit),
            Self::RatioAtLeast(limit) => ratio.is_some_and(|ratio| ratio >= limit),
        }
    }

    fn text(self, unit: &str) -> String {
        match self {
            Self::AtMost(limit) => format!("at most {} {unit}", number(limit)),
            Self::AtLeast(limit) => format!("at least {} {unit}", number(limit)),
            Self::RatioAtMost(limit) => format!("at most {limit} of the reference"),
            Self::RatioAtLeast(limit) => format!("at least {limit} of the reference"),
        }
    }
}

/// One figure.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    name: String,
    unit: &'static str,
    ours: f64,
    reference: Option<f64>,
    samples: Samples,
    targets: Vec<Target>,
}

impl Row {
    pub(crate) fn new(name: impl Into<String>, unit: &'static str, figure: Figure, ours: &Samples) -> Self {
        let targets = Vec::new();
        Self { name: name.into(), unit, ours: figure.of(ours), reference: None, samples: ours.clone(), targets }
    }

    /// Measured in the same run, in the same unit. The same figure is taken of it.
    pub(crate) fn against(mut self, figure: Figure, reference: &Samples) -> Self {
        self.reference = Some(figure.of(reference));
        self
    }

    pub(crate) fn target(mut self, target: Target) -> Self {
        self.targets.push(target);
        self
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn ratio(&self) -> Option<f64> {
        self.reference.filter(|reference| *reference != 0.0).map(|reference| self.ours / reference)
    }

    /// What the row says to machines.
    pub(crate) fn to_json(&self, machine: &str) -> serde_json::Result<String> {
        #[derive(Serialize)]
        struct Outcome {
            target: String,
            met: bool,
        }
        #[derive(Serialize)]
        struct Line<'row> {
            name: &'row str,
            ours: f64,
            reference: Option<f64>,
            ratio: Option<f64>,
            unit: &'row str,
            runs: usize,
            min: f64,
            max: f64,
            median: f64,
            spread: f64,
            targets: Vec<Outcome>,
            machine: &'row str,
        }
        let outcome = |target: &Target| Outcome { target: target.text(self.unit), met: target.is_met(self) };
        serde_json::to_string(&Line {
            name: &self.name,
            ours: self.ours,
            reference: self.reference,
            ratio: self.ratio(),
            unit: self.unit,
            runs: self.samples.count(),
            min: self.samples.min(),
            max: self.samples.max(),
            median: self.samples.median(),
            spread: self.samples.spread(),
            targets: self.targets.iter().map(outcome).collect(),
            machine,
        })
    }

    fn cells(&self) -> [String; 11] {
        let optional = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), number);
        let targets = self.targets.iter().map(|target| {
            let met = if target.is_met(self) { "met" } else { "NOT MET" };
            format!("{}: {met}", target.text(self.unit))
        });
        [
            self.name.clone(),
            number(self.ours),
            optional(self.reference),
            optional(self.ratio()),
            self.unit.to_owned(),
            self.samples.count().to_string(),
            number(self.samples.min()),
            number(self.samples.max()),
            number(self.samples.median()),
            format!("{:.0} %", self.samples.spread() * 100.0),
            targets.collect::<Vec<_>>().join("; "),
        ]
    }

    /// All rows for people.
    pub(crate) fn table(rows: &[Self]) -> String {
        let head = ["name", "ours", "reference", "ratio", "unit", "runs", "min", "max", "median", "spread", "target"];
        let lines: Vec<[String; 11]> =
            std::iter::once(head.map(str::to_owned)).chain(rows.iter().map(Self::cells)).collect();
        let mut widths = [0; 11];
        for (width, cell) in lines.iter().flat_map(widths_of) {
            if let Some(widest) = widths.get_mut(width) {
                *widest = cell.max(*widest);
            }
        }
        lines.iter().map(|line| format!("{}\n", padded(line, &widths).trim_end())).collect()
    }
}

fn widths_of(line: &[String; 11]) -> impl Iterator<Item = (usize, usize)> {
    line.iter().map(|cell| cell.chars().count()).enumerate()
}

/// Words to the left, numbers to the right.
fn padded(line: &[String; 11], widths: &[usize; 11]) -> String {
    let cells = line.iter().zip(widths).enumerate().map(|(index, (cell, &width))| match index {
        0 | 4 | 10 => format!("{cell:<width$}"),
        _ => format!("{cell:>width$}"),
    });
    cells.collect::<Vec<_>>().join("  ")
}

/// Three digits that say something; whole from a hundred on.
pub(crate) fn number(value: f64) -> String {
    struct Plain(f64);
    impl fmt::Display for Plain {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let size = self.0.abs();
            let digits = match size {
                size if size >= 100.0 || size == 0.0 => 0,
                size if size >= 10.0 => 1,
                size if size >= 1.0 => 2,
                size if size >= 0.1 => 3,
                _ => 4,
            };
            write!(f, "{:.digits$}", self.0)
        }
    }
    let text = Plain(value).to_string();
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::{Figure, Row, Target, number};
    use crate::samples::Samples;

    fn samples(values: &[f64]) -> Samples {
        Samples::new(values.to_vec()).unwrap()
    }

    #[test]
    fn a_row_says_what_was_measured_and_whether_it_is_enough() {
        let row = Row::new("a/b", "ms", Figure::Median, &samples(&[1.0, 2.0, 9.0]))
            .against(Figure::Median, &samples(&[1.0, 1.0]))
            .target(Target::AtMost(2.0))
            .target(Target::RatioAtMost(1.05));
        let line: serde_json::Value = serde_json::from_str(&row.to_json("two cores").unwrap()).unwrap();
        assert_eq!(line["ours"], 2.0);
        assert_eq!(line["ratio"], 2.0);
        assert_eq!((&line["runs"], &line["min"], &line["max"]), (&3.into(), &1.0.into(), &9.0.into()));
        assert_eq!(line["targets"][0]["target"], "at most 2 ms");
        assert_eq!(line["targets"][0]["met"], true);
        assert_eq!(line["targets"][1]["met"], false);
        assert!(Row::table(&[row]).contains("at most 1.05 of the reference: NOT MET"));
    }

    #[test]
    fn without_a_reference_there_is_no_ratio_to_meet() {
        let row = Row::new("a/b", "ms", Figure::Max, &samples(&[1.0, 3.0])).target(Target::RatioAtLeast(0.5));
        let line: serde_json::Value = serde_json::from_str(&row.to_json("").unwrap()).unwrap();
        assert_eq!((&line["ours"], &line["reference"]), (&3.0.into(), &serde_json::Value::Null));
        assert_eq!(line["targets"][0]["met"], false);
    }

    #[test]
    fn numbers_keep_what_says_something() {
        assert_eq!(
            [0.0, 0.01234, 0.5, 1.05, 12.34, 99_999.6].map(number),
            ["0", "0.0123", "0.5", "1.05", "12.3", "100000"]
        );
    }
}
