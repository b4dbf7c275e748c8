//! What Debian writes about its packages, as text: paragraphs of `Key: value` lines. Bounded by the caller, who knows
//! that the text is what its signature or digest says.

use hotcell_schema::digest::Digest;

/// A file that a list of checksums names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name: a path in `Release`, a file name in a `.dsc`.
    pub name: String,
    /// Digest of its bytes.
    pub digest: Digest,
    /// Length in bytes.
    pub length: u64,
}

/// The value of a field of the first paragraph that has it, without its continuation lines.
pub fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case(key).then(|| value.trim())
    })
}

/// The files below a field like `SHA256` or `Checksums-Sha256`: lines of digest, length and name.
pub fn listed(text: &str, key: &str) -> Vec<Listed> {
    let mut lines = text.lines().skip_while(|line| {
        line.split_once(':')
            .is_none_or(|(name, _)| !name.eq_ignore_ascii_case(key))
    });
    lines.next();
    lines
        .take_while(|line| line.starts_with([' ', '\t']))
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some(Listed {
                digest: words.next()?.parse().ok()?,
                length: words.next()?.parse().ok()?,
                name: words.next()?.to_owned(),
            })
        })
        .collect()
}

/// Longest path on a mirror.
const MAX_PATH: usize = 1000;

/// A path on a mirror, as its index may name one: file names below each other, none of which leads out, and no address of
/// its own. What a server would decode to something else is refused.
pub fn is_path(path: &str) -> bool {
    path.len() <= MAX_PATH && !path.contains('%') && path.split('/').all(is_file_name)
}

/// Seconds since 1970 of a date as `Release` has it: `Sat, 09 Nov 2024 10:11:26 UTC`.
pub fn seconds(date: &str) -> Option<i64> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let date = date.split_once(", ").map_or(date, |(_, rest)| rest);
    let words: Vec<&str> = date.split_whitespace().collect();
    let [day, month, year, time, zone] = words.as_slice() else {
        return None;
    };
    if !["UTC", "GMT", "Z", "+0000"].contains(zone) {
        return None;
    }
    let number = |text: &str, most: i64| {
        text.parse::<i64>()
            .ok()
            .filter(|number| (0..=most).contains(number))
    };
    let month = MONTHS.iter().position(|name| name == month)? as i64 + 1;
    let (day, year) = (number(day, 31)?, number(year, 9999)?);
    let mut parts = time.split(':');
    let mut part = |most| number(parts.next()?, most);
    let of_day = part(23)? * 3600 + part(59)? * 60 + part(60)?;
    // Days of years that begin in March: the leap day is their last.
    let (year, month) = if month <= 2 {
        (year - 1, month + 9)
    } else {
        (year, month - 3)
    };
    let days = 365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let days = days + (153 * month + 2) / 5 + day - 1 - 719_468;
    Some(days * 86_400 + of_day)
}

/// A name as packages have them (Debian Policy 5.6.1), as bounded as in a manifest.
pub fn is_package_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.len() <= 128
        && name.bytes().next().is_some_and(plain)
        && name.bytes().all(|byte| plain(byte) || b"+.-".contains(&byte))
}

/// A file name as Debian gives them: no folder, nothing hidden.
pub fn is_file_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 255
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".+-~_%:".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dsc_names_its_files() {
        let digest = Digest::of(b"x");
        let text = format!(
            "Format: 3.0 (quilt)\nSource: hello\nVersion: 2.10-3\nChecksums-Sha1:\n aa 1 a\nChecksums-Sha256:\n {digest} 725946 hello_2.10.orig.tar.gz\n {digest} 12 ../x\nFiles:\n x\n"
        );
        assert_eq!(field(&text, "version"), Some("2.10-3"));
        let files = listed(&text, "checksums-sha256");
        assert_eq!(files.len(), 2);
        assert_eq!((files[0].length, files[0].digest), (725_946, digest));
        assert!(is_file_name(&files[0].name) && !is_file_name(&files[1].name));
        assert_eq!(listed(&text, "SHA512"), []);
    }

    #[test]
    fn an_index_names_paths_below_its_mirror() {
        for path in [
            "pool/main/h/hello/hello_2.10-3_amd64.deb",
            "x.deb",
            "a/b+c~1/d:e.dsc",
        ] {
            assert!(is_path(path), "{path}");
        }
        for path in [
            "",
            "/etc/passwd",
            "../x",
            "a/../b",
            "a//b",
            "a/",
            "./a",
            "http://evil/x",
            "//evil/x",
            "a/%2e%2e/b",
            "a?b",
            "a#b",
            "a b",
            "a\nb",
            "u@h",
            &"a/".repeat(600),
        ] {
            assert!(!is_path(path), "{path}");
        }
    }

    #[test]
    fn names_of_packages() {
        for name in ["libc6", "g++", "python3.11-minimal", "0ad"] {
            assert!(is_package_name(name), "{name}");
        }
        for name in ["", "-x", "Libc6", "a/b", "a b", "a,b", &"a".repeat(129)] {
            assert!(!is_package_name(name), "{name}");
        }
    }

    #[test]
    fn dates_of_a_release() {
        assert_eq!(seconds("Thu, 01 Jan 1970 00:00:00 UTC"), Some(0));
        assert_eq!(seconds("Sat, 09 Nov 2024 10:11:26 UTC"), Some(1_731_147_086));
        assert_eq!(seconds("29 Feb 2000 23:59:59 GMT"), Some(951_868_799));
        for wrong in [
            "",
            "Sat",
            "Sat, 09 Nov 2024 10:11:26",
            "Sat, 09 Nov 2024 10:11:26 CET",
            "Sat, 09 Foo 2024 1:1:1 UTC",
            "Sat, 99999999999999999999 Nov 2024 1:1:1 UTC",
            "1 Jan 2024 1:1 UTC",
        ] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
    }
}
