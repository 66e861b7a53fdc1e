//! How the text of a value becomes a number, a size, a switch or a time.
//!
//! RabbitMQ has two dialects of sizes: keys of the kind *information unit* (`disk_free_limit.absolute`) read `MB` as
//! 10^6 bytes, keys of the kind *byte size* (`frame_max`) read it as 2^20. Both are kept, because a mounted file must
//! mean the same here. Errors are the middle of a sentence: "is not …".

use std::net::{IpAddr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::time::Duration;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// A whole number; a sign and leading zeros are allowed, as in RabbitMQ.
pub fn integer(text: &str, range: &RangeInclusive<u64>, unit: &str) -> Result<u64, String> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("is not a whole number; {}", allowed(range, unit)));
    }
    let negative = text.starts_with('-') && digits.bytes().any(|byte| byte != b'0');
    let value = if negative { None } else { digits.parse().ok() };
    value.filter(|value| range.contains(value)).ok_or_else(|| format!("is out of range; {}", allowed(range, unit)))
}

/// A fraction between the bounds; `1` is as good as `1.0`.
pub fn fraction(text: &str, range: &RangeInclusive<f64>) -> Result<f64, String> {
    let allowed = || format!("allowed: {:?} to {:?}", range.start(), range.end());
    let plain =
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'+'));
    let value: f64 =
        text.parse().ok().filter(|_| plain).ok_or_else(|| format!("is not a fraction such as 0.4; {}", allowed()))?;
    if range.contains(&value) { Ok(value) } else { Err(format!("is out of range; {}", allowed())) }
}

/// `true` or `false`; `on` and `off` too, which RabbitMQ takes for some keys only.
pub fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "true" | "on" => Ok(true),
        "false" | "off" => Ok(false),
        _ => Err("is neither true nor false".into()),
    }
}

/// A size of the *information unit* kind: `50MB` is 50,000,000 bytes, `50MiB` and `50M` are 52,428,800.
pub fn information_unit(text: &str, range: &RangeInclusive<u64>) -> Result<u64, String> {
    size(text, range, |unit| match unit {
        "k" | "K" | "kiB" | "KiB" | "kib" => Some(KIB),
        "m" | "M" | "MiB" | "mib" => Some(MIB),
        "g" | "G" | "GiB" | "gib" => Some(GIB),
        "T" | "TiB" | "tib" => Some(TIB),
        "kB" | "KB" | "kb" | "Kb" => Some(1_000),
        "MB" | "mb" | "Mb" => Some(1_000_000),
        "GB" | "gb" | "Gb" => Some(1_000_000_000),
        "TB" | "tb" => Some(1_000_000_000_000),
        _ => None,
    })
}

/// A size of the *byte size* kind: `128KB` and `128KiB` are both 131,072 bytes.
pub fn byte_size(text: &str, range: &RangeInclusive<u64>) -> Result<u64, String> {
    size(text, range, |unit| match unit {
        "KB" | "kb" | "kiB" | "KiB" => Some(KIB),
        "MB" | "mb" | "MiB" => Some(MIB),
        "GB" | "gb" | "GiB" => Some(GIB),
        _ => None,
    })
}

/// A time. Without a unit it counts in `base`; units are `ms s m h d w f` and may be strung together (`1m30s`).
pub fn duration(text: &str, base: Duration, range: &RangeInclusive<Duration>) -> Result<Duration, String> {
    let allowed = || format!("allowed: {} to {}", shown(*range.start(), base), shown(*range.end(), base));
    let whole = text.parse::<u32>().ok().and_then(|count| base.checked_mul(count));
    let value = whole.or_else(|| strung(text)).ok_or_else(|| format!("is not a time such as 30s; {}", allowed()))?;
    if range.contains(&value) { Ok(value) } else { Err(format!("is out of range; {}", allowed())) }
}

/// An address to listen on: a port, or `ip:port`; the last colon divides, so `::1:5672` and `[::1]:5672` both work.
pub fn listen_address(text: &str) -> Result<(Option<IpAddr>, u16), String> {
    let port = |text: &str| integer(text, &(0..=65_535), "").map(|port| u16::try_from(port).unwrap_or(0));
    let Some((ip, number)) = text.rsplit_once(':') else {
        return Ok((None, port(text)?));
    };
    let ip = ip.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(ip);
    let ip = ip.parse().map_err(|_| "is neither a port nor IP:PORT (host names are not resolved here)".to_string())?;
    Ok((Some(ip), port(number)?))
}

