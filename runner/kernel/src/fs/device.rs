//! The devices of `/dev`.

use serde::{Deserialize, Serialize};

/// Devices of `/dev`, by what they do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Device {
    Null,
    Zero,
    Full,
    Random,
    Urandom,
    Tty,
    Console,
    Kmsg,
}

impl Device {
    /// Major and minor number (Documentation/admin-guide/devices.txt), encoded for stat.
    pub(crate) fn number(self) -> u64 {
        match self {
            Self::Null => 0x103,
            Self::Zero => 0x105,
            Self::Full => 0x107,
            Self::Random => 0x108,
            Self::Urandom => 0x109,
            Self::Kmsg => 0x10b,
            Self::Tty => 0x500,
            Self::Console => 0x501,
        }
    }
}
