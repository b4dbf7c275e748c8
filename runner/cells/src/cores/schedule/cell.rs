//! What is known of one cell.

use hotcell_schema::cores::CoreSet;

use hotcell_schema::manifest::Priority;

use super::{Nanos, Pauser, Request};

/// One cell.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) request: Request,
    pub(super) state: State,
    /// Who does not want it to run.
    pub(super) paused: Paused,
    /// Its place in the line: who came earlier has a smaller one.
    pub(super) place: u64,
    /// Since when it waits.
    pub(super) since: Nanos,
    /// How long it ran before this turn.
    ran: Nanos,
}

/// Who does not want a cell to run.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Paused {
    person: bool,
    runner: bool,
}

impl Paused {
    pub(super) fn by(&mut self, by: Pauser) -> &mut bool {
        match by {
            Pauser::Person => &mut self.person,
            Pauser::Runner => &mut self.runner,
        }
    }

    pub(super) fn by_any(self) -> bool {
        self.person || self.runner
    }
}

/// Where a cell is.
#[derive(Debug)]
pub(super) enum State {
    /// Not admitted yet.
    Held,
    /// It stands still.
    Waiting,
    /// It runs.
    Running {
        cores: CoreSet,
        from: Nanos,
        until: Nanos,
    },
    /// It was told to stand still.
    Stopping { cores: CoreSet, from: Nanos },
}

impl Entry {
    pub(super) fn new(request: Request, now: Nanos, place: u64) -> Self {
        Self {
            request,
            state: State::Held,
            paused: Paused::default(),
            place,
            since: now,
            ran: 0,
        }
    }

    /// Whether it wants to run and does not.
    pub(super) fn is_ready(&self) -> bool {
        matches!(self.state, State::Waiting) && !self.paused.by_any()
    }

    /// Its level after it has waited until now.
    pub(super) fn level(&self, now: Nanos, ageing: Nanos) -> u64 {
        let risen = now.saturating_sub(self.since) / ageing.max(1);
        level(self.request.priority).saturating_add(risen).min(TOP)
    }

    /// It waits from now on, as one who was not admitted before.
    pub(super) fn admit(&mut self, now: Nanos) {
        self.state = State::Waiting;
        self.since = now;
    }

    pub(super) fn run(&mut self, now: Nanos, cores: CoreSet, slice: Nanos) {
        self.state = State::Running {
            cores,
            from: now,
            until: now.saturating_add(slice),
        };
    }

    /// It runs since `now`; its slice is as long as it was.
    pub(super) fn began(&mut self, now: Nanos) {
        if let State::Running { from, until, .. } = &mut self.state {
            *until = until.saturating_add(now.saturating_sub(*from));
            *from = now;
        }
    }

    /// Tells it to stop; `false`: it does not run.
    pub(super) fn stop(&mut self) -> bool {
        match std::mem::replace(&mut self.state, State::Waiting) {
            State::Running { cores, from, .. } => {
                self.state = State::Stopping { cores, from };
                true
            }
            other => {
                self.state = other;
                false
            }
        }
    }

    /// It stands still, and goes to a place in the line; `false`: it did before.
    pub(super) fn has_stopped(&mut self, now: Nanos, place: u64) -> bool {
        let (State::Running { from, .. } | State::Stopping { from, .. }) = &self.state else {
            return false;
        };
        self.ran = self.ran.saturating_add(now.saturating_sub(*from));
        self.state = State::Waiting;
        self.place = place;
        self.since = now;
        true
    }

    pub(super) fn resume(&mut self, by: Pauser, now: Nanos, place: u64) {
        let was = std::mem::take(self.paused.by(by));
        if was && !self.paused.by_any() && matches!(self.state, State::Waiting) {
            self.place = place;
            self.since = now;
        }
    }

    pub(super) fn ran(&self, now: Nanos) -> Nanos {
        let (State::Running { from, .. } | State::Stopping { from, .. }) = &self.state else {
            return self.ran;
        };
        self.ran.saturating_add(now.saturating_sub(*from))
    }
}

/// The highest level, to which waiting leads.
pub(super) const TOP: u64 = 3;

fn level(priority: Priority) -> u64 {
    match priority {
        Priority::Low => 0,
        Priority::Normal => 1,
        Priority::High => 2,
    }
}
