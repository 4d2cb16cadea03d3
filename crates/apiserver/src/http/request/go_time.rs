//! RFC 3339 times as Go parses them, and Go's errors for invalid ones.

/// Returns the error of Go's parser if the text is not a time.
pub(crate) fn problem(text: &str) -> Option<String> {
    Reader { rest: text }.time().err().map(|problem| match problem {
        Problem::Bad { rest, wanted } => {
            format!("parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {rest:?} as {wanted:?}")
        }
        Problem::Extra(rest) => format!("parsing time {text:?}: extra text: {rest:?}"),
        Problem::OutOfRange(what) => format!("parsing time {text:?}: {what} out of range"),
    })
}

enum Problem<'a> {
    Bad { rest: &'a str, wanted: &'static str },
    Extra(&'a str),
    OutOfRange(&'static str),
}

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn time(&mut self) -> Result<(), Problem<'a>> {
        let year = self.number("2006", 4, 4)?;
        self.skip("-")?;
        let month = self.within("month", "01", 2, 1..=12)?;
        self.skip("-")?;
        let day = self.number("02", 2, 2)?;
        self.skip("T")?;
        self.within("hour", "15", 1, 0..=23)?;
        self.skip(":")?;
        self.within("minute", "04", 2, 0..=59)?;
        self.skip(":")?;
        self.within("second", "05", 2, 0..=59)?;
        if let Some(fraction) = self.rest.strip_prefix(['.', ','])
            && fraction.starts_with(|it: char| it.is_ascii_digit())
        {
            self.rest = fraction.trim_start_matches(|it: char| it.is_ascii_digit());
        }
        self.zone()?;
        if !self.rest.is_empty() {
            return Err(Problem::Extra(self.rest));
        }
        let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let days = match month {
            2 => 28 + u32::from(is_leap),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        if (1..=days).contains(&day) { Ok(()) } else { Err(Problem::OutOfRange("day")) }
    }

    /// `Z`, or a sign, hours and minutes.
    fn zone(&mut self) -> Result<(), Problem<'a>> {
        if let Some(rest) = self.rest.strip_prefix('Z') {
            self.rest = rest;
            return Ok(());
        }
        let bytes = self.rest.as_bytes();
        let is_digit = |index: usize| bytes.get(index).is_some_and(u8::is_ascii_digit);
        let is_zone = matches!(bytes.first(), Some(b'+' | b'-'))
            && bytes.get(3) == Some(&b':')
            && [1, 2, 4, 5].into_iter().all(is_digit);
        if !is_zone {
            return Err(Problem::Bad { rest: self.rest, wanted: "Z07:00" });
        }
        let number = |from: usize| u32::from(bytes[from] - b'0') * 10 + u32::from(bytes[from + 1] - b'0');
        if number(1) > 24 {
            return Err(Problem::OutOfRange("time zone offset hour"));
        }
        if number(4) > 60 {
            return Err(Problem::OutOfRange("time zone offset minute"));
        }
        self.rest = &self.rest[6..];
        Ok(())
    }

    fn skip(&mut self, wanted: &'static str) -> Result<(), Problem<'a>> {
        self.rest = self.rest.strip_prefix(wanted).ok_or(Problem::Bad { rest: self.rest, wanted })?;
        Ok(())
    }

    fn number(&mut self, wanted: &'static str, least: usize, most: usize) -> Result<u32, Problem<'a>> {
        let count = self.rest.bytes().take(most).take_while(u8::is_ascii_digit).count();
        let (digits, rest) = self.rest.split_at(count);
        match digits.parse() {
            Ok(number) if count >= least => {
                self.rest = rest;
                Ok(number)
            }
            _ => Err(Problem::Bad { rest: self.rest, wanted }),
        }
    }

    fn within(
        &mut self,
        what: &'static str,
        wanted: &'static str,
        least: usize,
        range: std::ops::RangeInclusive<u32>,
    ) -> Result<u32, Problem<'a>> {
        let number = self.number(wanted, least, 2)?;
        if range.contains(&number) { Ok(number) } else { Err(Problem::OutOfRange(what)) }
    }
}

#[cfg(test)]
mod tests {
    use super::problem;

    #[test]
    fn times_are_read_as_in_go() {
        for fine in [
            "2026-11-21T03:00:00Z",
            "2024-02-29T1:00:00.25Z",
            "2026-01-02T03:04:05,5+02:00",
            "0000-01-01T00:00:00-23:59",
        ] {
            assert_eq!(problem(fine), None, "{fine}");
        }
        let bad = |text: &str, rest: &str, wanted: &str| {
            let expected =
                format!("parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {rest:?} as {wanted:?}");
            assert_eq!(problem(text).as_deref(), Some(expected.as_str()));
        };
        bad("", "", "2006");
        bad("2020", "", "-");
        bad("2020-1-01", "1-01", "01");
        bad("2026-01-02t00:00:00Z", "t00:00:00Z", "T");
        bad("2026-01-02T00:00:00", "", "Z07:00");
        bad("2026-01-02T00:00:00+0200", "+0200", "Z07:00");
        for (text, why) in [
            ("2020-13-01T00:00:00Z", "month out of range"),
            ("2026-02-29T00:00:00Z", "day out of range"),
            ("2026-02-01T24:00:00Z", "hour out of range"),
            ("2026-02-01T00:00:00ZZ", "extra text: \"Z\""),
        ] {
            assert_eq!(problem(text), Some(format!("parsing time {text:?}: {why}")));
        }
    }
}
