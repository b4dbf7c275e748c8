//! Calls with any arguments, on every architecture: no panic, no hang, and mappings and machine stay in step.

use hotcell_schema::arch::ArchProfile;
use hotcell_schema::job::GuestLimits;
use proptest::prelude::*;

use super::{Bench, profiles, tiny_elf};
use crate::machine::{Flow, SpaceId, Step, Trap};
use crate::table::table;

/// Arguments that get past the first checks: small numbers, addresses of the program, ends of ranges.
fn argument() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0u64..8,
        2 => 0u64..0x2000,
        4 => (0u64..0x2000).prop_map(|offset| 0x40_0000 + offset),
        1 => Just(0xffff_ff9c),
        1 => Just(u64::MAX),
        1 => any::<u64>(),
        1 => (0u32..64).prop_map(|bit| 1 << bit),
        1 => (0u64..64).prop_map(|page| page << 12),
    ]
}

#[derive(Debug, Clone)]
enum Act {
    Call(prop::sample::Index, [u64; 6]),
    Number(u64, [u64; 6]),
    Trap(u64),
}

fn act() -> impl Strategy<Value = Act> {
    let arguments = || prop::array::uniform6(argument());
    prop_oneof![
        30 => (any::<prop::sample::Index>(), arguments()).prop_map(|(row, args)| Act::Call(row, args)),
        2 => (0u64..6000, arguments()).prop_map(|(number, args)| Act::Number(number, args)),
        1 => any::<u64>().prop_map(Act::Trap),
    ]
}

/// The task that is next does one thing.
fn perform(bench: &mut Bench, profile: &ArchProfile, space: SpaceId, act: &Act) {
    let family = bench.kernel.abi.family;
    let machine = bench.machines.machine(space);
    match act {
        Act::Call(row, args) => {
            let rows = table().rows();
            let row = &rows[row.index(rows.len())];
            // The calls that only end the run teach nothing.
            let ends = [
                "exit",
                "exit_group",
                "pause",
                "rt_sigsuspend",
                "rt_sigreturn",
                "sigreturn",
            ];
            if let Some(number) = row.number(family).filter(|_| !ends.contains(&row.name)) {
                machine.set_call(profile, number, args);
                bench.kernel.syscall(machine);
            }
        }
        Act::Number(number, args) => {
            machine.set_call(profile, *number, args);
            bench.kernel.syscall(machine);
        }
        Act::Trap(address) => {
            let kind = hotcell_schema::outcome::FaultKind::ReadUnmapped;
            let flow = bench.kernel.trap(
                machine,
                Trap {
                    kind,
                    address: Some(*address),
                },
            );
            assert_eq!(flow, Flow::Stop);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_kernel_that_is_read_from_bytes_again_and_again_goes_on_the_same(
        architecture in any::<prop::sample::Index>(),
        acts in prop::collection::vec(act(), 1..40),
        change in any::<(prop::sample::Index, u8)>(),
    ) {
        let profiles = profiles();
        let profile = &profiles[architecture.index(profiles.len())];
        let program = tiny_elf(profile);
        let limits = GuestLimits { memory: 64 << 20, tasks: 8, file_bytes: 1 << 20, ..GuestLimits::default() };
        let run = |saving: bool| {
            let mut bench = Bench::start(profile, &program, limits.clone()).expect("the program can be loaded");
            let mut last = Vec::new();
            for act in &acts {
                if saving {
                    last = bench.kernel.save().expect("it can be saved");
                    bench.go_on_from(&last).expect("it can be read");
                    assert_eq!(bench.kernel.save().expect("it can be saved"), last);
                }
                let Step::Run { space, .. } = bench.next() else { break };
                perform(&mut bench, profile, space, act);
            }
            let events = bench.events.clone();
            (bench.finish().result, events.take(), last)
        };
        let (straight, saved) = (run(false), run(true));
        prop_assert_eq!(&straight.1, &saved.1);
        prop_assert_eq!(straight.0, saved.0);

        // Any other bytes are a state or an error.
        let mut bytes = saved.2;
        let at = change.0.index(bytes.len());
        bytes[at] = bytes[at].wrapping_add(change.1);
        let mut bench = Bench::start(profile, &program, limits.clone()).expect("the program can be loaded");
        let _ = bench.go_on_from(&bytes);
        bytes.truncate(at);
        prop_assert!(bench.go_on_from(&bytes).is_err());
    }

    #[test]
    fn no_call_breaks_the_kernel(
        architecture in any::<prop::sample::Index>(),
        data in prop::collection::vec(any::<u8>(), 512),
        acts in prop::collection::vec(act(), 1..60),
    ) {
        let profiles = profiles();
        let profile = &profiles[architecture.index(profiles.len())];
        let mut program = tiny_elf(profile);
        program[0x400..0x600].copy_from_slice(&data);
        program[0x600..0x608].copy_from_slice(b"/tmp/a/.");
        let limits = GuestLimits { memory: 64 << 20, tasks: 8, file_bytes: 1 << 20, ..GuestLimits::default() };
        let mut bench = Bench::start(profile, &program, limits).expect("the program can be loaded");
        for act in acts {
            let Step::Run { space, .. } = bench.next() else { break };
            perform(&mut bench, profile, space, &act);
        }
        let events = bench.events.clone();
        let finished = bench.finish();
        prop_assert_eq!(finished.result.events, events.borrow().len() as u64);
        for (index, event) in events.borrow().iter().enumerate() {
            prop_assert_eq!(event.seq, index as u64);
        }
    }
}
