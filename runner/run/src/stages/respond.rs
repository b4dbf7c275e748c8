//! Rules that act while a guest runs: its events are judged as the monitor writes them, and what was done is told.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::Duration;

use hotcell_cells::remote::{Remote, Request};
use hotcell_detect::RuleSet;
use hotcell_schema::event::{Event, Header, ProcessOp, What};
use hotcell_schema::finding::Severity;
use hotcell_schema::respond::{Action, Response};

use crate::monitor::Monitor;

/// How long to wait for more of a file that was read to its end. The monitor is not to know who reads it, and so never waits.
const LOOK: Duration = Duration::from_millis(1);

/// What is judged, and where.
#[derive(Debug, Clone)]
pub(super) struct Judge {
    pub(super) rules: Arc<RuleSet>,
    pub(super) at: Severity,
    pub(super) header: Header,
}

/// Who can act upon a guest.
pub(super) struct Reach<'a> {
    /// The monitor, and the number that it knows the cell by.
    pub(super) monitor: &'a Monitor,
    pub(super) cell: u32,
    /// The keeper.
    pub(super) keeper: Remote,
}

/// What a rule decided, and was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decision {
    /// The rule's id.
    pub(super) rule: String,
    pub(super) action: Action,
    /// `seq` of the event after which the rule held.
    pub(super) event: u64,
}

/// The thread that judges.
pub(super) struct Live<'scope> {
    thread: ScopedJoinHandle<'scope, io::Result<Option<Decision>>>,
    over: Over,
}

/// Dropped when the guest has ended, or nothing has come of it.
struct Over(Arc<AtomicBool>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

impl<'scope> Live<'scope> {
    /// Judges what is written into a file from now on.
    pub(super) fn begin<'env>(
        scope: &'scope Scope<'scope, 'env>,
        judge: Judge,
        reach: Reach<'env>,
        events: PathBuf,
    ) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&over);
        let thread = scope.spawn(move || {
            let file = File::open(&events)?;
            Ok(watch(&judge, &reach, file, &ends))
        });
        Self {
            thread,
            over: Over(over),
        }
    }

    /// The guest has ended: what was done to it.
    pub(super) fn end(self) -> io::Result<Option<Decision>> {
        drop(self.over);
        self.thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("who judges events ended before them")))
    }
}

/// Until a rule that acts holds and has acted, or the guest has ended.
fn watch(judge: &Judge, reach: &Reach<'_>, file: impl io::Read, over: &AtomicBool) -> Option<Decision> {
    let mut file = BufReader::with_capacity(1 << 16, file);
    let mut evaluation = judge.rules.start_acting(&judge.header, judge.at);
    let mut line = Vec::new();
    while !over.load(Ordering::Acquire) {
        // What is there of a line stays, until the rest has come.
        match file.read_until(b'\n', &mut line) {
            Ok(_) if line.last() == Some(&b'\n') => {}
            Ok(_) => {
                std::thread::sleep(LOOK);
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return None,
        }
        let event: Result<Event, _> = serde_json::from_slice(&line);
        line.clear();
        let Ok(event) = event else { return None };
        evaluation.event(&event);
        if let Some((rule, action)) = evaluation.acting() {
            // One that has ended by itself meanwhile was not ended by a rule.
            reach.act(action).then_some(())?;
            return Some(Decision {
                rule: rule.id.clone(),
                action,
                event: event.seq,
            });
        }
    }
    None
}

impl Reach<'_> {
    fn act(&self, action: Action) -> bool {
        match action {
            Action::Kill => self.keeper.ask(Request::Finish).is_ok(),
            Action::Freeze => self.monitor.freeze(self.cell).is_ok(),
        }
    }
}

/// What was done about a guest, told by its events: what ended processes in the kernel, and what a rule decided.
#[derive(Debug, Default)]
pub(super) struct Told {
    decision: Option<Decision>,
    /// When the event of the decision was.
    decided: Option<u64>,
    /// Processes that the kernel ends, and which of the responses is about them.
    denied: BTreeMap<u32, (u64, usize)>,
    responses: Vec<Response>,
}

impl Told {
    /// Of a guest of which a rule decided this.
    pub(super) fn new(decision: Option<Decision>) -> Self {
        Self {
            decision,
            ..Self::default()
        }
    }

    /// Takes the next event.
    pub(super) fn event(&mut self, event: &Event) {
        if let Some((decided, place)) = self.denied.get(&event.task.pid).copied()
            && let Some(response) = self.responses.get_mut(place)
        {
            after(response, decided, event);
            if is_end(event) {
                self.denied.remove(&event.task.pid);
            }
        }
        match (&self.decision, self.decided) {
            (Some(decision), None) if event.seq == decision.event => {
                self.decided = Some(event.time);
                let (rule, action) = (decision.rule.clone(), decision.action);
                self.responses.insert(0, began(rule, action, event));
                // The first is the rule's: those of others moved.
                self.denied.values_mut().for_each(|(_, place)| *place += 1);
            }
            (Some(decision), Some(decided)) => {
                let freezes = decision.action == Action::Freeze;
                if let Some(response) = self.responses.first_mut()
                    // A frozen guest is ended when its time is up.
                    && !(freezes && is_end(event))
                {
                    after(response, decided, event);
                }
            }
            _ => {}
        }
        if let What::Process(what) = &event.what
            && what.op == ProcessOp::Denied
            && self.responses.len() < MOST
        {
            let name = what.denied.map_or("?", |denied| denied.as_str());
            self.denied
                .insert(event.task.pid, (event.time, self.responses.len()));
            self.responses
                .push(began(format!("deny.{name}"), Action::Kill, event));
        }
    }

    /// All of it, in the order of the events that decided.
    pub(super) fn finish(mut self) -> Vec<Response> {
        self.responses.sort_by_key(|response| response.event);
        self.responses
    }
}

/// Most responses of one guest that are told.
const MOST: usize = 1000;

fn began(rule: String, action: Action, event: &Event) -> Response {
    Response {
        rule,
        action,
        event: event.seq,
        latency: 0,
        calls_after: 0,
    }
}

fn is_end(event: &Event) -> bool {
    matches!(&event.what, What::Process(what) if matches!(what.op, ProcessOp::Exit | ProcessOp::Killed))
}

/// What an event adds that came after the one that decided.
fn after(response: &mut Response, decided: u64, event: &Event) {
    let counts = match &event.what {
        What::Syscall(_) => {
            response.calls_after += 1;
            response.action == Action::Freeze
        }
        _ => is_end(event),
    };
    if counts {
        response.latency = event.time.saturating_sub(decided);
    }
}
