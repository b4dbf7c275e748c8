//! All chance in the guest, from the job's seed: one stream for each use, so that one use does not shift another.

use chacha20::ChaCha20Rng;
use chacha20::rand_core::{Rng as _, SeedableRng as _};
use hotcell_schema::digest::Digest;

/// The streams.
pub(crate) struct Chance {
    /// `AT_RANDOM`.
    pub(crate) programs: Stream,
    /// getrandom, /dev/random and /dev/urandom.
    pub(crate) guest: Stream,
    /// Random-number instructions.
    pub(crate) processor: Stream,
}

/// One stream.
pub(crate) struct Stream(ChaCha20Rng);

impl Stream {
    fn new(seed: &Digest, usage: &str) -> Self {
        let derived = Digest::of_parts([seed.as_bytes().as_slice(), usage.as_bytes()]);
        Self(ChaCha20Rng::from_seed(*derived.as_bytes()))
    }

    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// How many words were taken from it.
    fn position(&self) -> u128 {
        self.0.get_word_pos()
    }
}

impl Chance {
    pub(crate) fn new(seed: &Digest) -> Self {
        Self {
            programs: Stream::new(seed, "programs"),
            guest: Stream::new(seed, "guest"),
            processor: Stream::new(seed, "processor"),
        }
    }

    /// How far each stream is.
    pub(crate) fn positions(&self) -> [u128; 3] {
        [&self.programs, &self.guest, &self.processor].map(Stream::position)
    }

    /// The streams of this seed, so far on.
    pub(crate) fn at(seed: &Digest, positions: [u128; 3]) -> Self {
        let mut new = Self::new(seed);
        let streams = [&mut new.programs, &mut new.guest, &mut new.processor];
        for (stream, position) in streams.into_iter().zip(positions) {
            stream.0.set_word_pos(position);
        }
        new
    }
}
