//! What ioctls of sockets say of the machine's interfaces (`netdevice(7)`; numbers of linux/sockios.h).

use std::net::Ipv4Addr;

use crate::abi::errno::Errno;
use crate::abi::layout::Layout;
use crate::call::{Answer, Call};
use crate::net::interfaces::Interface;

/// Bytes of an interface's name.
const NAME: u64 = 16;

impl Call<'_> {
    /// Bytes of the part of a `struct ifreq` behind its name: a map of addresses is its longest.
    fn request_room(&self) -> usize {
        if self.abi().wide { 24 } else { 16 }
    }

    fn inet_name(&self, address: Ipv4Addr) -> Vec<u8> {
        let head = Layout::new(self.abi()).u16(2).u16(0).bytes;
        [head.as_slice(), &address.octets(), &[0; 8]].concat()
    }

    /// A list of all interfaces that have an address, or how long it is.
    fn list_interfaces(&mut self, at: u64) -> Answer {
        let pointer = at.wrapping_add(self.abi().word());
        let (room, to) = (u64::from(self.get_u32(at)?), self.get_word(pointer)?);
        let mut list = Vec::new();
        for one in self.k.sockets.links().interfaces() {
            let mut entry = Layout::new(self.abi()).text(one.name, NAME as usize).bytes;
            entry.extend(self.inet_name(one.address));
            entry.resize(NAME as usize + self.request_room(), 0);
            if to == 0 || (list.len() + entry.len()) as u64 <= room {
                list.extend(entry);
            }
        }
        if to != 0 {
            self.write(to, &list)?;
        }
        self.put_u32(at, u32::try_from(list.len()).unwrap_or(0))?;
        Ok(0)
    }

    /// An ioctl about interfaces; `None`: it is about something else.
    pub(super) fn interface_request(&mut self, request: u64, at: u64) -> Option<Answer> {
        const LIST: u64 = 0x8912;
        const NAME_OF: u64 = 0x8910;
        match request {
            LIST => Some(self.list_interfaces(at)),
            NAME_OF => Some(self.interface_name(at)),
            0x8913 | 0x8915 | 0x8917 | 0x8919 | 0x891b | 0x891d | 0x8921 | 0x8927 | 0x8933 | 0x8942
            | 0x8970 => Some(self.ask_interface(request, at)),
            // The table of neighbours is asked for by address; nobody is in it under this one (SIOCGARP).
            0x8954 => Some(Err(Errno::ENXIO.into())),
            // SIOCETHTOOL and what wireless cards are asked (linux/wireless.h).
            0x8946 | 0x8b00..=0x8bff => Some(Err(Errno::EOPNOTSUPP.into())),
            // Routes, neighbours, and what changes an interface.
            0x890b
            | 0x890c
            | 0x8911
            | 0x8914
            | 0x8916
            | 0x8918
            | 0x891a
            | 0x891c
            | 0x891e
            | 0x8922..=0x8924
            | 0x8930..=0x8932
            | 0x8934
            | 0x8936
            | 0x8943
            | 0x8953
            | 0x8955 => {
                let (uid, _) = self.owner();
                let errno = if uid == 0 { Errno::EOPNOTSUPP } else { Errno::EPERM };
                Some(Err(errno.into()))
            }
            _ => None,
        }
    }

    fn interface_name(&mut self, at: u64) -> Answer {
        let index = self.get_u32(at.wrapping_add(NAME))?;
        let found = self.k.sockets.links().by_index(index).ok_or(Errno::ENODEV)?;
        let bytes = Layout::new(self.abi()).text(found.name, NAME as usize).bytes;
        self.write(at, &bytes)?;
        Ok(0)
    }

    fn ask_interface(&mut self, request: u64, at: u64) -> Answer {
        let name = self.bytes(at, NAME)?;
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        // What stands behind a colon is a label of one interface.
        let name = name.split(|byte| *byte == b':').next().unwrap_or_default();
        let found = self.k.sockets.links().by_name(name).ok_or(Errno::ENODEV)?;
        let answer = self.about(&found, request)?;
        self.write(at.wrapping_add(NAME), &answer)?;
        Ok(0)
    }

    fn about(&self, one: &Interface, request: u64) -> Result<Vec<u8>, Errno> {
        let layout = || Layout::new(self.abi());
        Ok(match request {
            // SIOCGIFFLAGS: the lower half.
            0x8913 => layout().u16(one.flags as u16).bytes,
            0x8915 => self.inet_name(one.address),
            // SIOCGIFDSTADDR: without another end, the own address; SIOCGIFBRDADDR.
            0x8917 => self.inet_name(one.address),
            0x8919 => self.inet_name(one.broadcast().unwrap_or(Ipv4Addr::UNSPECIFIED)),
            0x891b => self.inet_name(one.mask()),
            // SIOCGIFMETRIC.
            0x891d => layout().u32(0).bytes,
            0x8921 => layout().u32(one.mtu).bytes,
            0x8927 => {
                let mut layout = layout().u16(one.hardware);
                layout.bytes.extend(one.card);
                layout.pad(8).bytes
            }
            0x8933 => layout().u32(one.index).bytes,
            0x8942 => layout().u32(one.queue).bytes,
            // SIOCGIFMAP: of no card that is in a slot of its own.
            0x8970 => vec![0; self.request_room()],
            _ => return Err(Errno::ENOTTY),
        })
    }
}
