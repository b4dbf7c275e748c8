//! What the store costs: 4,000 instances with five small outputs each, and objects of several sizes.
//!
//!     cargo run --release -p hotcell-store --example cost -- /tmp/some-folder
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use hotcell_store::records::key_of;
use hotcell_store::{Record, Store, Stored};

const INSTANCES: usize = 4000;
const OUTPUTS: usize = 5;

fn main() {
    let folder = PathBuf::from(std::env::args().nth(1).expect("a folder"));
    let bytes = |instance: usize, output: usize, length: usize| -> Vec<u8> {
        let line = format!("{{\"instance\": {instance}, \"output\": {output}}}\n");
        line.bytes().cycle().take(length).collect()
    };
    let store = Store::open(&folder).unwrap();
    let mut keys = Vec::new();
    measured("put small objects", INSTANCES * OUTPUTS, || {
        for instance in 0..INSTANCES {
            let outputs: Vec<Stored> = (0..OUTPUTS)
                .map(|output| store.put(&bytes(instance, output, 200 + 100 * output)).unwrap())
                .collect();
            keys.push((instance, outputs));
        }
    });
    let records: Vec<_> = keys
        .iter()
        .map(|(instance, outputs)| {
            let record = Record {
                components: (0..10)
                    .map(|part| (format!("part-{part}"), format!("{instance:064}")))
                    .collect(),
                outputs: outputs
                    .iter()
                    .enumerate()
                    .map(|(port, stored)| (format!("port-{port}"), *stored))
                    .collect(),
                objects: Vec::new(),
            };
            (key_of(&record.components), record)
        })
        .collect();
    measured("put records", INSTANCES, || {
        for (key, record) in &records {
            store.put_record(key, record).unwrap();
        }
    });
    drop(store);
    let store = Store::open(&folder).unwrap();
    measured("records with all their objects, verified", INSTANCES, || {
        for (key, record) in &records {
            assert_eq!(store.whole_record(key).unwrap().as_ref(), Some(record));
        }
    });
    measured("the same again", INSTANCES, || {
        for (key, _) in &records {
            assert!(store.whole_record(key).unwrap().is_some());
        }
    });
    measured("get small objects", INSTANCES * OUTPUTS, || {
        for (_, outputs) in &keys {
            for stored in outputs {
                assert!(store.get(stored).unwrap().is_some());
            }
        }
    });
    measured("put and get memos", INSTANCES, || {
        for (key, _) in &records {
            store.put_memo(key, &bytes(0, 0, 2000)).unwrap();
            assert!(store.memo(key).unwrap().is_some());
        }
    });
    for (length, count) in [(20_000, 500), (300_000, 100), (5_000_000, 10)] {
        let mut stored = Vec::new();
        measured(&format!("put {length} bytes"), count, || {
            for number in 0..count {
                stored.push(store.put(&bytes(number, 9, length)).unwrap());
            }
        });
        measured(&format!("get {length} bytes"), count, || {
            for one in &stored {
                assert!(store.get(one).unwrap().is_some());
            }
        });
    }
}

fn measured(what: &str, count: usize, work: impl FnOnce()) {
    let (began, cpu) = (Instant::now(), cpu());
    work();
    let count = u32::try_from(count).unwrap();
    let (wall, cpu) = (began.elapsed() / count, (self::cpu() - cpu) / count);
    println!("{what:42} {count:6} x {cpu:>10.1?} CPU {wall:>10.1?} wall");
}

/// CPU time of this thread, which says more than the wall clock where others work too.
fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}