/// A host, and its port if one is given: `host`, `host:port`, `::1`, `[::1]:port`.
pub fn host_and_port(text: &str) -> Result<(&str, Option<u16>), String> {
    let is_address = |text: &str| text.parse::<Ipv6Addr>().is_ok();
    let bracketed = text.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let (host, behind) = match bracketed.filter(|(inside, _)| is_address(inside)) {
        Some(parts) => parts,
        None if is_address(text) => (text, ""),
        None => {
            let (host, behind) = text.split_at(text.find(':').unwrap_or(text.len()));
            (host_name(host)?, behind)
        }
    };
    if behind.is_empty() {
        return Ok((host, None));
    }
    let port = behind.strip_prefix(':').and_then(|digits| integer(digits, &(1..=65_535), "").ok());
    let port = port.and_then(|port| u16::try_from(port).ok());
    Ok((host, Some(port.ok_or("has something other than a port behind the host; allowed: 1 to 65535")?)))
}

/// The name of a host, or an IPv4 address. Docker's names have underscores.
pub fn host_name(text: &str) -> Result<&str, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let fits = (1..=253).contains(&text.len()) && text.bytes().all(plain);
    if fits { Ok(text) } else { Err("has no host name; allowed: 1 to 253 letters, digits, '-', '_' and dots".into()) }
}

/// One of `choices`.
pub fn choice<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, String> {
    let found = choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
    found.ok_or_else(|| {
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        format!("is unknown; allowed: {}", names.join(", "))
    })
}

fn allowed(range: &RangeInclusive<u64>, unit: &str) -> String {
    format!("allowed: {} to {}{}{unit}", range.start(), range.end(), if unit.is_empty() { "" } else { " " })
}

fn size(text: &str, range: &RangeInclusive<u64>, factor: impl Fn(&str) -> Option<u64>) -> Result<u64, String> {
    let split = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let factor = if unit.is_empty() { Some(1) } else { factor(unit) };
    let Some(factor) = factor.filter(|_| !digits.is_empty()) else {
        return Err(format!("is not a size such as 134217728, 512MiB or 2GB; {}", allowed(range, "bytes")));
    };
    let value = digits.parse::<u64>().ok().and_then(|count| count.checked_mul(factor));
    value.filter(|value| range.contains(value)).ok_or_else(|| format!("is out of range; {}", allowed(range, "bytes")))
}

fn strung(mut text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    while !text.is_empty() {
        let digits = text.find(|character: char| !character.is_ascii_digit())?;
        let (count, rest) = text.split_at(digits);
        let letters = rest.find(|character: char| !character.is_ascii_alphabetic()).unwrap_or(rest.len());
        let (unit, rest) = rest.split_at(letters);
        let unit_ms: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 7 * 86_400_000,
            "f" => 14 * 86_400_000,
            _ => return None,
        };
        let part = count.parse::<u64>().ok()?.checked_mul(unit_ms)?;
        total = total.checked_add(Duration::from_millis(part))?;
        text = rest;
    }
    (total > Duration::ZERO).then_some(total)
}

