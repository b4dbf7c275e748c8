//! What is to be done now, and when to ask again.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use hotcell_schema::cores::CoreSet;

use super::cell::{Entry, State};
use super::{Action, CellId, Hold, Nanos, Request, Schedule};

/// What the line leaves over.
struct Line {
    /// Cores that are free and that nobody before has claimed.
    free: CoreSet,
    /// How many more cores those who wait could use, whichever they are.
    wanted: usize,
    /// Cores that somebody waits for by their number.
    named: CoreSet,
}

impl Schedule {
    /// What is to be done now. To be called after everything the schedule was told, and when [`Schedule::next`] says.
    pub fn decide(&mut self, now: Nanos) -> Vec<Action> {
        let mut actions = Vec::new();
        self.admit(now);
        self.stop_unwanted(&mut actions);
        let line = self.serve(now, &mut actions);
        self.end_slices(now, line, &mut actions);
        actions
    }

    /// When to ask again, if nothing happens before; `None`: nothing changes by waiting.
    pub fn next(&self, now: Nanos) -> Option<Nanos> {
        let entries = self.cells.values();
        let someone_waits = entries.clone().any(Entry::is_ready);
        let slices = entries.clone().filter_map(|entry| match &entry.state {
            State::Running { until, .. } if someone_waits && is_shared(&entry.request) => Some(*until),
            _ => None,
        });
        // Who has waited for long enough may take more cores.
        let ageing = self.rules.ageing.get();
        let aged = entries
            .filter(|entry| entry.is_ready() && !is_shared(&entry.request))
            .map(|entry| entry.since.saturating_add(ageing))
            .filter(|at| *at > now);
        slices.chain(aged).min().map(|at| at.max(now))
    }

    /// Lets in those who wait for it, first come, first served, as far as users and host may have cells.
    fn admit(&mut self, now: Nanos) {
        if !self
            .cells
            .values()
            .any(|entry| matches!(entry.state, State::Held))
        {
            return;
        }
        let mut all = 0usize;
        let mut of_users: BTreeMap<u32, (usize, u64)> = BTreeMap::new();
        let mut waiting: Vec<(u64, CellId)> = Vec::new();
        for (cell, entry) in &self.cells {
            match entry.state {
                State::Held => waiting.push((entry.place, *cell)),
                _ => {
                    all = all.saturating_add(1);
                    let (cells, memory) = of_users.entry(entry.request.user).or_default();
                    *cells = cells.saturating_add(1);
                    *memory = memory.saturating_add(entry.request.memory);
                }
            }
        }
        waiting.sort_unstable();
        let mut full = BTreeSet::new();
        for (_, cell) in waiting {
            if all >= self.rules.cells.get() {
                return;
            }
            let Some(request) = self.cells.get(&cell).map(|entry| entry.request) else {
                continue;
            };
            if full.contains(&request.user) {
                continue;
            }
            let most = self.allowance(request.user);
            let (cells, memory) = of_users.entry(request.user).or_default();
            let together = memory.saturating_add(request.memory);
            if most.cells.is_some_and(|most| *cells >= most.get())
                || most.memory.is_some_and(|most| together > most)
            {
                // Nobody of the same user behind it is let in before it.
                full.insert(request.user);
                continue;
            }
            *cells = cells.saturating_add(1);
            *memory = together;
            all = all.saturating_add(1);
            if let Some(entry) = self.cells.get_mut(&cell) {
                entry.admit(now);
            }
        }
    }

    /// Stops what is paused, and what holds a core exclusively that was taken out of exclusive use.
    fn stop_unwanted(&mut self, actions: &mut Vec<Action>) {
        for (cell, entry) in &mut self.cells {
            let State::Running { cores, .. } = &entry.state else {
                continue;
            };
            let exclusive = !is_shared(&entry.request);
            let reclaimed = exclusive && cores.iter().any(|core| self.reclaimed.contains(&core));
            if (entry.paused.by_any() || reclaimed) && entry.stop() {
                actions.push(Action::Stop { cell: *cell });
            }
        }
    }

    /// Gives free cores to those who wait, in order.
    fn serve(&mut self, now: Nanos, actions: &mut Vec<Action>) -> Line {
        let mut line = Line {
            free: self
                .rules
                .pool
                .iter()
                .filter(|core| !self.held.contains_key(core))
                .collect(),
            wanted: 0,
            named: CoreSet::default(),
        };
        let ageing = self.rules.ageing.get();
        let ready = self.cells.iter().filter(|(_, entry)| entry.is_ready());
        let mut order: Vec<(Reverse<u64>, u64, CellId)> = ready
            .map(|(cell, entry)| (Reverse(entry.level(now, ageing)), entry.place, *cell))
            .collect();
        order.sort_unstable();
        let mut open_to_exclusive = self.open_to_exclusive(now);
        for (_, _, cell) in order {
            let Some(request) = self.cells.get(&cell).map(|entry| entry.request) else {
                continue;
            };
            let wanted = request.cores.get();
            let may_use = match request.hold {
                Hold::Turns => line.free.clone(),
                Hold::Exclusive { core } => {
                    let usable = self.open_to(&line.free);
                    // Kept back by a bound, not by those before it: nothing is kept free for it.
                    let too_many = wanted > open_to_exclusive || wanted > self.left_to_user(request.user);
                    if too_many || wanted > self.ever_exclusive() {
                        continue;
                    }
                    if let Some(core) = core.filter(|core| !usable.contains(*core)) {
                        line.named = line.named.or(&self.open_to(&CoreSet::from_iter([core])));
                        continue;
                    }
                    open_to_exclusive = open_to_exclusive.saturating_sub(wanted);
                    usable
                }
            };
            if may_use.len() < wanted {
                // What is free is kept for the first in the line that needs more, and nobody behind it takes any.
                line.wanted = line.wanted.saturating_add(wanted - may_use.len());
                line.free = CoreSet::default();
                continue;
            }
            let cores = choose(&may_use, &request);
            line.free = line.free.without(&cores);
            self.run(now, cell, cores, actions);
        }
        line
    }

