//! `hotcell users`: who may use a host, and what each may take.

use hotcell_cells::cores::service::policy::Quota;
use hotcell_cells::cores::service::wire::{Act, Person};
use hotcell_schema::manifest::{Size, Time};
use serde_json::json;

use crate::args::{Global, UsersArgs, UsersCommand};
use crate::exit::{Exit, Failure};
use crate::{host, ui};

pub(crate) fn run(args: &UsersArgs, global: &Global) -> Result<Exit, Failure> {
    let mut arbiter = host::must_connect(global)?;
    match &args.command {
        None => {
            let users = arbiter.users().map_err(host::refused)?;
            match args.json {
                true => ui::out(&ui::json(
                    &json!({"format": "hotcell-users", "version": 1, "users": users}),
                )?),
                false => list(&users),
            }
        }
        Some(UsersCommand::Ban(user)) => {
            let uid = host::uid(&mut arbiter, &user.user)?;
            let ended = arbiter.act(Act::Ban(uid), user.reason.as_deref());
            let ended = ended.map_err(host::refused)?;
            ui::say(&format!(
                "banned {}; {} ended",
                ui::plain(&user.user),
                ui::count(ended, "cell")
            ));
        }
        Some(UsersCommand::Unban(user)) => {
            let uid = host::uid(&mut arbiter, &user.user)?;
            let unbanned = arbiter.act(Act::Unban(uid), user.reason.as_deref());
            unbanned.map_err(host::refused)?;
            ui::say(&format!("unbanned {}", ui::plain(&user.user)));
        }
    }
    Ok(Exit::Ok)
}

fn list(users: &[Person]) {
    ui::out("uid         user              role   cells  CPU today  may take");
    for user in users {
        let role = if user.admin { "admin" } else { "user" };
        let mut line = format!(
            "{:<10}  {:<16}  {role:<5}  {:>5}  {:>8}s  {}",
            user.uid,
            ui::plain(&user.name),
            user.cells,
            user.used_ns / 1_000_000_000,
            quota(&user.quota)
        );
        if let Some(why) = &user.banned {
            line.push_str(&format!("; banned: {}", ui::plain(why)));
        }
        ui::out(&line);
    }
}

fn quota(quota: &Quota) -> String {
    let parts = [
        quota.cells.map(|cells| format!("{cells} cells")),
        quota
            .exclusive_cores
            .map(|cores| format!("{cores} exclusive cores")),
        quota.memory.map(|memory| format!("{} of memory", Size(memory))),
        quota.cpu_time.map(|time| format!("{} of CPU a day", Time(time))),
        quota.wall_time.map(|time| format!("{} a cell", Time(time))),
        quota
            .output
            .map(|bytes| format!("{} of output a run", Size(bytes))),
        quota.stored.map(|bytes| format!("{} stored", Size(bytes))),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    match parts.is_empty() {
        true => "anything".to_owned(),
        false => parts.join(", "),
    }
}
