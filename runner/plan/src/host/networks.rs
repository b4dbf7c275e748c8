//! Addresses of networks.

use std::net::IpAddr;

use hotcell_schema::manifest::Network;
use indexmap::IndexMap;

use crate::diagnostics::{Code, Diagnostic};
use crate::tree::Node;

/// A range of addresses: the first one, and how many leading bits are fixed. IPv4 stands in its 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Subnet {
    first: u128,
    prefix: u32,
    bits: u32,
}

/// Judges the subnets.
pub(super) fn check(networks: &IndexMap<String, Network>, tree: &Node, problems: &mut Vec<Diagnostic>) {
    let at = |name: &str| {
        tree.at(&["networks", name, "subnet"])
            .map_or_else(|| tree.key_span(&["networks", name]), |node| node.span)
    };
    let mut known: Vec<(&str, Subnet)> = Vec::new();
    for (name, network) in networks {
        let Some(text) = &network.subnet else { continue };
        let subnet = match read(text) {
            Ok(subnet) => subnet,
            Err(why) => {
                problems.push(
                    Diagnostic::error(Code::Network, at(name), format!("`{text}` is no subnet: {why}"))
                        .help("write the first address and the number of fixed bits: \"10.66.2.0/24\""),
                );
                continue;
            }
        };
        if let Some((other, _)) = known.iter().find(|(_, other)| overlap(*other, subnet)) {
            problems.push(
                Diagnostic::error(
                    Code::Network,
                    at(name),
                    format!("the addresses of `{other}` and `{name}` overlap"),
                )
                .also(at(other), format!("the addresses of `{other}`"))
                .help("give each network addresses of its own"),
            );
        }
        known.push((name, subnet));
    }
}

fn read(text: &str) -> Result<Subnet, String> {
    let (address, prefix) = text
        .split_once('/')
        .ok_or("it does not say how many bits are fixed")?;
    let address: IpAddr = address.parse().map_err(|_| "its address cannot be read")?;
    let (first, bits) = match address {
        IpAddr::V4(address) => (u128::from(u32::from(address)), 32),
        IpAddr::V6(address) => (u128::from(address), 128),
    };
    let prefix: u32 = match prefix.bytes().all(|byte| byte.is_ascii_digit()) {
        true => prefix.parse().map_err(|_| "its number of bits cannot be read")?,
        false => return Err("its number of bits cannot be read".into()),
    };
    if address.is_loopback() || address.is_multicast() || address.is_unspecified() {
        return Err(
            "guests cannot have these addresses: they stand for the host itself, or for groups".into(),
        );
    }
    if !(1..=bits - 2).contains(&prefix) {
        return Err(format!("a network for guests has 1 to {} fixed bits", bits - 2));
    }
    let free = bits - prefix;
    if first & ((1u128 << free) - 1) != 0 {
        return Err(format!(
            "it does not begin at a multiple of its size: the last {free} bits are not 0"
        ));
    }
    Ok(Subnet { first, prefix, bits })
}

fn overlap(a: Subnet, b: Subnet) -> bool {
    let free = a.bits - a.prefix.min(b.prefix);
    a.bits == b.bits && (a.first >> free) == (b.first >> free)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_are_read_and_compared() {
        let subnet = |text: &str| read(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert!(overlap(subnet("10.0.0.0/8"), subnet("10.66.2.0/24")));
        assert!(!overlap(subnet("10.66.2.0/24"), subnet("10.66.3.0/24")));
        assert!(overlap(subnet("fd00::/8"), subnet("fd12::/32")));
        assert!(!overlap(subnet("10.0.0.0/8"), subnet("a00::/8")));
        for wrong in [
            "10.66.2.0",
            "10.66.2.1/24",
            "10.66.2.0/33",
            "10.66.2.0/0",
            "10.66.2/24",
            "x/8",
            "10.0.0.0/32",
            "::/0",
            "10.0.0.0/+24",
            "127.0.0.0/8",
            "224.0.0.0/4",
            "ff00::/8",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