    fn run(&mut self, now: Nanos, cell: CellId, cores: CoreSet, actions: &mut Vec<Action>) {
        let Some(slice) = self.cells.get(&cell).map(|entry| self.slice_of(&entry.request)) else {
            return;
        };
        for core in cores.iter() {
            self.held.insert(core, cell);
        }
        if let Some(entry) = self.cells.get_mut(&cell) {
            if is_shared(&entry.request) {
                self.waits.ended(now.saturating_sub(entry.since));
            }
            entry.run(now, cores.clone(), slice);
        }
        actions.push(Action::Run { cell, cores });
    }

    /// Ends the slices that are over, as far as somebody waits for their cores; the others go on.
    fn end_slices(&mut self, now: Nanos, line: Line, actions: &mut Vec<Action>) {
        let stopping: usize = self
            .cells
            .values()
            .map(|entry| match &entry.state {
                State::Stopping { cores, .. } => cores.len(),
                _ => 0,
            })
            .sum();
        let mut wanted = line.wanted.saturating_sub(stopping);
        let over = self.cells.iter().filter_map(|(cell, entry)| match &entry.state {
            State::Running { until, cores, .. } if *until <= now && is_shared(&entry.request) => {
                Some((*until, *cell, cores.clone()))
            }
            _ => None,
        });
        let mut over: Vec<(Nanos, CellId, CoreSet)> = over.collect();
        over.sort();
        for (_, cell, cores) in over {
            let named = !cores.and(&line.named).is_empty();
            let Some(entry) = self.cells.get_mut(&cell) else {
                continue;
            };
            if wanted > 0 || named {
                wanted = wanted.saturating_sub(cores.len());
                if entry.stop() {
                    actions.push(Action::Stop { cell });
                }
                continue;
            }
            let weight = entry.request;
            let slice = self.slice_of(&weight);
            if let Some(Entry {
                state: State::Running { until, .. },
                ..
            }) = self.cells.get_mut(&cell)
            {
                *until = now.saturating_add(slice);
            }
        }
    }

    /// How many cores more may be held exclusively now: the part that exclusive cells have in all that is asked for, rounded
    /// up; the whole bound once one has waited for long.
    fn open_to_exclusive(&self, now: Nanos) -> usize {
        let most = self.rules.exclusive;
        let (mut exclusive, mut shared, mut held) = (0usize, 0usize, 0usize);
        let mut aged = false;
        for entry in self
            .cells
            .values()
            .filter(|entry| !matches!(entry.state, State::Held))
        {
            let cores = entry.request.cores.get();
            let waits = entry.is_ready();
            let runs = !matches!(entry.state, State::Waiting);
            match entry.request.hold {
                Hold::Turns if waits || runs => shared = shared.saturating_add(cores),
                Hold::Exclusive { .. } if waits || runs => {
                    exclusive = exclusive.saturating_add(cores);
                    held = held.saturating_add(if runs { cores } else { 0 });
                    aged |= waits && now.saturating_sub(entry.since) >= self.rules.ageing.get();
                }
                _ => {}
            }
        }
        let all = exclusive.saturating_add(shared);
        let part = match all {
            0 => 0,
            all => self.rules.pool.len().saturating_mul(exclusive).div_ceil(all),
        };
        let bound = if aged { most } else { part.min(most) };
        bound.saturating_sub(held)
    }

    /// Of these cores, those that were not taken out of exclusive use.
    fn open_to(&self, cores: &CoreSet) -> CoreSet {
        cores
            .iter()
            .filter(|core| !self.reclaimed.contains(core))
            .collect()
    }

    /// How many cores could become free for one more exclusive cell if all who share stood still.
    fn ever_exclusive(&self) -> usize {
        let held = self.held.iter().filter(|(_, cell)| {
            self.cells
                .get(cell)
                .is_some_and(|entry| !is_shared(&entry.request))
        });
        let held: CoreSet = held.map(|(core, _)| *core).collect();
        self.open_to(&self.rules.pool).without(&held).len()
    }

    /// How many cores more a user may hold exclusively.
    fn left_to_user(&self, user: u32) -> usize {
        let Some(most) = self.allowance(user).exclusive else {
            return usize::MAX;
        };
        let held = self.cells.values().filter_map(|entry| match &entry.state {
            State::Running { cores, .. } | State::Stopping { cores, .. }
                if entry.request.user == user && !is_shared(&entry.request) =>
            {
                Some(cores.len())
            }
            _ => None,
        });
        most.saturating_sub(held.sum())
    }
}

fn is_shared(request: &Request) -> bool {
    matches!(request.hold, Hold::Turns)
}

/// Of the cores that a cell may use, those that it gets: the one it wants, then the smallest.
fn choose(may_use: &CoreSet, request: &Request) -> CoreSet {
    let wish = match request.hold {
        Hold::Exclusive { core } => core,
        Hold::Turns => None,
    };
    let rest = may_use.iter().filter(|core| Some(*core) != wish);
    wish.into_iter().chain(rest).take(request.cores.get()).collect()
}
