//! Single rules, each by itself.

use super::*;

const MS: Nanos = 1_000_000;

fn rules(pool: &str, exclusive: usize) -> Rules {
    Rules {
        pool: pool.parse().unwrap(),
        slice: NonZeroU64::new(10 * MS).unwrap(),
        ageing: NonZeroU64::new(100 * MS).unwrap(),
        exclusive,
        cells: NonZeroUsize::new(100).unwrap(),
        users: BTreeMap::new(),
    }
}

fn exclusive(user: u32, core: Option<u32>) -> Request {
    Request {
        hold: Hold::Exclusive { core },
        ..Request::of(user)
    }
}

fn wide(cores: usize, request: Request) -> Request {
    Request {
        cores: NonZeroUsize::new(cores).unwrap(),
        ..request
    }
}

/// Who is told to run on what, and who to stop.
fn told(schedule: &mut Schedule, now: Nanos) -> Vec<String> {
    let actions = schedule.decide(now).into_iter();
    actions
        .map(|action| match action {
            Action::Run { cell, cores } => format!("{} on {cores}", cell.0),
            Action::Stop { cell } => format!("stop {}", cell.0),
        })
        .collect()
}

/// A host with cells that all came at once.
fn host(rules: Rules, requests: &[Request]) -> Schedule {
    let mut schedule = Schedule::new(rules);
    for (request, cell) in requests.iter().zip(1..) {
        schedule.submit(0, CellId(cell), *request).unwrap();
    }
    schedule
}

#[test]
fn cells_take_turns_in_the_order_they_came() {
    let mut schedule = host(rules("2", 0), &[Request::of(1); 3]);
    let mut now = 0;
    let mut order = Vec::new();
    for _ in 0..7 {
        let said = told(&mut schedule, now);
        order.extend(
            said.iter()
                .filter_map(|text| text.strip_suffix(" on 2").map(str::to_owned)),
        );
        assert_eq!(schedule.next(now), Some(now + 10 * MS));
        now += 10 * MS;
        let stop = told(&mut schedule, now);
        let running = order.last().unwrap();
        assert_eq!(stop, [format!("stop {running}")]);
        schedule.stopped(now, CellId(running.parse().unwrap()));
    }
    assert_eq!(order, ["1", "2", "3", "1", "2", "3", "1"]);
    assert_eq!(schedule.ran(now, CellId(1)), 30 * MS);
    assert_eq!(schedule.ran(now, CellId(3)), 20 * MS);
}

#[test]
fn a_slice_that_nobody_waits_for_goes_on() {
    let mut schedule = host(rules("2-3", 1), &[Request::of(1), Request::of(1)]);
    assert_eq!(told(&mut schedule, 0), ["1 on 2", "2 on 3"]);
    assert_eq!(schedule.next(0), None, "nobody waits");
    assert!(told(&mut schedule, 50 * MS).is_empty());
    schedule.submit(51 * MS, CellId(3), Request::of(1)).unwrap();
    assert!(told(&mut schedule, 51 * MS).is_empty(), "a slice has begun anew");
    assert_eq!(schedule.next(51 * MS), Some(60 * MS));
    // One waits, one stops.
    assert_eq!(told(&mut schedule, 60 * MS), ["stop 1"]);
    assert!(told(&mut schedule, 60 * MS).is_empty(), "it is told once");
    schedule.stopped(60 * MS, CellId(1));
    assert_eq!(told(&mut schedule, 60 * MS), ["3 on 2"]);
}

#[test]
fn a_wide_cell_gets_what_becomes_free() {
    let narrow = Request::of(1);
    let mut schedule = host(
        rules("2-4", 0),
        &[narrow, narrow, narrow, wide(2, narrow), narrow],
    );
    assert_eq!(told(&mut schedule, 0), ["1 on 2", "2 on 3", "3 on 4"]);
    schedule.gone(CellId(2));
    assert!(
        told(&mut schedule, MS).is_empty(),
        "kept for the wide one, nobody behind it takes it"
    );
    schedule.gone(CellId(1));
    assert_eq!(told(&mut schedule, 2 * MS), ["4 on 2-3"]);
    schedule.gone(CellId(3));
    assert_eq!(told(&mut schedule, 3 * MS), ["5 on 4"]);
}

