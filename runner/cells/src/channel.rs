//! A cell's control socket as the runner's thread sees it: read and written together with everything that may have to be done
//! meanwhile (the deadline, a stop request, the error output, what other threads ask).

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::context::Owner;
use crate::contract::{CellFault, Limit, Operation};
use crate::cores::arbiter::Claim;
use crate::process::Interruption;
use crate::protocol::{ToCell, write_message};
use crate::remote::{Answer, Remote, Reply, Request};
use crate::stop::{StopSignal, Urgency};
use crate::supervise::Child;

/// How long a cell may take to end after it was asked to stop.
const GRACE: Duration = Duration::from_secs(2);
/// How long a cell may take to end its guest's run after its wall time was up, and then to hand over what it gave: files, events
/// and memory of at most some hundred megabytes, maybe on a loaded host.
const FINISH: Duration = Duration::from_secs(2);
const HAND_OVER: Duration = Duration::from_secs(60);
/// How long a cell may take to exit by itself after its result came.
const LAST_BREATH: Duration = Duration::from_secs(2);
/// How much of a cell's error output is kept: the last bytes.
const ERROR_TAIL: usize = 8 << 10;
/// How long is waited before a cell that should listen is told so again: it may have begun to run just then.
const NUDGE: Duration = Duration::from_millis(5);
/// How often the CPU time of a cell with several processes is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// An operation that the cell was asked for and has not answered.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) operation: Operation,
    /// Who asked from another thread, and where a context goes then.
    pub(crate) by: Option<(Request, Reply)>,
}

/// The control socket, watched together with the deadline, the stop request and the error output.
#[derive(Debug)]
pub(crate) struct Channel {
    /// Whose contexts are whose, once its job has begun.
    pub(crate) owner: Option<Owner>,
    pub(crate) child: Child,
    stop: StopSignal,
    /// Whether the cell has said that it is ready. Before, a stop request ends it at once.
    pub(crate) ready: bool,
    pub(crate) told_to_stop: bool,
    /// Whether its job runs a guest, which can be ended before the cell.
    pub(crate) has_guest: bool,
    /// Whether its wall time was up, and it was told to finish.
    pub(crate) told_to_finish: bool,
    /// Whether it was told so because its processes together had used up their CPU time.
    pub(crate) out_of_cpu_time: bool,
    /// It has said that it does.
    finishing: bool,
    /// What the cell must still be told of the two: never within another message.
    owed: Option<ToCell>,
    pub(crate) started: Instant,
    wall: Duration,
    pub(crate) cpu_s: u64,
    deadline: Option<Instant>,
    pub(crate) interruption: Option<Interruption>,
    errors: VecDeque<u8>,
    errors_open: bool,
    /// Its claim on cores, once it has begun where somebody gives them.
    pub(crate) place: Option<Box<dyn Claim>>,
    /// Whether it closed its socket and lived on, until it was ended for that.
    pub(crate) outstayed: bool,
    /// Time of waiting for cores, and of pauses, that was added to the deadline.
    granted: Duration,
    /// How much of it was waiting for cores.
    waited: Duration,
    /// Since when it has been paused: no wall time passes.
    paused: Option<Instant>,
    /// Whether it stands still until it is to end.
    frozen: bool,
    /// What other threads ask; heard only while `serving`.
    pub(crate) remote: Remote,
    pub(crate) serving: bool,
    pub(crate) asked: Option<Asked>,
}

impl Channel {
    /// The channel of a process that was just made.
    pub(crate) fn new(child: Child, stop: StopSignal, wall: Duration, cpu_s: u64) -> io::Result<Self> {
        Ok(Self {
            owner: None,
            child,
            stop,
            ready: false,
            told_to_stop: false,
            has_guest: false,
            told_to_finish: false,
            out_of_cpu_time: false,
            finishing: false,
            owed: None,
            started: Instant::now(),
            wall,
            cpu_s,
            deadline: None,
            interruption: None,
            errors: VecDeque::new(),
            errors_open: true,
            place: None,
            outstayed: false,
            granted: Duration::ZERO,
            waited: Duration::ZERO,
            paused: None,
            frozen: false,
            remote: Remote::new()?,
            serving: false,
            asked: None,
        })
    }

    /// The wall time that counts from now on; `at_most` for the first words.
    pub(crate) fn set_deadline(&mut self, at_most: Duration) {
        if self.told_to_finish {
            return;
        }
        self.deadline = self
            .started
            .checked_add(self.wall.min(at_most).saturating_add(self.granted));
    }

