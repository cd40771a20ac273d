//! Growth and latency as pictures: a few lines in one pair of axes, as SVG.
//!
//! The points are a JSON file, and the picture beside it is drawn from that file alone:
//!
//! ```json
//! {
//!   "title": "Appending to a log that grows",
//!   "x": {"label": "entries in the log", "scale": "log"},
//!   "y": {"label": "appends/s", "scale": "linear"},
//!   "series": [{"name": "256-byte entries", "points": [[10000, 150000], [1000000, 149000]]}]
//! }
//! ```
//!
//! A measurement calls [`Bench::picture`](crate::bench::Bench::picture) with such points;
//! `clerestory-bench run --pictures docs/performance` writes both files, and
//! `clerestory-bench draw docs/performance/*.json` draws again. A test compares what is committed.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};
use stdx::durable;

use crate::row::number;
use crate::samples::Samples;

mod axis;

pub(crate) use axis::{Axis, Scale};

/// Lines in one pair of axes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Picture {
    pub(crate) title: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    /// At most [`COLOURS`] of them.
    pub(crate) series: Vec<Series>,
}

/// One line.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// Hues that differ in lightness too, and have enough contrast on white and on black.
const COLOURS: [&str; 6] = ["#2a78d6", "#c2570c", "#0e8a6d", "#a0479e", "#9a7b00", "#c43a4b"];
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 400.0;
/// Where the lines are drawn: left, top, right, bottom.
const PLOT: [f64; 4] = [84.0, 66.0, 700.0, 342.0];
/// So few points are shown as dots, each of them measured.
const DOTS_MAX: usize = 16;

/// Draws `FILE.json` as `FILE.svg`.
pub(crate) fn draw_file(file: &Path) -> anyhow::Result<()> {
    let picture = Picture::read(file)?;
    let to = file.with_extension("svg");
    durable::write(&to, picture.to_svg()?.as_bytes()).with_context(|| format!("can't write `{}`", to.display()))
}

impl Picture {
    /// How long runs took, up to the slowest of a hundred: a line for each of several things.
    pub(crate) fn of_latencies(title: &str, unit: &str, lines: &[(&str, &Samples)]) -> Self {
        let axis = |label: String| Axis { label, scale: Scale::Linear };
        let line = |(name, samples): &(&str, &Samples)| Series {
            name: (*name).to_owned(),
            points: samples.distribution(99.0),
        };
        Self {
            title: title.to_owned(),
            x: axis(unit.to_owned()),
            y: axis("% of runs that take at most this".to_owned()),
            series: lines.iter().map(line).collect(),
        }
    }

    fn read(file: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(file).with_context(|| format!("can't read `{}`", file.display()))?;
        serde_json::from_str(&text).with_context(|| format!("`{}` holds no points", file.display()))
    }

    /// Writes `NAME.json` and `NAME.svg`.
    pub(crate) fn write(&self, folder: &Path, name: &str) -> anyhow::Result<()> {
        durable::create_folder(folder).with_context(|| format!("can't make `{}`", folder.display()))?;
        let file = folder.join(format!("{name}.json"));
        let mut text = serde_json::to_string(self)?.replace("{\"name\"", "\n{\"name\"");
        text.push('\n');
        durable::write(&file, text.as_bytes()).with_context(|| format!("can't write `{}`", file.display()))?;
        draw_file(&file)
    }

