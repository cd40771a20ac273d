//! The timeline, for a terminal and as SVG.

use std::fmt::Write as _;

use crate::search::Bucket;

/// Characters of the longest bar.
const BAR_CHARS: u64 = 50;

/// A picture's size, with room for a line of text above and below.
const WIDTH: u64 = 960;
const HEIGHT: u64 = 240;
const EDGE: u64 = 24;

/// One line for each piece: when, a bar, how many; `!` and a number for those that did not end as they should.
#[must_use]
pub fn bars(timeline: &[Bucket]) -> String {
    let most = most(timeline);
    let mut text = String::new();
    for bucket in timeline {
        let full = "█".repeat(usize::try_from(bucket.total * BAR_CHARS / most).unwrap_or(0));
        let full = if full.is_empty() && bucket.total > 0 { "▏".to_owned() } else { full };
        let bad = if bucket.bad > 0 { format!(" !{}", bucket.bad) } else { String::new() };
        // Writing into a string does not fail.
        let _ = writeln!(text, "{} {full} {}{bad}", bucket.from, bucket.total);
    }
    text
}

/// The same as a picture: grey for all, red for those that did not end as they should.
#[must_use]
pub fn svg(timeline: &[Bucket]) -> String {
    let most = most(timeline);
    let count = u64::try_from(timeline.len()).unwrap_or(1).max(1);
    let step = (WIDTH - 2 * EDGE) / count;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<title>Accesses over time</title>\n"
    );
    for (bucket, number) in timeline.iter().zip(0..) {
        let (x, width) = (EDGE + number * step, step.saturating_sub(1).max(1));
        let high = |value: u64| value * (HEIGHT - 2 * EDGE) / most;
        for (value, colour) in [(bucket.total, "#78909c"), (bucket.bad, "#c62828")] {
            let height = if value > 0 { high(value).max(1) } else { 0 };
            let y = HEIGHT - EDGE - height;
            let _ = writeln!(
                text,
                "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" fill=\"{colour}\">\
                 <title>{} to {}: {}, {} of them not as they should, {} bytes</title></rect>",
                bucket.from, bucket.until, bucket.total, bucket.bad, bucket.bytes
            );
        }
    }
    let (first, last) = (timeline.first(), timeline.last());
    let at = HEIGHT - 6;
    if let (Some(first), Some(last)) = (first, last) {
        let end = WIDTH - EDGE;
        let _ = writeln!(text, "<text x=\"{EDGE}\" y=\"16\">at most {most}</text>");
        let _ = writeln!(text, "<text x=\"{EDGE}\" y=\"{at}\">{}</text>", first.from);
        let _ = writeln!(text, "<text x=\"{end}\" y=\"{at}\" text-anchor=\"end\">{}</text>", last.until);
    }
    text.push_str("</svg>\n");
    text
}

fn most(timeline: &[Bucket]) -> u64 {
    timeline.iter().map(|bucket| bucket.total).max().unwrap_or(0).max(1)
}
