//! Which QEMU of this host runs a guest in user mode.

use std::path::PathBuf;

use hotcell_schema::arch::ArchProfile;

/// The folder of a guest's root that is ours: nothing in it is the guest's to change.
pub const FOLDER: &str = "/.hotcell";

/// Where it stands in a guest's root: the first thing that is executed there.
pub const PLACE: &str = "/.hotcell/qemu";

/// Where distributions put it.
const FOLDERS: [&str; 2] = ["/usr/bin", "/usr/local/bin"];

/// The executable for an architecture. It must be static: nothing of the host is in the guest's root.
pub fn find(arch: &ArchProfile) -> Result<PathBuf, String> {
    let Some(qemu) = &arch.qemu else {
        return Err(format!("the arch profile `{}` names no QEMU", arch.name));
    };
    let name = &qemu.user;
    FOLDERS
        .iter()
        .map(|folder| PathBuf::from(folder).join(format!("{name}-static")))
        .find(|path| path.is_file())
        .ok_or_else(|| format!("`{name}-static` is not on this host (Debian: apt install qemu-user-static)"))
}
