//! A diagnosis as a tree of text, without colours.

use std::fmt;

use super::{Cause, Difference, Excerpt, Finding, Identical, Role, Verdict};

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identical(identical) => identical.fmt(f),
            Self::Different(difference) => difference.fmt(f),
        }
    }
}

impl fmt::Display for Identical {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "identical: {} outputs, byte for byte", self.outputs().len())?;
        for (name, measured) in self.outputs() {
            writeln!(f, "  {} {:>12} {}", measured.sha256, measured.size, Excerpt::of(name.as_bytes()))?;
        }
        Ok(())
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let causes: Vec<_> = self.causes().iter().map(|cause| cause.name()).collect();
        writeln!(f, "different: {}", causes.join(", "))?;
        writeln!(f, "({})", self.remark().words())?;
        let mut shown: &[Excerpt] = &[];
        for finding in self.findings() {
            let parts = finding.member.parts();
            let same = shown.iter().zip(parts).take_while(|(left, right)| left == right).count();
            for (depth, part) in parts.iter().enumerate().skip(same) {
                writeln!(f, "{}{}{part}", "  ".repeat(depth), if depth == 0 { "" } else { "▸ " })?;
            }
            shown = parts;
            write_finding(f, finding)?;
        }
        for stop in self.stops() {
            writeln!(f, "cut short: {}", stop.words())?;
        }
        if self.left_out() > 0 {
            writeln!(f, "{} more findings", self.left_out())?;
        }
        Ok(())
    }
}

fn write_finding(f: &mut fmt::Formatter<'_>, finding: &Finding) -> fmt::Result {
    let indent = "  ".repeat(finding.member.parts().len());
    let more = match finding.more {
        0 => String::new(),
        count => format!(" (and {count} more like it)"),
    };
    match finding.role {
        Role::Cause => writeln!(f, "{indent}{}: {}{more}", finding.cause, finding.what)?,
        Role::Consequence if finding.cause == Cause::Content => writeln!(f, "{indent}follows: {}{more}", finding.what)?,
        Role::Consequence => writeln!(f, "{indent}follows: {}, {}{more}", finding.cause, finding.what)?,
    }
    for (sign, excerpt) in [('-', &finding.left), ('+', &finding.right)] {
        if let Some(excerpt) = excerpt {
            writeln!(f, "{indent}  {sign} {excerpt}")?;
        }
    }
    Ok(())
}