#[test]
fn the_urgent_come_first_and_the_patient_rise() {
    let of = |priority| Request {
        priority,
        ..Request::of(1)
    };
    let mut schedule = host(
        rules("2", 0),
        &[of(Priority::Low), of(Priority::High), of(Priority::Normal)],
    );
    assert_eq!(told(&mut schedule, 0), ["2 on 2"]);
    schedule.gone(CellId(2));
    assert_eq!(told(&mut schedule, 0), ["3 on 2"]);
    schedule.submit(200 * MS, CellId(4), of(Priority::High)).unwrap();
    // The low one has waited for two levels, and was there first.
    assert_eq!(told(&mut schedule, 200 * MS), ["stop 3"]);
    schedule.stopped(200 * MS, CellId(3));
    assert_eq!(told(&mut schedule, 200 * MS), ["1 on 2"]);
}

#[test]
fn exclusive_cells_hold_at_most_half() {
    let mut schedule = host(
        rules("2-5", 99),
        &[exclusive(1, None), exclusive(1, None), exclusive(1, None)],
    );
    assert_eq!(schedule.rules().exclusive, 2);
    assert_eq!(told(&mut schedule, 0), ["1 on 2", "2 on 3"]);
    assert!(told(&mut schedule, 900 * MS).is_empty());
    schedule.gone(CellId(1));
    assert_eq!(told(&mut schedule, 900 * MS), ["3 on 2"]);
}

#[test]
fn the_share_of_exclusive_cells_follows_the_demand() {
    let mut all = vec![Request::of(1); 12];
    all.extend([exclusive(1, None); 4]);
    let mut schedule = host(rules("2-9", 4), &all);
    let said = told(&mut schedule, 0);
    assert_eq!(said.len(), 8);
    // 4 of 16 cores that are asked for: 2 of 8. They came last, and wait for a slice to end.
    assert_eq!(
        told(&mut schedule, 10 * MS).len(),
        6,
        "4 who share, and 2 exclusive ones wait"
    );
    for cell in 1..=6 {
        schedule.stopped(10 * MS, CellId(cell));
    }
    let said = told(&mut schedule, 10 * MS);
    assert_eq!(
        said.iter()
            .filter(|text| ["13 on", "14 on"].iter().any(|cell| text.starts_with(cell)))
            .count(),
        2,
        "{said:?}"
    );
    // Who has waited for long may use the whole bound.
    let said = told(&mut schedule, 100 * MS);
    assert!(
        said.iter().filter(|text| text.starts_with("stop")).count() >= 2,
        "{said:?}"
    );
}

#[test]
fn an_exclusive_cell_gets_the_core_it_wants() {
    let mut schedule = host(
        rules("2-5", 2),
        &[Request::of(1), Request::of(1), exclusive(1, Some(3))],
    );
    assert_eq!(told(&mut schedule, 0), ["1 on 2", "2 on 3"]);
    assert_eq!(told(&mut schedule, 10 * MS), ["stop 2"], "the other goes on");
    schedule.stopped(10 * MS, CellId(2));
    let said = told(&mut schedule, 10 * MS);
    assert!(
        said.contains(&"3 on 3".to_owned()) || said.contains(&"2 on 4".to_owned()),
        "{said:?}"
    );
    assert_eq!(schedule.holder(3), Some(CellId(3)));
}

#[test]
fn what_can_never_run_is_refused() {
    let mut rules = rules("2-5", 2);
    rules.users.insert(
        7,
        Allowance {
            exclusive: Some(1),
            ..Allowance::default()
        },
    );
    let mut schedule = Schedule::new(rules);
    let mut refused = |request| {
        let error = schedule.submit(0, CellId(1), request).unwrap_err();
        assert_eq!(schedule.doing(CellId(1)), None);
        error.to_string()
    };
    assert_eq!(
        refused(wide(3, Request::of(1))),
        "it asks for 3 core(s) at once, and at most 2 of the pool 2-5 can be shared in turns"
    );
    assert!(refused(wide(3, exclusive(1, None))).ends_with("exclusive"));
    assert_eq!(refused(exclusive(1, Some(9))), "core 9 is not in the pool 2-5");
    assert_eq!(
        refused(wide(2, exclusive(7, None))),
        "it asks for 2 exclusive core(s), and user 7 may hold 1"
    );
    schedule.submit(0, CellId(1), Request::of(1)).unwrap();
    assert_eq!(
        schedule.submit(0, CellId(1), Request::of(1)),
        Err(Refusal::Known(CellId(1)))
    );
}

