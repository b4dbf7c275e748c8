//! Any calls with any arguments, over a live emulated kernel of any architecture: no panic, no hang, and a stream of events
//! without gaps. Tasks are chosen by the kernel; what they do comes from the bytes.
#![no_main]

use hotcell_kernel::fake::{FakeMachines, tiny_elf};
use hotcell_kernel::machine::{Machine as _, Step, Trap};
use hotcell_kernel::{Bytes, Kernel};
use hotcell_schema::event::Event;
use hotcell_schema::job::{Blob, GuestLimits, Watch};
use hotcell_schema::outcome::FaultKind;
use libfuzzer_sys::fuzz_target;

#[path = "shared/job.rs"]
mod job;

/// Where the program's data stand in its file, and how many of them there are.
const DATA: usize = 0x400;
const LENGTH: usize = 0x400;
/// Steps of one run.
const STEPS: usize = 200;

/// Takes bytes from the front.
fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}

/// An argument: mostly what gets past the first checks.
fn argument(bytes: &mut &[u8]) -> Option<u64> {
    let [kind] = take(bytes)?;
    Some(match kind {
        0..64 => u64::from(kind) / 4,
        64..160 => 0x40_0000 + DATA as u64 + u64::from(u16::from_le_bytes(take(bytes)?)) % 0x1800,
        160..180 => u64::from(u16::from_le_bytes(take(bytes)?)),
        180..196 => 1 << (kind - 180) << (take::<1>(bytes)?[0] % 48),
        196..212 => u64::from(kind - 196) << 12,
        212 => u64::MAX,
        213 => 0xffff_ff9c,
        214..230 => u64::MAX - u64::from(kind - 214),
        // Numbers of processes.
        230..240 => 1000 + u64::from(kind - 230),
        _ => u64::from_le_bytes(take(bytes)?),
    })
}

fuzz_target!(|bytes: &[u8]| {
    let mut bytes = bytes;
    let Some([architecture, options, shift]) = take(&mut bytes) else {
        return;
    };
    let profile = job::profile(architecture);
    let mut program = tiny_elf(profile);
    let length = bytes.len().min(LENGTH).min(usize::from(shift) * 4);
    let (data, mut bytes) = bytes.split_at(length);
    program[DATA..DATA + length].copy_from_slice(data);
    let mut job = job::of(profile, program.len() as u64);
    job.limits = GuestLimits {
        memory: 64 << 20,
        tasks: 8,
        file_bytes: 1 << 20,
        virtual_time: 100_000_000_000,
        ..GuestLimits::default()
    };
    job.watch = Watch {
        coverage: options & 1 != 0,
        library_calls: options & 2 != 0,
        dump: if options & 4 != 0 {
            vec!["end".into(), "read".into()]
        } else {
            Vec::new()
        },
    };
    if options & 8 != 0 {
        job.persona.uid = 1000;
    }
    if options & 16 != 0 {
        job.internet = Some(job::internet());
    }
    let given = Bytes::from(program.as_slice());
    let seen = std::rc::Rc::new(std::cell::Cell::new(0));
    let count = std::rc::Rc::clone(&seen);
    let sink = move |event: Event| {
        assert_eq!(event.seq, count.get(), "a gap in the stream");
        count.set(event.seq + 1);
    };
    let blobs = |blob: Blob| (blob.index == 0).then(|| given.clone());
    let Ok(mut kernel) = Kernel::new(&job, &blobs, Box::new(sink)) else {
        return;
    };
    let mut machines = FakeMachines::new(profile);
    for _ in 0..STEPS {
        let Ok(Step::Run { space, blocks }) = kernel.next(&mut machines) else {
            break;
        };
        if blocks.is_some() {
            kernel.counted(50, 200);
        }
        let machine = machines.machine(space);
        let Some([low, high]) = take(&mut bytes) else {
            break;
        };
        let number = u16::from_le_bytes([low, high]);
        if number >= 0xff00 {
            let at = 0x40_0000 + u64::from(low) * 16;
            match number & 3 {
                0 => drop(kernel.written_then_executed(machine, at, 8)),
                1 => kernel.translated(at, 8),
                2 => drop(kernel.entered(machine, at)),
                _ => {
                    let kind = FaultKind::ReadUnmapped;
                    let address = Some(at);
                    kernel.trap(machine, Trap { kind, address });
                }
            }
            continue;
        }
        let number = job::call_number(profile, number);
        let mut arguments = [0; 6];
        for value in &mut arguments {
            match argument(&mut bytes) {
                Some(given) => *value = given,
                None => break,
            }
        }
        machine.set_call(profile, number, &arguments);
        kernel.syscall(machine);
        machine.program_counter();
    }
    let result = kernel.finish().result;
    assert_eq!(result.events, seen.get());
});