    /// Changes a limit of the running process.
    pub(crate) fn set_limit(&mut self, limit: Limit) -> io::Result<()> {
        match limit {
            Limit::WallMillis(wall) => {
                self.wall = Duration::from_millis(wall);
                self.set_deadline(Duration::MAX);
                Ok(())
            }
            Limit::CpuSeconds(most) => {
                self.cpu_s = most;
                self.child.limit(libc::RLIMIT_CPU, most)
            }
            Limit::AddressSpace(most) => self.child.limit(libc::RLIMIT_AS, most),
            Limit::Memory(most) => self.child.limit_memory(most),
        }
    }

    /// The cell has done an operation: what of it concerns time.
    pub(crate) fn did(&mut self, operation: Operation) {
        match operation {
            Operation::Pause => _ = self.paused.get_or_insert_with(Instant::now),
            Operation::Resume => {
                let Some(since) = self.paused.take() else { return };
                let _ = self.child.freeze(false);
                match &self.place {
                    // What it waited for its turn meanwhile is counted by who gives turns.
                    Some(place) => place.hold(false),
                    None => {
                        let more = since.elapsed();
                        self.granted = self.granted.saturating_add(more);
                        self.deadline = self.deadline.and_then(|deadline| deadline.checked_add(more));
                    }
                }
            }
            // Somebody asked for it before its time was up: it is given the same for handing over.
            Operation::Finish => {
                self.told_to_finish = true;
                self.finishes();
            }
            _ => {}
        }
    }

    /// Before a paused cell is asked something, and after it has answered: it has turns only between them.
    pub(crate) fn attend(&self, asked: bool) {
        match (self.paused, &self.place) {
            (Some(_), Some(place)) => place.hold(!asked),
            // Its processes do not stand still because it does.
            (Some(_), None) => _ = self.child.freeze(!asked),
            (None, _) => {}
        }
    }

    /// Begins what other threads ask. Never within another message: only while the cell is listened to.
    fn serve(&mut self) {
        while self.serving
            && let Some((request, reply)) = self.remote.next(self.asked.is_some())
        {
            let Some(message) = request.message() else {
                self.do_alone(&request, &reply);
                continue;
            };
            let operation = request.operation();
            if operation == Operation::Pause && self.child.runs_on() {
                let _ = reply.send(Err(runs_on()));
                continue;
            }
            if self.frozen && operation != Operation::Finish {
                let reason = "it stands still until it ends".to_owned();
                let _ = reply.send(Err(CellFault::Refused { operation, reason }));
                continue;
            }
            self.attend(true);
            let mut frame = Vec::new();
            let whole = write_message(&mut frame, &message).is_ok()
                && matches!((&self.child.socket).write(&frame), Ok(written) if written == frame.len());
            if !whole {
                // The cell has not taken earlier messages: it would not hear this one either.
                let reason = "the cell does not listen".to_owned();
                self.attend(false);
                let _ = reply.send(Err(CellFault::Refused { operation, reason }));
                continue;
            }
            self.asked = Some(Asked {
                operation,
                by: Some((request, reply)),
            });
            self.thaw();
            self.child.nudge();
        }
    }

    /// Makes all of it stand still, whatever it or others of it do, until it is told to finish or to stop.
    fn freeze(&mut self) -> Result<Answer, CellFault> {
        // Who gives turns has groups of his own, by which all of a cell stands still.
        if self.place.is_none() && self.child.runs_on() {
            return Err(runs_on());
        }
        // What it has waited for is added now: from now on it waits for nothing.
        self.grant_waited();
        self.frozen = true;
        match &self.place {
            Some(place) => place.hold(true),
            None => self.child.freeze(true).map_err(|source| CellFault::Host {
                doing: "making a cell stand still",
                source,
            })?,
        }
        Ok(Answer::Done)
    }

    /// Lets a frozen cell go on, which was told before how to end; what it made ends without having gone on.
    fn thaw(&mut self) {
        if !std::mem::take(&mut self.frozen) {
            return;
        }
        self.child.end_others();
        match &self.place {
            Some(place) => {
                self.waited = place.waited();
                place.hold(false);
            }
            None => _ = self.child.freeze(false),
        }
    }

