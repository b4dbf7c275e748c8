//! What a core lock costs when nobody else wants it: takes and gives back one core, and four, many times.
//!
//! `cargo run --release -p hotcell-cells --example locks`

use std::io::Write;
use std::time::Instant;

use hotcell_cells::cores::locks::{CoreIndex, Holder, LockTable, LockView};

const TIMES: u32 = 1_000_000;

fn measure(
    what: &str,
    mut each: impl FnMut() -> Result<(), Box<dyn std::error::Error>>,
) -> Result<(), Box<dyn std::error::Error>> {
    // The best of a few: what others do on this host only adds.
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let start = Instant::now();
        for _ in 0..TIMES {
            each()?;
        }
        best = best.min(start.elapsed().as_secs_f64() * 1e9 / f64::from(TIMES));
    }
    writeln!(std::io::stdout(), "{what}: {best:.1} ns (wanted: under 200)")?;
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let holder = Holder::new(1, 1).ok_or("no process")?;
    let table = LockTable::new(8, holder)?;
    let view = LockView::open(&table)?;
    let cores: Vec<_> = (0..4).map(CoreIndex::new).collect();
    for count in [1, 4] {
        let wanted = cores.get(..count).ok_or("no cores")?;
        measure(&format!("acquire and release {count}"), || {
            let grant = table.acquire(wanted, holder)?;
            std::hint::black_box(table.release(grant));
            Ok(())
        })?;
    }
    let _held = table.acquire(&cores, holder)?;
    measure("query a core that is held", || {
        std::hint::black_box(view.query(CoreIndex::new(2)));
        Ok(())
    })
}
