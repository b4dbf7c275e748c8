//! Who may do what on a host: users, quotas, bans, and what was used up today. Knows no clock, no socket and no process.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use serde::{Deserialize, Serialize};

use crate::cores::schedule::{Allowance, Nanos, Request};

/// What is said of a ban without a reason.
const NO_REASON: &str = "no reason was given";

/// What a user may take. Absent: no bound but the host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Quota {
    /// Cells at once.
    pub cells: Option<NonZeroUsize>,
    /// Cores held exclusively at once.
    pub exclusive_cores: Option<usize>,
    /// Bytes of memory of all cells at once.
    pub memory: Option<u64>,
    /// Time on cores of all cells within a day, in nanoseconds.
    pub cpu_time: Option<Nanos>,
    /// Time that one cell may run, waiting for its turns not counted, in nanoseconds.
    pub wall_time: Option<Nanos>,
    /// Bytes that the stages of one run may give out. Runners hold themselves to it.
    pub output: Option<u64>,
    /// Bytes that a store of the user may have. Runners hold themselves to it.
    pub stored: Option<u64>,
}

impl Quota {
    /// What of it the schedule holds.
    pub fn allowance(&self) -> Allowance {
        Allowance {
            cells: self.cells,
            exclusive: self.exclusive_cores,
            memory: self.memory,
        }
    }
}

/// A user of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostUser {
    /// What the host manifest calls them.
    pub name: String,
    /// Whether they may do everything.
    pub admin: bool,
    /// What they may take.
    pub quota: Quota,
}

/// The kernel's superuser: an administrator of every host.
const ROOT: u32 = 0;

/// Who may do what.
#[derive(Debug)]
pub struct Policy {
    users: BTreeMap<u32, HostUser>,
    /// Who may not run anything, and why.
    banned: BTreeMap<u32, String>,
    used: Used,
}

/// Time on cores that was used, by user.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Used {
    /// The day: days since 1970, UTC.
    pub day: u64,
    /// Nanoseconds, by user id.
    pub cpu_time: BTreeMap<u32, Nanos>,
}

impl Used {
    /// Nanoseconds that a user has used on a day.
    pub fn of(&self, day: u64, uid: u32) -> Nanos {
        let used = self.cpu_time.get(&uid).filter(|_| self.day == day);
        used.copied().unwrap_or(0)
    }
}

/// Why something is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Forbidden {
    /// Nobody that the host knows.
    #[error(
        "uid {0} is no user of this host: an administrator adds it to `users` of the host manifest and starts the arbiter again"
    )]
    Unknown(u32),
    /// Banned.
    #[error("user `{user}` is banned: {why}")]
    Banned {
        /// The user.
        user: String,
        /// Why.
        why: String,
    },
    /// The day's time on cores is used up.
    #[error("user `{user}` has used up the {limit_s} CPU seconds of today (UTC)")]
    CpuTime {
        /// The user.
        user: String,
        /// How many seconds there are in a day.
        limit_s: u64,
    },
    /// For administrators only.
    #[error(
        "user `{0}` is no administrator of this host: users may pause, resume and kill cells of their own"
    )]
    NotAdmin(String),
}

impl Policy {
    /// The users of a host manifest by their ids, those who are banned, and what was used.
    pub fn new(users: BTreeMap<u32, HostUser>, banned: BTreeMap<u32, String>, used: Used) -> Self {
        let mut policy = Self { users, banned, used };
        policy.users.entry(ROOT).or_insert_with(|| HostUser {
            name: "root".into(),
            admin: true,
            quota: Quota::default(),
        });
        if let Some(root) = policy.users.get_mut(&ROOT) {
            root.admin = true;
        }
        policy
    }

    /// A user of the host.
    ///
    /// # Errors
    ///
    /// If there is none of this id.
    pub fn user(&self, uid: u32) -> Result<&HostUser, Forbidden> {
        self.users.get(&uid).ok_or(Forbidden::Unknown(uid))
    }

    /// All users, by their ids.
    pub fn users(&self) -> &BTreeMap<u32, HostUser> {
        &self.users
    }

    /// What the host manifest calls a user id, where it does.
    pub fn name(&self, uid: u32) -> Option<&str> {
        self.users.get(&uid).map(|user| user.name.as_str())
    }

    /// What the schedule holds of all quotas.
    pub fn allowances(&self) -> BTreeMap<u32, Allowance> {
        let users = self.users.iter();
        users.map(|(uid, user)| (*uid, user.quota.allowance())).collect()
    }