    /// The picture.
    pub(crate) fn to_svg(&self) -> anyhow::Result<String> {
        ensure!(!self.series.is_empty() && self.series.len() <= COLOURS.len(), "1 to {} lines fit", COLOURS.len());
        let points = || self.series.iter().flat_map(|series| &series.points);
        ensure!(points().all(|(x, y)| x.is_finite() && y.is_finite()), "a point is no number");
        let x = self.x.over(points().map(|point| point.0))?;
        let y = self.y.over(points().map(|point| point.1))?;
        let [left, top, right, bottom] = PLOT;
        let place =
            |point: &(f64, f64)| (left + x.share(point.0) * (right - left), bottom - y.share(point.1) * (bottom - top));
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
             font-family=\"system-ui, sans-serif\" font-size=\"13\">\n\
             <title>{title}</title>\n\
             <style>\n\
             .paper {{ fill: #ffffff }} text {{ fill: #333b45 }} .grid {{ stroke: #d9dee4 }} .frame {{ stroke: #7b8794 }}\n\
             @media (prefers-color-scheme: dark) {{\n\
             .paper {{ fill: #14181d }} text {{ fill: #d6dce3 }} .grid {{ stroke: #2f3740 }} .frame {{ stroke: #8a96a3 }}\n\
             }}\n\
             </style>\n\
             <rect class=\"paper\" width=\"{WIDTH}\" height=\"{HEIGHT}\" rx=\"6\"/>\n\
             <text x=\"20\" y=\"28\" font-size=\"16\" font-weight=\"600\">{title}</text>\n",
            title = escaped(&self.title)
        );
        for tick in y.ticks() {
            let (_, at) = place(&(x.start(), tick));
            writeln!(svg, "<line class=\"grid\" x1=\"{left}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\"/>")?;
            writeln!(
                svg,
                "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                left - 8.0,
                at + 4.5,
                short(tick)
            )?;
        }
        for tick in x.ticks() {
            let (at, _) = place(&(tick, y.start()));
            writeln!(svg, "<line class=\"grid\" x1=\"{at:.1}\" y1=\"{top}\" x2=\"{at:.1}\" y2=\"{bottom}\"/>")?;
            writeln!(svg, "<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>", bottom + 19.0, short(tick))?;
        }
        writeln!(svg, "<path class=\"frame\" fill=\"none\" d=\"M{left} {top}V{bottom}H{right}\"/>")?;
        let (middle, side) = (f64::midpoint(left, right), f64::midpoint(top, bottom));
        writeln!(
            svg,
            "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            HEIGHT - 14.0,
            escaped(&self.x.label)
        )?;
        writeln!(
            svg,
            "<text transform=\"translate(20 {side}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            escaped(&self.y.label)
        )?;
        let mut legend = left;
        for (series, colour) in self.series.iter().zip(COLOURS) {
            svg.push_str(&line(series, colour, place)?);
            writeln!(svg, "<rect x=\"{legend:.1}\" y=\"46\" width=\"14\" height=\"4\" fill=\"{colour}\"/>")?;
            writeln!(svg, "<text x=\"{:.1}\" y=\"53\">{}</text>", legend + 20.0, escaped(&series.name))?;
            // A letter of this size is about 7 wide.
            legend += 44.0 + 7.0 * series.name.chars().count() as f64;
        }
        svg.push_str("</svg>\n");
        Ok(svg)
    }
}

fn line(series: &Series, colour: &str, place: impl Fn(&(f64, f64)) -> (f64, f64)) -> anyhow::Result<String> {
    let mut path = String::new();
    let mut dots = String::new();
    for (index, point) in series.points.iter().enumerate() {
        let (x, y) = place(point);
        write!(path, "{}{x:.1} {y:.1}", if index == 0 { "M" } else { "L" })?;
        if series.points.len() <= DOTS_MAX {
            let (said_x, said_y) = (number(point.0), number(point.1));
            writeln!(
                dots,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{colour}\"><title>{said_x}: {said_y}</title></circle>"
            )?;
        }
    }
    Ok(format!(
        "<path fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" stroke-linejoin=\"round\" d=\"{path}\"/>\n{dots}"
    ))
}

/// A tick's number: thousands and millions as letters.
fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 1e9 => format!("{} G", number(value / 1e9)),
        size if size >= 1e6 => format!("{} M", number(value / 1e6)),
        size if size >= 1e3 => format!("{} k", number(value / 1e3)),
        _ => number(value),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Axis, Picture, Scale, Series};

    fn sample(points: &[(f64, f64)]) -> Picture {
        let axis = |label: &str, scale| Axis { label: label.to_owned(), scale };
        Picture {
            title: "a < b".to_owned(),
            x: axis("entries", Scale::Log),
            y: axis("appends/s", Scale::Linear),
            series: vec![Series { name: "ours".to_owned(), points: points.to_vec() }],
        }
    }

    #[test]
    fn a_picture_shows_its_points_and_units() {
        let svg = sample(&[(1e4, 1000.0), (1e7, 900.0)]).to_svg().unwrap();
        assert!(svg.contains("a &lt; b") && svg.contains(">entries<") && svg.contains(">appends/s<"), "{svg}");
        assert!(svg.contains(">10 k<") && svg.contains(">10 M<"), "{svg}");
        assert_eq!(svg.matches("<circle").count(), 2);
    }

    #[test]
    fn what_cannot_be_drawn_is_refused() {
        assert!(sample(&[]).to_svg().is_err());
        assert!(sample(&[(0.0, 1.0)]).to_svg().is_err(), "no zero on a logarithmic axis");
        assert!(sample(&[(1.0, f64::NAN)]).to_svg().is_err());
    }

    /// `clerestory-bench draw docs/performance/*.json` mends it.
    #[test]
    fn committed_pictures_show_their_points() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/performance");
        let Ok(entries) = std::fs::read_dir(folder) else { return };
        for file in entries.map(|entry| entry.unwrap().path()).filter(|file| file.extension().unwrap() == "json") {
            let svg = std::fs::read_to_string(file.with_extension("svg")).unwrap();
            assert_eq!(svg, Picture::read(&file).unwrap().to_svg().unwrap(), "{}", file.display());
        }
    }
}
