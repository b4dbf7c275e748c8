//! The project's guests under qemu-user, in cells: they do what they say.

mod bench;

use bench::Bench;

/// Those that ask for what QEMU's user mode has not, or what a cell refuses.
const NOT_UNDER_QEMU: [&str; 7] = [
    // ptrace of other processes.
    "injects",
    // Code in shared memory that another process wrote.
    "shared-code",
    // CPUID is QEMU's own, `/proc/cpuinfo` the persona's.
    "cpuid",
    // Code that was overwritten at another address; a second place of memory.
    "packed-views-again",
    // 32-bit calls of a 64-bit program.
    "compat",
    // What a processor of x86 refuses, as QEMU does not tell it.
    "refused",
    // A command line is QEMU's own.
    "proc",
];

/// Those that a cell refuses what they ask for, or that are told of the host where they ask for their persona.
const NOT_NATIVE: [&str; 3] = ["injects", "cpuid", "compat"];

#[test]
fn guests_do_what_they_say_under_qemu() {
    all(false, &NOT_UNDER_QEMU);
}

#[test]
fn guests_do_what_they_say_on_the_hosts_own_processor() {
    all(true, &NOT_NATIVE);
}

fn all(native: bool, except: &[&str]) {
    let Some(guests) = bench::guests() else { return };
    let mut wrong = Vec::new();
    let mut tried = 0;
    for guest in &guests {
        if except.contains(&guest.name.as_str()) || native && guest.arch != std::env::consts::ARCH {
            continue;
        }
        let mut bench = Bench::of(guest);
        bench.job.native = native;
        let Some(ran) = bench.run() else { return };
        tried += 1;
        let (outcome, stdout) = (ran.outcome(), ran.stdout());
        if outcome.as_ref() != Ok(&guest.outcome) || guest.stdout.as_ref().is_some_and(|text| *text != stdout)
        {
            wrong.push(format!(
                "{}/{}: {outcome:?}, not {:?}; {stdout}",
                guest.target, guest.name, guest.outcome
            ));
        }
    }
    assert!(tried > 0);
    assert!(
        wrong.is_empty(),
        "{} of {tried}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