/// A time as a count of `base` with its unit.
fn shown(value: Duration, base: Duration) -> String {
    let (count, unit) =
        if base == Duration::from_millis(1) { (value.as_millis(), "ms") } else { (value.as_secs().into(), "s") };
    format!("{count}{unit}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const ANY: RangeInclusive<u64> = 0..=u64::MAX;

    /// What `rabbit_resource_monitor_misc:parse_information_unit/1` of 3.10.8 answers; `1KiB` and terabytes are ours.
    #[test]
    fn information_units_are_those_of_rabbitmq() {
        let cases = [
            ("2GB", Some(2_000_000_000)),
            ("1GiB", Some(1_073_741_824)),
            ("1kB", Some(1_000)),
            ("1KB", Some(1_000)),
            ("1k", Some(1_024)),
            ("1K", Some(1_024)),
            ("1Kb", Some(1_000)),
            ("10", Some(10)),
            ("1m", Some(1_048_576)),
            ("1MB", Some(1_000_000)),
            ("1G", Some(1_073_741_824)),
            ("1gb", Some(1_000_000_000)),
            ("1kiB", Some(1_024)),
            ("007k", Some(7_168)),
            ("1KiB", Some(1_024)),
            ("10B", None),
            ("", None),
            ("abc", None),
            ("-1", None),
            ("1.5GB", None),
            ("1 GB", None),
            ("1_000", None),
            ("1P", None),
            ("99999999999999999999", None),
        ];
        for (text, expected) in cases {
            assert_eq!(information_unit(text, &ANY).ok(), expected, "{text}");
        }
    }

    /// What `cuttlefish_bytesize:parse/1` answers; the `iB` units are ours.
    #[test]
    fn byte_sizes_are_those_of_rabbitmq() {
        let cases =
            [("2GB", Some(2 * GIB)), ("1KB", Some(KIB)), ("50mb", Some(50 * MIB)), ("10", Some(10)), ("1k", None)];
        for (text, expected) in cases {
            assert_eq!(byte_size(text, &ANY).ok(), expected, "{text}");
        }
    }

    #[test]
    fn integers_have_bounds() {
        assert_eq!(integer("010", &(0..=60), "s"), Ok(10));
        assert_eq!(integer("+10", &(0..=60), "s"), Ok(10));
        assert_eq!(integer("-0", &(0..=60), "s"), Ok(0));
        assert_eq!(integer("61", &(0..=60), "s"), Err("is out of range; allowed: 0 to 60 s".into()));
        assert_eq!(integer("-1", &(0..=60), ""), Err("is out of range; allowed: 0 to 60".into()));
        for text in ["", "-", "1e3", "1.0", " 1", "10s"] {
            assert!(integer(text, &(0..=60), "").unwrap_err().starts_with("is not a whole number"), "{text}");
        }
    }

    #[test]
    fn durations_count_in_the_base_or_in_units() {
        let ms = Duration::from_millis(1);
        let range = Duration::ZERO..=Duration::from_secs(10_000_000);
        let cases = [
            ("10", 10),
            ("10s", 10_000),
            ("1m30s", 90_000),
            ("100ms", 100),
            ("1w", 604_800_000),
            ("1f", 1_209_600_000),
        ];
        for (text, expected) in cases {
            assert_eq!(duration(text, ms, &range).unwrap().as_millis(), expected, "{text}");
        }
        for text in ["", "s", "-1s", "10 s", "1x", "1.5s", "9999999999999999999w"] {
            assert!(duration(text, ms, &range).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_divide_at_the_last_colon() {
        assert_eq!(listen_address("5672"), Ok((None, 5672)));
        assert_eq!(listen_address("127.0.0.1:5672"), Ok((Some("127.0.0.1".parse().unwrap()), 5672)));
        assert_eq!(listen_address("::1:5672"), Ok((Some("::1".parse().unwrap()), 5672)));
        assert_eq!(listen_address("[::1]:5672"), listen_address("::1:5672"));
        assert_eq!(listen_address(":::5672"), Ok((Some("::".parse().unwrap()), 5672)));
        assert!(listen_address("localhost:5672").is_err());
        assert!(listen_address("65536").is_err());
    }

    #[test]
    fn hosts_may_have_a_port() {
        let cases = [
            ("a", Some(("a", None))),
            ("my_a.example-1.org:25672", Some(("my_a.example-1.org", Some(25_672)))),
            ("127.0.0.1:1", Some(("127.0.0.1", Some(1)))),
            ("::1", Some(("::1", None))),
            ("[::1]", Some(("::1", None))),
            ("[::1]:65535", Some(("::1", Some(65_535)))),
            ("", None),
            (":1", None),
            ("a:", None),
            ("a:0", None),
            ("a:65536", None),
            ("a:b", None),
            ("a:1:2", None),
            ("a b", None),
            ("a/b", None),
            ("[a]:1", None),
            ("[::1", None),
            ("[::1]1", None),
        ];
        for (text, expected) in cases {
            assert_eq!(host_and_port(text).ok(), expected, "{text}");
        }
        assert!(host_name(&"a".repeat(253)).is_ok() && host_name(&"a".repeat(254)).is_err());
    }

    #[test]
    fn fractions_refuse_what_is_not_a_number() {
        assert_eq!(fraction("0.4", &(0.0..=1.0)), Ok(0.4));
        assert_eq!(fraction("1", &(0.0..=1.0)), Ok(1.0));
        for text in ["inf", "NaN", "1.1", "-0.1", "", "1e-1"] {
            assert!(fraction(text, &(0.0..=1.0)).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,20}") {
            let _ = (integer(&text, &ANY, ""), information_unit(&text, &ANY), byte_size(&text, &ANY));
            let _ = (fraction(&text, &(0.0..=1.0)), boolean(&text), listen_address(&text));
            let _ = host_and_port(&text);
            let _ = duration(&text, Duration::from_secs(1), &(Duration::ZERO..=Duration::MAX));
        }

        #[test]
        fn plain_byte_counts_mean_themselves(count: u64) {
            prop_assert_eq!(information_unit(&count.to_string(), &ANY), Ok(count));
            prop_assert_eq!(byte_size(&count.to_string(), &ANY), Ok(count));
        }
    }
}
