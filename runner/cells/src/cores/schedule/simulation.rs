//! Ten thousand hosts with random cells, played through without a clock: nobody starves, no core is held twice, bounds hold.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};

use super::*;

/// One millisecond.
const MS: Nanos = 1_000_000;
/// Longest time until a cell that was let run runs, and until one that was told to stop stands still.
const CHANGE: Nanos = 50_000;

/// Numbers by chance, the same for the same seed (SplitMix64: Steele, Lea, Flood 2014).
struct Chance(u64);

impl Chance {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (value ^ (value >> 31)) % most.max(1)
    }

    fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }
}

/// A cell of a workload.
struct Planned {
    arrives: Nanos,
    needs: Nanos,
    request: Request,
}

/// What was seen of a cell.
#[derive(Default)]
struct Seen {
    left: Nanos,
    /// Since when it is ready without running.
    waits: Option<Nanos>,
    runs: Option<Nanos>,
}

struct Host {
    schedule: Schedule,
    now: Nanos,
    cells: BTreeMap<CellId, Seen>,
    /// Who was told to stop, and when it stands still.
    stopping: BTreeMap<CellId, Nanos>,
    longest: Nanos,
    bound: Nanos,
    switches: u64,
}

impl Host {
    fn decide(&mut self, chance: &mut Chance) {
        for action in self.schedule.decide(self.now) {
            match action {
                Action::Run { cell, cores } => {
                    let request = self.schedule.cells[&cell].request;
                    assert_eq!(cores.len(), request.cores.get(), "all or none");
                    assert!(!self.stopping.contains_key(&cell));
                    let seen = self.cells.get_mut(&cell).unwrap();
                    let at = self.now + chance.below(CHANGE);
                    assert!(seen.runs.replace(at).is_none(), "it runs already");
                    self.schedule.began(at, cell);
                    if let (Some(since), Hold::Turns) = (seen.waits.take(), request.hold) {
                        self.longest = self.longest.max(self.now - since);
                    }
                    self.switches += 1;
                }
                Action::Stop { cell } => {
                    let at = self.now + chance.below(CHANGE);
                    assert!(self.stopping.insert(cell, at).is_none(), "told twice");
                }
            }
        }
        // Who is ready since now, waits.
        for (cell, seen) in &mut self.cells {
            match self.schedule.doing(*cell) {
                Some(Doing::Ready) => _ = seen.waits.get_or_insert(self.now),
                _ => seen.waits = None,
            }
        }
        self.bound = self.bound.max(self.schedule.longest_wait(2 * CHANGE));
        self.check();
    }

    /// What holds at every moment.
    fn check(&self) {
        let rules = self.schedule.rules();
        let mut held = BTreeMap::new();
        let mut exclusive = 0;
        let mut of_users: BTreeMap<u32, (usize, usize)> = BTreeMap::new();
        for (cell, entry) in &self.schedule.cells {
            let user = of_users.entry(entry.request.user).or_default();
            let doing = self.schedule.doing(*cell);
            if doing != Some(Doing::Held) {
                user.0 += 1;
            }
            if let Some(Doing::Running(cores) | Doing::Stopping(cores)) = doing {
                for core in cores.iter() {
                    assert!(rules.pool.contains(core));
                    assert!(held.insert(core, *cell).is_none(), "core {core} is held twice");
                }
                if entry.request.hold != Hold::Turns {
                    exclusive += cores.len();
                    user.1 += cores.len();
                }
            }
        }
        assert_eq!(held, self.schedule.held);
        assert!(exclusive <= rules.exclusive && exclusive * 2 <= rules.pool.len());
        assert!(of_users.values().map(|user| user.0).sum::<usize>() <= rules.cells.get());
        for (user, (cells, exclusive)) in of_users {
            let allowance = self.schedule.allowance(user);
            assert!(allowance.cells.is_none_or(|most| cells <= most.get()));
            assert!(allowance.exclusive.is_none_or(|most| exclusive <= most));
        }
        // Nobody who needs one core waits beside a free one, but where it is kept for someone before.
        let free = rules.pool.iter().any(|core| !held.contains_key(&core));
        let ready = || self.schedule.cells.values().filter(|entry| entry.is_ready());
        if free && ready().any(|entry| entry.request.hold == Hold::Turns) {
            assert!(
                ready().any(|entry| entry.request.cores.get() > 1),
                "a core is idle and a cell waits"
            );
        }
    }

    /// When something happens next.
    fn next(&self) -> Option<Nanos> {
        let ends = self.cells.values();
        let ends = ends.filter_map(|seen| Some(seen.runs? + seen.left));
        let stops = self.stopping.values().copied();
        ends.chain(stops).chain(self.schedule.next(self.now)).min()
    }