    /// A user's request as it is put to the schedule: its owner is who the kernel says.
    ///
    /// # Errors
    ///
    /// If the user may not run cells now.
    pub fn admit(&self, day: u64, uid: u32, request: Request) -> Result<Request, Forbidden> {
        let user = self.user(uid)?;
        if let Some(why) = self.banned.get(&uid) {
            return Err(Forbidden::Banned {
                user: user.name.clone(),
                why: why.clone(),
            });
        }
        self.within_cpu_time(day, uid)?;
        Ok(Request { user: uid, ..request })
    }

    /// Whether a user has time on cores left today.
    ///
    /// # Errors
    ///
    /// If not.
    pub fn within_cpu_time(&self, day: u64, uid: u32) -> Result<(), Forbidden> {
        let user = self.user(uid)?;
        let used = self.used.of(day, uid);
        match user.quota.cpu_time {
            Some(limit) if used >= limit => Err(Forbidden::CpuTime {
                user: user.name.clone(),
                limit_s: limit / 1_000_000_000,
            }),
            _ => Ok(()),
        }
    }

    /// Whether a user may do what is for administrators.
    ///
    /// # Errors
    ///
    /// If not.
    pub fn administrate(&self, uid: u32) -> Result<(), Forbidden> {
        let user = self.user(uid)?;
        match user.admin {
            true => Ok(()),
            false => Err(Forbidden::NotAdmin(user.name.clone())),
        }
    }

    /// Lets a user's cells in no more. A user who is banned already stays so for the reason of then, if there is no new one.
    pub fn ban(&mut self, uid: u32, why: Option<&str>) {
        let reason = self.banned.entry(uid).or_insert_with(|| NO_REASON.to_owned());
        if let Some(why) = why {
            why.clone_into(reason);
        }
    }

    /// Lets a user's cells in again; `false`: they were not banned.
    pub fn unban(&mut self, uid: u32) -> bool {
        self.banned.remove(&uid).is_some()
    }

    /// Who is banned, and why.
    pub fn banned(&self) -> &BTreeMap<u32, String> {
        &self.banned
    }

    /// What was used, on which day.
    pub fn used(&self) -> &Used {
        &self.used
    }

    /// Counts time that a user's cells had on cores. A new day begins at nothing.
    pub fn count(&mut self, day: u64, uid: u32, ran: Nanos) {
        if self.used.day != day {
            self.used = Used {
                day,
                cpu_time: BTreeMap::new(),
            };
        }
        let used = self.used.cpu_time.entry(uid).or_default();
        *used = used.saturating_add(ran);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Nanos = 1_000_000_000;

    fn policy() -> Policy {
        let users = [
            (
                1501,
                HostUser {
                    name: "ci".into(),
                    admin: false,
                    quota: Quota {
                        cpu_time: Some(10 * SECOND),
                        ..Quota::default()
                    },
                },
            ),
            (
                1500,
                HostUser {
                    name: "soc".into(),
                    admin: true,
                    quota: Quota::default(),
                },
            ),
        ];
        Policy::new(users.into(), BTreeMap::new(), Used::default())
    }

    #[test]
    fn only_users_of_the_host_run_cells_and_as_themselves() {
        let policy = policy();
        let request = policy.admit(1, 1501, Request::of(0)).unwrap();
        assert_eq!(request.user, 1501);
        assert_eq!(policy.admit(1, 7, Request::of(7)), Err(Forbidden::Unknown(7)));
        assert!(policy.administrate(1500).is_ok());
        assert!(policy.administrate(0).is_ok());
        assert!(matches!(policy.administrate(1501), Err(Forbidden::NotAdmin(_))));
    }

    #[test]
    fn who_is_banned_stays_so_until_unbanned() {
        let mut policy = policy();
        policy.ban(1501, Some("spam"));
        policy.ban(1501, None);
        let refused = policy.admit(1, 1501, Request::of(0)).unwrap_err();
        assert_eq!(refused.to_string(), "user `ci` is banned: spam");
        assert!(policy.unban(1501));
        assert!(!policy.unban(1501));
        assert!(policy.admit(1, 1501, Request::of(0)).is_ok());
    }

    #[test]
    fn time_on_cores_is_counted_by_the_day() {
        let mut policy = policy();
        policy.count(1, 1501, 9 * SECOND);
        assert!(policy.within_cpu_time(1, 1501).is_ok());
        policy.count(1, 1501, SECOND);
        let refused = policy.admit(1, 1501, Request::of(0)).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "user `ci` has used up the 10 CPU seconds of today (UTC)"
        );
        assert!(policy.admit(2, 1501, Request::of(0)).is_ok(), "another day");
        policy.count(2, 1500, SECOND);
        assert!(policy.admit(1, 1501, Request::of(0)).is_ok(), "another day");
    }
}
