//! Runs a command and counts what the kernel part tells of it: `watch [-q|-j FILE] COMMAND ARGUMENT...`.
#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used)]

use std::io::Write;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use hotcell_monitor::kernel::Kernel;
use hotcell_monitor::record::{self, Record};

fn main() {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let json = (arguments[0] == "-j").then(|| {
        arguments.remove(0);
        std::io::BufWriter::with_capacity(1 << 20, std::fs::File::create(arguments.remove(0)).unwrap())
    });
    let mut json = json;
    let mut kernel = Kernel::load(1 << 24).unwrap();
    kernel.attach().unwrap();
    let own = rustix::process::getpid();
    let own = rustix::process::pidfd_open(own, rustix::process::PidfdFlags::empty()).unwrap();
    kernel.watch_children(own.as_fd(), 0).unwrap();
    let done = AtomicBool::new(false);
    let mut kinds = std::collections::BTreeMap::<String, u64>::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            kernel.read(
                |bytes| {
                    let (head, record) = record::parse(bytes).unwrap();
                    match &mut json {
                        Some(out) => {
                            if let Record::Call(call) = &record {
                                writeln!(
                                    out,
                                    "{{\"time\":{},\"pid\":{},\"number\":{},\"args\":{:?},\"result\":{}}}",
                                    head.time, head.pid, call.number, call.arguments, call.result
                                )
                                .unwrap();
                            }
                        }
                        None => {
                            let name = match &record {
                                Record::Call(call) => format!("call {}", call.number),
                                Record::Began(call) => format!("began {}", call.number),
                                other => format!("{other:?}").split([' ', '{']).next().unwrap().to_owned(),
                            };
                            *kinds.entry(name).or_default() += 1;
                        }
                    }
                },
                |_| !done.load(Ordering::Relaxed),
                |_| std::time::Duration::from_millis(10),
            )
        });
        let child = Command::new(&arguments[0]).args(&arguments[1..]).status();
        println!("{child:?}");
        done.store(true, Ordering::Relaxed);
    });
    println!("{kinds:?}\n{:?}", kernel.counts(0).unwrap());
}
