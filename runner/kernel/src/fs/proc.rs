//! What `/proc` holds: the files' names and contents.

use serde::{Deserialize, Serialize};

/// A file of `/proc` whose content is made when it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ProcFile {
    /// About the machine.
    Machine(MachineFile),
    /// About a process.
    Process(u32, ProcessFile),
    /// About the network.
    Net(NetFile),
}

/// Files of `/proc/net`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum NetFile {
    Devices,
    Routes,
    Neighbours,
    AddressesV6,
    RoutesV6,
    Tcp,
    Tcp6,
    Udp,
    Udp6,
    Raw,
    Unix,
    Netlink,
    Packet,
}

/// Files about the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum MachineFile {
    CpuInfo,
    MemInfo,
    Uptime,
    Version,
    Stat,
    LoadAverage,
    HostName,
    DomainName,
    /// Another one at each opening.
    Uuid,
}

/// Files about a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ProcessFile {
    Maps,
    /// Never text: opened as [`Target::Memory`](crate::fs::open::Target).
    Memory,
    Status,
    Stat,
    Statm,
    CommandLine,
    Environment,
    Comm,
    Mounts,
    MountInfo,
    Limits,
    OomScore,
    AuxiliaryVector,
    ControlGroup,
    /// Who logged in, and in which session (`loginuid`, `sessionid`): nobody did.
    Unset,
}

impl ProcessFile {
    /// Whether its content is another for whoever has it open, once its process executes another program. Linux makes these when
    /// they are read; `environ`, `maps` and `auxv` stay those of the memory that was there when they were opened.
    pub(crate) fn follows(self) -> bool {
        matches!(
            self,
            Self::CommandLine | Self::Comm | Self::Stat | Self::Statm | Self::Status
        )
    }
}

/// Links of `/proc`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ProcLink {
    SelfProcess,
    SelfThread,
    Executable(u32),
    WorkingDirectory(u32),
    Root(u32),
}

/// Files in `/proc/PID`.
pub(crate) const PROCESS_FILES: &[(&str, ProcessFile)] = &[
    ("auxv", ProcessFile::AuxiliaryVector),
    ("cgroup", ProcessFile::ControlGroup),
    ("cmdline", ProcessFile::CommandLine),
    ("comm", ProcessFile::Comm),
    ("environ", ProcessFile::Environment),
    ("limits", ProcessFile::Limits),
    ("loginuid", ProcessFile::Unset),
    ("maps", ProcessFile::Maps),
    ("mem", ProcessFile::Memory),
    ("mountinfo", ProcessFile::MountInfo),
    ("mounts", ProcessFile::Mounts),
    ("oom_score_adj", ProcessFile::OomScore),
    ("sessionid", ProcessFile::Unset),
    ("stat", ProcessFile::Stat),
    ("statm", ProcessFile::Statm),
    ("status", ProcessFile::Status),
];

/// Files about the network.
pub(crate) const NET_FILES: &[(&str, NetFile)] = &[
    ("arp", NetFile::Neighbours),
    ("dev", NetFile::Devices),
    ("if_inet6", NetFile::AddressesV6),
    ("ipv6_route", NetFile::RoutesV6),
    ("netlink", NetFile::Netlink),
    ("packet", NetFile::Packet),
    ("raw", NetFile::Raw),
    ("route", NetFile::Routes),
    ("tcp", NetFile::Tcp),
    ("tcp6", NetFile::Tcp6),
    ("udp", NetFile::Udp),
    ("udp6", NetFile::Udp6),
    ("unix", NetFile::Unix),
];

/// Files about the machine, below `/proc`.
pub(crate) const MACHINE_FILES: &[(&str, MachineFile)] = &[
    ("cpuinfo", MachineFile::CpuInfo),
    ("loadavg", MachineFile::LoadAverage),
    ("meminfo", MachineFile::MemInfo),
    ("stat", MachineFile::Stat),
    ("sys/kernel/domainname", MachineFile::DomainName),
    ("sys/kernel/hostname", MachineFile::HostName),
    ("sys/kernel/random/uuid", MachineFile::Uuid),
    ("uptime", MachineFile::Uptime),
    ("version", MachineFile::Version),
];
