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
}
