//! Guests that meet a limit: it is an outcome, and what there was before is kept.
#![allow(clippy::unwrap_used)]

mod bench;

use hotcell_schema::outcome::Outcome;

/// Two orders of bytes, two sizes of words.
const TARGETS: [&str; 4] = ["x86_64", "aarch64", "armhf", "mipsel"];

#[test]
fn who_never_ends_is_ended_by_the_limit_of_wall_time() {
    // By itself; with a child that goes on too; with no output that its end could be seen by.
    let ran = ["spins", "twice", "closed"].map(|how| {
        bench::all_of("endless", &TARGETS, &[how], |bench| {
            bench.limits.wall_ms = 3_000;
        })
    });
    for (guest, ran) in ran.iter().flatten() {
        assert_eq!(ran.outcome(), Ok(Outcome::wall_time()), "{guest:?}");
        assert_eq!(ran.stdout(), "begun\n", "{guest:?}");
        assert_eq!(ran.files()["/tmp/made"], b"before", "{guest:?}");
    }
}
