//! What Landlock takes from the guest: rights that no guest needs, whatever the other walls say.
//!
//! By ports it could refuse a guest its own loopback too, which is all the network that it has: the namespace holds there.

use std::fmt::Display;

use hotcell_schema::deny::Deny;
use landlock::{
    ABI, Access as _, AccessFs, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset, RulesetAttr as _,
    RulesetCreated, RulesetCreatedAttr as _, RulesetError, Scope,
};

/// No device nodes, and with any rule about files no mounts and no tracing of others (landlock(7)); where the kernel has scopes
/// (Linux 6.12), no abstract sockets and no signals of who is not the guest's. Files may change their folders: a kernel that can
/// forbid only all of that (before Linux 5.19) is not asked. Who may make no files makes none by sockets either.
fn ruleset(deny: &Deny, scopes: CompatLevel) -> Result<RulesetCreated, RulesetError> {
    let all = AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::Refer;
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(match deny.create {
            Some(_) => all | AccessFs::MakeSock,
            None => all,
        })?
        .set_compatibility(scopes)
        .scope(Scope::from_all(ABI::V6))?
        .create()
}

/// The name of the layer that this kernel lets us have.
pub(crate) fn layer() -> Option<&'static str> {
    let has = |scopes| ruleset(&Deny::default(), scopes).is_ok();
    match (has(CompatLevel::HardRequirement), has(CompatLevel::BestEffort)) {
        (true, _) => Some("landlock"),
        (false, true) => Some("landlock-partial"),
        (false, false) => None,
    }
}

/// Takes them from this process and all that come of it, if [`layer`] says so. `deny`: what the manifest refuses it.
pub(crate) fn restrict(deny: &Deny) -> Result<(), String> {
    fn told(error: impl Display) -> String {
        format!("Landlock: {error}")
    }
    if layer().is_none() {
        return match deny.create {
            None => Ok(()),
            Some(_) => Err(told("this kernel has none, and denying `create` takes it")),
        };
    }
    let everywhere = PathBeneath::new(PathFd::new("/").map_err(told)?, AccessFs::Refer);
    ruleset(deny, CompatLevel::BestEffort)
        .and_then(|ruleset| ruleset.add_rule(everywhere))
        .and_then(RulesetCreated::restrict_self)
        .map(drop)
        .map_err(told)
}