    /// Lets time pass: who has done all, ends; who was told to, stands still.
    fn pass(&mut self, until: Nanos) {
        assert!(until >= self.now);
        self.now = until;
        let mut gone = Vec::new();
        for (cell, seen) in &mut self.cells {
            let Some(from) = seen.runs else { continue };
            if from + seen.left <= until {
                gone.push(*cell);
            } else if self.stopping.get(cell).is_some_and(|at| *at <= until) {
                seen.left -= until.saturating_sub(from);
                seen.runs = None;
                self.stopping.remove(cell);
                self.schedule.stopped(until, *cell);
            }
        }
        for cell in gone {
            self.stopping.remove(&cell);
            self.cells.remove(&cell);
            self.schedule.gone(cell);
        }
    }
}

fn workload(chance: &mut Chance) -> (Rules, Vec<Planned>) {
    let cores = 1 + chance.below(8);
    let pool: CoreSet = (2..2 + u32::try_from(cores).unwrap()).collect();
    let exclusive = usize::try_from(chance.below(cores / 2 + 1)).unwrap();
    let mut users = BTreeMap::new();
    for user in 0..3 {
        if chance.one_in(2) {
            let allowance = Allowance {
                cells: NonZeroUsize::new(usize::try_from(chance.below(5)).unwrap()),
                exclusive: Some(usize::try_from(chance.below(3)).unwrap()),
                memory: chance.one_in(2).then(|| chance.below(8)),
            };
            users.insert(user, allowance);
        }
    }
    let rules = Rules {
        pool,
        slice: NonZeroU64::new(MS + chance.below(20 * MS)).unwrap(),
        ageing: NonZeroU64::new(5 * MS + chance.below(200 * MS)).unwrap(),
        exclusive,
        cells: NonZeroUsize::new(2 + usize::try_from(chance.below(30)).unwrap()).unwrap(),
        users,
    };
    let cells = (0..1 + chance.below(20)).map(|_| {
        let hold = match chance.below(4) {
            0 => Hold::Exclusive {
                core: chance
                    .one_in(3)
                    .then(|| 2 + u32::try_from(chance.below(cores)).unwrap()),
            },
            _ => Hold::Turns,
        };
        Planned {
            arrives: chance.below(100 * MS),
            needs: 1 + chance.below(60 * MS),
            request: Request {
                user: u32::try_from(chance.below(4)).unwrap(),
                cores: NonZeroUsize::new(1 + usize::try_from(chance.below(6) / 4).unwrap()).unwrap(),
                hold,
                priority: [Priority::Low, Priority::Normal, Priority::High]
                    [usize::try_from(chance.below(3)).unwrap()],
                weight: NonZeroU32::new([50, 100, 100, 200][usize::try_from(chance.below(4)).unwrap()])
                    .unwrap(),
                memory: chance.below(4),
                processes: false,
            },
        }
    });
    let mut cells: Vec<Planned> = cells.collect();
    cells.sort_by_key(|cell| cell.arrives);
    (rules, cells)
}

/// Plays one workload to its end.
fn play(seed: u64) -> (Nanos, Nanos, u64) {
    let mut chance = Chance(seed);
    let (rules, planned) = workload(&mut chance);
    let mut host = Host {
        schedule: Schedule::new(rules),
        now: 0,
        cells: BTreeMap::new(),
        stopping: BTreeMap::new(),
        longest: 0,
        bound: 0,
        switches: 0,
    };
    let mut arrivals = planned.iter().zip(0u64..).peekable();
    let mut steps = 0u32;
    loop {
        let next = host.next();
        let arrival = arrivals.peek().map(|(cell, _)| cell.arrives);
        let Some(at) = next.into_iter().chain(arrival).min() else {
            break;
        };
        host.pass(at);
        while let Some((cell, number)) = arrivals.next_if(|(cell, _)| cell.arrives <= at) {
            let id = CellId(number);
            if host.schedule.submit(at, id, cell.request).is_ok() {
                let seen = Seen {
                    left: cell.needs,
                    ..Seen::default()
                };
                host.cells.insert(id, seen);
            }
        }
        host.decide(&mut chance);
        steps += 1;
        assert!(steps < 100_000, "seed {seed} does not come to an end");
    }
    assert!(
        host.cells.is_empty(),
        "seed {seed}: somebody never ran to the end"
    );
    assert!(
        host.longest <= host.bound,
        "seed {seed}: {} waited, {} stated",
        host.longest,
        host.bound
    );
    // What is told of it afterwards is the same.
    assert_eq!(host.schedule.waited(), host.longest, "seed {seed}");
    assert!(host.schedule.promised(2 * CHANGE) >= host.bound, "seed {seed}");
    (host.longest, host.bound, host.switches)
}

#[test]
fn ten_thousand_hosts_starve_nobody() {
    let mut switches = 0;
    let mut nearest = 0.0f64;
    for seed in 0..10_000 {
        let (longest, bound, switched) = play(seed);
        switches += switched;
        nearest = nearest.max(longest as f64 / bound.max(1) as f64);
    }
    // Workloads in which nothing waits would prove nothing.
    assert!(switches > 100_000, "{switches}");
    assert!(nearest > 0.2, "{nearest}");
}

#[test]
fn the_same_workload_is_played_the_same() {
    assert_eq!(play(77), play(77));
}
