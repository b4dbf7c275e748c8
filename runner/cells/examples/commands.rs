//! What confinement costs: starts `/bin/true` many times, plainly and as a confined command, and prints the CPU time of each,
//! runner and children together.
//!
//! `cargo run --release -p hotcell-cells --example commands [COUNT]`

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Instant;

use hotcell_cells::command::{CommandLimits, CommandSpec, Commands, End, Means};
use hotcell_cells::stop::StopSignal;
use hotcell_cells::supervise::Exit;
use nix::sys::resource::{UsageWho, getrusage};

fn cpu_ms() -> Result<f64, nix::Error> {
    let mut sum = 0.0;
    for who in [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN] {
        let usage = getrusage(who)?;
        for time in [usage.user_time(), usage.system_time()] {
            sum += time.tv_sec() as f64 * 1e3 + time.tv_usec() as f64 / 1e3;
        }
    }
    Ok(sum)
}

fn measure(
    name: &str,
    count: u32,
    each: impl FnOnce(u32) -> Result<(), Box<dyn std::error::Error>>,
) -> Result<(), Box<dyn std::error::Error>> {
    let (cpu, begun) = (cpu_ms()?, Instant::now());
    each(count)?;
    let wall = begun.elapsed().as_secs_f64() * 1e3;
    let (cpu, count) = (cpu_ms()? - cpu, f64::from(count));
    writeln!(
        std::io::stdout(),
        "{name:<14} {:.3} ms CPU, {:.3} ms wall each",
        cpu / count,
        wall / count
    )?;
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let count = match std::env::args().nth(1) {
        Some(count) => count.parse()?,
        None => 2000,
    };
    let plain = |count| {
        for _ in 0..count {
            let status = Command::new("/bin/true")
                .env_clear()
                .stdin(Stdio::null())
                .status()?;
            assert!(status.success());
        }
        Ok(())
    };
    let confined = |limits: CommandLimits, means: Means| {
        move |count| {
            let commands = Commands::with_means(&std::env::temp_dir(), &[], means)?;
            let stop = StopSignal::new()?;
            let arguments = ["true".to_owned()];
            let environment = [("PATH".to_owned(), "/usr/bin:/bin".to_owned())];
            for _ in 0..count {
                let mut seat = commands.seat(&limits)?;
                let spec = CommandSpec {
                    program: "/bin/true",
                    arguments: &arguments,
                    environment: &environment,
                    stdin: None,
                };
                let ending = seat.run(&spec, &stop)?;
                assert!(
                    matches!(ending.end, End::Exit(Exit::Code(0))),
                    "{ending:?}; {}",
                    String::from_utf8_lossy(&seat.error_end(4096))
                );
                commands.give_back(seat)?;
            }
            Ok(())
        }
    };
    let asked = CommandLimits {
        memory: 64 << 20,
        tasks: 8,
        ..CommandLimits::default()
    };
    let all = Means::default();
    for _ in 0..2 {
        measure("plain", count, plain)?;
        measure("confined", count, confined(CommandLimits::default(), all))?;
        // What each layer costs: without it.
        for (name, means) in [
            ("no groups", Means { groups: false, ..all }),
            (
                "no scratch",
                Means {
                    scratch: false,
                    ..all
                },
            ),
            ("no landlock", Means { landlock: 0, ..all }),
            (
                "no namespaces",
                Means {
                    namespaces: false,
                    ..all
                },
            ),
        ] {
            measure(name, count, confined(CommandLimits::default(), means))?;
        }
        measure("asked", count / 10, confined(asked, all))?;
    }
    let commands = Commands::new(&std::env::temp_dir(), &[])?;
    let mut seat = commands.seat(&CommandLimits::default())?;
    let ending = seat.run(
        &CommandSpec {
            program: "/bin/true",
            arguments: &["true".to_owned()],
            environment: &[],
            stdin: None,
        },
        &StopSignal::new()?,
    )?;
    writeln!(std::io::stdout(), "layers: {}", ending.layers.join(" "))?;
    for fallback in ending.fallbacks {
        writeln!(std::io::stdout(), "fallback: {fallback}")?;
    }
    Ok(())
}
