//! Countries, by the two letters that ISO 3166-1 gives them.

use std::{fmt, str};

use serde::{Deserialize, Deserializer, Serialize, de};

/// The officially assigned codes (ISO 3166-1 alpha-2), ascending. A text that is none of them is a slip
/// of the pen, which in a policy would leave a country's data without a place, or give it one by accident.
const ASSIGNED: &str = "\
AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW \
BY BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI \
FJ FK FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN \
IO IQ IR IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME \
MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF \
PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV \
SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE \
YT ZA ZM ZW";

/// A country, such as `CH`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct CountryCode(&'static str);

/// A text that is no country's code.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is no country: two capital letters of ISO 3166-1, such as `CH`")]
pub struct CountryError(String);

impl CountryCode {
    /// The two letters.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.0
    }

    /// Every country, ascending.
    pub fn all() -> impl Iterator<Item = Self> {
        ASSIGNED.split(' ').map(Self)
    }
}

impl fmt::Display for CountryCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl str::FromStr for CountryCode {
    type Err = CountryError;

    fn from_str(text: &str) -> Result<Self, CountryError> {
        let refuse = || CountryError(text.chars().take(80).collect());
        Self::all().find(|country| country.0 == text).ok_or_else(refuse)
    }
}

impl<'de> Deserialize<'de> for CountryCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::CountryCode;

    #[test]
    fn countries_have_one_spelling_and_there_are_249() {
        let all: Vec<CountryCode> = CountryCode::all().collect();
        assert_eq!(all.len(), 249);
        assert!(all.is_sorted_by(|left, right| left < right));
        for country in all {
            assert_eq!(country.as_str().parse(), Ok(country));
        }
        // Lower case, three letters, what was never assigned, and what no longer is.
        for bad in ["", "ch", "CHE", "XX", "EU", "UK", "SU", "C", " CH", "AD AE"] {
            assert!(bad.parse::<CountryCode>().is_err(), "{bad}");
        }
    }
}