    /// What needs no word of the cell.
    fn do_alone(&mut self, request: &Request, reply: &Reply) {
        let host = |doing| move |source| CellFault::Host { doing, source };
        let answer = match request {
            Request::Usage => Ok(Answer::Usage(self.child.usage())),
            Request::SetLimit(limit) => self
                .set_limit(*limit)
                .map(|()| Answer::Done)
                .map_err(host("changing a limit of a cell")),
            Request::GoOnFrom(facts) => match self.owner.as_ref().map(Owner::facts) {
                Some(Ok(ours)) => facts.check(&ours).map(|()| Answer::Done).map_err(Into::into),
                Some(Err(source)) => Err(host("finding out what a context belongs to")(source)),
                None => Err(CellFault::Ended),
            },
            Request::Freeze => self.freeze(),
            Request::Stop => {
                self.tell_to_stop();
                Ok(Answer::Done)
            }
            _ => {
                self.child.usage();
                self.interruption.get_or_insert(Interruption::Stopped);
                self.child.kill();
                Ok(Answer::Done)
            }
        };
        let _ = reply.send(answer);
    }

    fn tell_to_stop(&mut self) {
        if self.told_to_stop {
            return;
        }
        self.did(Operation::Resume);
        // A pause is no time of its own.
        self.grant_waiting();
        self.told_to_stop = true;
        self.owed = Some(ToCell::Stop);
        let soon = Instant::now().checked_add(GRACE);
        self.deadline = match (self.deadline, soon) {
            (Some(deadline), Some(soon)) => Some(deadline.min(soon)),
            (deadline, soon) => deadline.or(soon),
        };
    }

    /// What stands against going on right now.
    fn check(&mut self) -> io::Result<()> {
        match self.stop.urgency() {
            Urgency::None => {}
            Urgency::Soon if self.told_to_stop => {}
            Urgency::Soon if !self.ready => return Err(self.interrupt(Interruption::Stopped)),
            Urgency::Soon => self.tell_to_stop(),
            Urgency::Now => return Err(self.interrupt(Interruption::Stopped)),
        }
        self.grant_waiting();
        match self.deadline {
            Some(deadline) if self.paused.is_none() && Instant::now() >= deadline => {
                if self.told_to_stop {
                    return Err(self.interrupt(Interruption::Stopped));
                }
                if self.told_to_finish || !self.has_guest || !self.serving {
                    return Err(self.interrupt(Interruption::WallTime));
                }
                self.tell_to_finish();
            }
            _ if self.counts_all()
                && self
                    .child
                    .cpu_of_all()
                    .is_some_and(|used| used >= self.cpu_s as f64) =>
            {
                self.out_of_cpu_time = true;
                self.tell_to_finish();
            }
            _ => {}
        }
        Ok(())
    }

    fn tell_to_finish(&mut self) {
        self.told_to_finish = true;
        self.owed = Some(ToCell::Finish);
        self.deadline = Instant::now().checked_add(FINISH);
    }

    /// Whether the CPU time of all its processes together is looked at now: the kernel limits that of each.
    fn counts_all(&self) -> bool {
        self.has_guest && self.serving && !self.told_to_finish && !self.told_to_stop && self.child.has_many()
    }

    /// The cell ended its guest's run: it has time to hand over what there is.
    /// Says so once: it has no more time for saying it again, and none when it is to stop.
    pub(crate) fn finishes(&mut self) {
        if !std::mem::replace(&mut self.finishing, true) && !self.told_to_stop {
            self.deadline = Instant::now().checked_add(HAND_OVER);
        }
    }

    /// Wall time in which the cell stood still because it was not its turn is not its own.
    fn grant_waiting(&mut self) {
        let is_up = self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if is_up && !self.told_to_stop && !self.frozen {
            self.grant_waited();
        }
    }

    fn grant_waited(&mut self) {
        if let (Some(deadline), Some(place)) = (self.deadline, &self.place) {
            let waited = place.waited();
            let more = waited.saturating_sub(self.waited);
            self.waited = waited;
            self.granted = self.granted.saturating_add(more);
            self.deadline = deadline.checked_add(more);
        }
    }

    /// Tells the cell to stop or to finish, where that is owed. Small enough for an empty socket buffer; if it is full, the deadline holds.
    fn pass_on(&mut self) {
        let mut frame = Vec::new();
        if let Some(owed) = self.owed.take()
            && write_message(&mut frame, &owed).is_ok()
        {
            let _ = (&self.child.socket).write(&frame);
            self.thaw();
            self.child.nudge();
        }
    }