#[test]
fn users_and_hosts_have_so_many_cells_at_once() {
    let mut few = rules("2-9", 0);
    few.cells = NonZeroUsize::new(3).unwrap();
    few.users.insert(
        7,
        Allowance {
            cells: NonZeroUsize::new(1),
            ..Allowance::default()
        },
    );
    let mut schedule = host(
        few,
        &[
            Request::of(7),
            Request::of(7),
            Request::of(8),
            Request::of(8),
            Request::of(8),
        ],
    );
    assert_eq!(told(&mut schedule, 0), ["1 on 2", "3 on 3", "4 on 4"]);
    assert_eq!(schedule.doing(CellId(2)), Some(Doing::Held));
    schedule.gone(CellId(3));
    assert_eq!(
        told(&mut schedule, MS),
        ["5 on 3"],
        "the other user has one already"
    );
    schedule.gone(CellId(1));
    assert_eq!(told(&mut schedule, 2 * MS), ["2 on 2"]);
}

#[test]
fn the_memory_of_all_cells_of_a_user_is_bounded() {
    let mut few = rules("2-9", 0);
    few.users.insert(
        7,
        Allowance {
            memory: Some(100),
            ..Allowance::default()
        },
    );
    let of = |memory| Request {
        memory,
        ..Request::of(7)
    };
    let mut schedule = host(few, &[of(60), of(60), of(30), Request::of(8)]);
    assert_eq!(
        told(&mut schedule, 0),
        ["1 on 2", "4 on 3"],
        "the small one does not pass the one before it"
    );
    schedule.gone(CellId(1));
    assert_eq!(told(&mut schedule, MS), ["2 on 2", "3 on 4"]);
    let refused = schedule.judge(&of(101)).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "it asks for 101 bytes of memory, and all cells of user 7 together may use 100"
    );
}

#[test]
fn a_person_pauses_and_resumes() {
    let mut schedule = host(rules("2", 0), &[Request::of(1), Request::of(1)]);
    assert_eq!(told(&mut schedule, 0), ["1 on 2"]);
    schedule.pause(CellId(1), Pauser::Person);
    assert_eq!(told(&mut schedule, MS), ["stop 1"]);
    schedule.stopped(MS, CellId(1));
    assert_eq!(told(&mut schedule, MS), ["2 on 2"]);
    assert_eq!(schedule.doing(CellId(1)), Some(Doing::Paused));
    assert!(
        told(&mut schedule, 500 * MS).is_empty(),
        "who is paused does not rise"
    );
    schedule.resume(600 * MS, CellId(1), Pauser::Person);
    assert_eq!(schedule.doing(CellId(1)), Some(Doing::Ready));
    // Of the slice that began anew at 500.
    assert_eq!(told(&mut schedule, 600 * MS), ["stop 2"]);
}

#[test]
fn a_reclaimed_core_is_for_those_who_share() {
    let mut schedule = host(rules("2-3", 1), &[exclusive(1, None)]);
    assert_eq!(told(&mut schedule, 0), ["1 on 2"]);
    assert!(!schedule.reclaim(9));
    assert!(schedule.reclaim(2) && schedule.reclaim(3));
    assert_eq!(told(&mut schedule, MS), ["stop 1"]);
    schedule.stopped(MS, CellId(1));
    schedule.submit(MS, CellId(2), Request::of(1)).unwrap();
    assert_eq!(
        told(&mut schedule, MS),
        ["2 on 2"],
        "what can have no core keeps none from others"
    );
    schedule.give_back(3);
    assert_eq!(told(&mut schedule, 2 * MS), ["1 on 3"]);
}

#[test]
fn slices_change_and_differ_by_weight() {
    let slow = Request {
        weight: NonZeroU32::new(250).unwrap(),
        ..Request::of(1)
    };
    let mut schedule = host(rules("2", 0), &[slow, Request::of(1)]);
    assert_eq!(told(&mut schedule, 0), ["1 on 2"]);
    assert_eq!(schedule.next(0), Some(25 * MS));
    schedule.set_slice(NonZeroU64::new(2 * MS).unwrap());
    assert_eq!(told(&mut schedule, 25 * MS), ["stop 1"]);
    schedule.stopped(25 * MS, CellId(1));
    assert_eq!(told(&mut schedule, 25 * MS), ["2 on 2"]);
    assert_eq!(schedule.next(25 * MS), Some(27 * MS));
}