    fn interrupt(&mut self, why: Interruption) -> io::Error {
        self.interruption = Some(why);
        io::Error::from(io::ErrorKind::TimedOut)
    }

    /// Waits until the socket is ready for `wanted`, or something else is to be done.
    fn wait(&mut self, wanted: PollFlags) -> io::Result<()> {
        self.check()?;
        let mut left = self
            .deadline
            .filter(|_| self.paused.is_none())
            .map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let nudging = self.asked.is_some() || self.told_to_stop || self.told_to_finish;
        if nudging {
            left = Some(left.unwrap_or(NUDGE).min(NUDGE));
        } else if self.counts_all() {
            left = Some(left.unwrap_or(LOOK).min(LOOK));
        }
        let left = match left {
            // One more, so that the deadline has passed when the time is up.
            Some(left) => {
                PollTimeout::try_from(left.as_millis().saturating_add(1)).unwrap_or(PollTimeout::MAX)
            }
            None => PollTimeout::NONE,
        };
        let mut watched = vec![
            PollFd::new(self.child.socket.as_fd(), wanted),
            PollFd::new(self.stop.now(), PollFlags::POLLIN),
        ];
        if self.serving {
            watched.push(PollFd::new(self.remote.wake(), PollFlags::POLLIN));
        }
        if !self.told_to_stop {
            watched.push(PollFd::new(self.stop.soon(), PollFlags::POLLIN));
        }
        if self.errors_open {
            watched.push(PollFd::new(self.child.errors.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut watched, left) {
            Ok(0) if nudging => self.child.nudge(),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        self.drain_errors();
        self.check()
    }

    /// Keeps the tail of the error output.
    pub(crate) fn drain_errors(&mut self) {
        let mut chunk = [0; 4096];
        // A bounded number of reads, so that a cell that floods its error output does not hold us here.
        for _ in 0..16 {
            if !self.errors_open {
                return;
            }
            match self.child.errors.read(&mut chunk) {
                Ok(0) => self.errors_open = false,
                Ok(read) => {
                    self.errors.extend(chunk.iter().take(read));
                    let excess = self.errors.len().saturating_sub(ERROR_TAIL);
                    self.errors.drain(..excess);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.errors_open = false,
            }
        }
    }

    pub(crate) fn error_text(&self) -> String {
        let bytes: Vec<u8> = self.errors.iter().copied().collect();
        hotcell_schema::guest::text(&bytes)
    }

    /// Ends the cell after it said its last word. One that takes turns is not given another only to exit.
    pub(crate) fn dismiss(&mut self) {
        match self.place {
            Some(_) => self.child.kill(),
            None => self.release(),
        }
    }

    /// Lets go of the cell: it may exit now by itself; it is killed when it does not.
    pub(crate) fn release(&mut self) {
        let _ = self.child.socket.shutdown(std::net::Shutdown::Both);
        let until = Instant::now().checked_add(LAST_BREATH);
        // The error output closes when the process ends: that is waited for, without asking again and again.
        while self.errors_open && until.is_some_and(|until| Instant::now() < until) {
            let mut watched = [PollFd::new(self.child.errors.as_fd(), PollFlags::POLLIN)];
            let left = until.map_or(0, |until| {
                until.saturating_duration_since(Instant::now()).as_millis()
            });
            let timeout = PollTimeout::try_from(left.saturating_add(1)).unwrap_or(PollTimeout::MAX);
            let _ = poll(&mut watched, timeout);
            self.drain_errors();
        }
        if !self.child.has_ended() && self.errors_open {
            self.outstayed = true;
            self.child.kill();
        }
        if self.stop.urgency() == Urgency::Now {
            self.child.kill();
        }
    }
}

/// Why a cell cannot be paused whose processes would run on.
pub(crate) fn runs_on() -> CellFault {
    CellFault::Refused {
        operation: Operation::Pause,
        reason: "this host has no control group that would make the processes of the cell stand still"
            .to_owned(),
    }
}

impl Read for Channel {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            // Also for a cell that never leaves us waiting.
            self.check()?;
            self.pass_on();
            self.serve();
            match (&self.child.socket).read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait(PollFlags::POLLIN)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }
}

impl Write for Channel {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            self.check()?;
            match (&self.child.socket).write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait(PollFlags::POLLOUT)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
