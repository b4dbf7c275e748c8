//! What runner and warden say to each other: one datagram for each job, one for each answer.
//!
//! Both ends are the same build of the same program; still, a warden is a process, and its answers are read with care. A job
//! may hold secrets: its bytes are wiped on both sides once they are said.

use zeroize::Zeroizing;

use crate::contract::Usage;

/// Longest message: arguments and environment together. Linux itself allows a little more.
pub(super) const MAX_MESSAGE: usize = 128 << 10;
/// Most arguments and variables together.
pub(super) const MAX_WORDS: usize = 8192;
/// Most resource limits of a job.
pub(super) const MAX_LIMITS: usize = 8;
/// Bytes before the words: three counts, a flag, and the limits.
pub(super) const HEADER: usize = 16 + MAX_LIMITS * 24;
/// Descriptors of a job: what takes standard output, what takes the error output, and standard input where it has one.
pub(super) const MAX_DESCRIPTORS: usize = 3;
/// The message that asks to end the job.
pub(super) const END: &[u8] = b"e";

/// A resource limit: which, soft, hard.
pub(super) type Limit = (libc::__rlimit_resource_t, u64, u64);

/// Why a job cannot be told to a warden.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unsayable {
    /// An argument or a variable holds a byte 0.
    Zero,
    /// Too many words, or too long.
    TooLong,
}

/// Writes a job. The first word is the path of the program; `arguments` begin with argument 0.
pub(super) fn job<'a>(
    program: &str,
    arguments: impl Iterator<Item = &'a str> + Clone,
    environment: impl Iterator<Item = (&'a str, &'a str)> + Clone,
    has_stdin: bool,
    limits: &[Limit],
) -> Result<Zeroizing<Vec<u8>>, Unsayable> {
    // All of its room at once: a vector that grows leaves its old bytes behind.
    let arguments_length: usize = arguments.clone().map(|word| word.len() + 1).sum();
    let variables = environment.clone();
    let variables_length: usize = variables.map(|(name, value)| name.len() + value.len() + 2).sum();
    let length = HEADER + program.len() + 1 + arguments_length + variables_length;
    if length > MAX_MESSAGE || limits.len() > MAX_LIMITS {
        return Err(Unsayable::TooLong);
    }
    let mut message = Zeroizing::new(Vec::with_capacity(length));
    message.resize(HEADER, 0);
    let mut word = |parts: &[&str]| {
        for part in parts {
            if part.as_bytes().contains(&0) {
                return Err(Unsayable::Zero);
            }
            message.extend_from_slice(part.as_bytes());
        }
        message.push(0);
        Ok(())
    };
    word(&[program])?;
    let (mut arguments_count, mut variables_count) = (0_u32, 0_u32);
    for argument in arguments {
        word(&[argument])?;
        arguments_count += 1;
    }
    for (name, value) in environment {
        word(&[name, "=", value])?;
        variables_count += 1;
    }
    let words = 1 + arguments_count as usize + variables_count as usize;
    if words > MAX_WORDS {
        return Err(Unsayable::TooLong);
    }
    let counts = [
        arguments_count,
        variables_count,
        u32::from(has_stdin),
        limits.len() as u32,
    ];
    let counts = counts.iter().flat_map(|count| count.to_le_bytes());
    let limits = limits
        .iter()
        .flat_map(|(resource, soft, hard)| [u64::from(*resource), *soft, *hard])
        .flat_map(u64::to_le_bytes);
    for (to, from) in message.iter_mut().zip(counts.chain(limits)) {
        *to = from;
    }
    Ok(message)
}

/// The counts at a message's head: arguments, variables, whether there is a standard input, limits.
pub(super) fn counts(message: &[u8]) -> Option<[u32; 4]> {
    let mut counts = [0; 4];
    for (index, count) in counts.iter_mut().enumerate() {
        let bytes = message.get(index * 4..index * 4 + 4)?;
        *count = u32::from_le_bytes(bytes.try_into().ok()?);
    }
    Some(counts)
}

/// A limit in a message's head.
pub(super) fn limit(message: &[u8], index: usize) -> Option<Limit> {
    let at = 16 + index.checked_mul(24)?;
    let number = |at: usize| {
        let bytes = message.get(at..at + 8)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    };
    Some((
        u32::try_from(number(at)?).ok()?,
        number(at + 8)?,
        number(at + 16)?,
    ))
}

/// Length of an answer.
pub(super) const ANSWER: usize = 32;

/// What a warden answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Answer {
    /// 0, or the step that failed, counted from 1.
    pub(super) step: u32,
    /// The error number of that step.
    pub(super) errno: i32,
    /// As `wait` tells it; at the start: what holds.
    pub(super) status: i32,
    /// Nanoseconds of CPU time of everything that ran.
    pub(super) cpu_ns: u64,
    /// Greatest resident memory of one process in KiB.
    pub(super) peak_kib: u64,
}

impl Answer {
    pub(super) fn to_bytes(self) -> [u8; ANSWER] {
        let mut bytes = [0; ANSWER];
        let (numbers, counters) = bytes.split_at_mut(16);
        let all = [self.step, self.errno as u32, self.status as u32];
        for (to, number) in numbers.chunks_exact_mut(4).zip(all) {
            to.copy_from_slice(&number.to_le_bytes());
        }
        for (to, number) in counters.chunks_exact_mut(8).zip([self.cpu_ns, self.peak_kib]) {
            to.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8; ANSWER]) -> Self {
        let (numbers, counters) = bytes.split_at(16);
        let number = |index: usize| {
            let bytes = numbers.get(index * 4..).and_then(|rest| rest.first_chunk());
            bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
        };
        let counter = |index: usize| {
            let bytes = counters.get(index * 8..).and_then(|rest| rest.first_chunk());
            bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
        };
        Self {
            step: number(0),
            errno: number(1) as i32,
            status: number(2) as i32,
            cpu_ns: counter(0),
            peak_kib: counter(1),
        }
    }

    pub(super) fn usage(&self) -> Usage {
        Usage {
            cpu_s: self.cpu_ns as f64 / 1e9,
            peak_kib: self.peak_kib,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_its_head_and_words() {
        let limits = [(1, 2, 3), (4, u64::MAX, 6)];
        let message = job(
            "/bin/x",
            ["x", ""].into_iter(),
            [("A", "1")].into_iter(),
            true,
            &limits,
        )
        .unwrap();
        assert_eq!(counts(&message), Some([2, 1, 1, 2]));
        assert_eq!(limit(&message, 0), Some((1, 2, 3)));
        assert_eq!(limit(&message, 1), Some((4, u64::MAX, 6)));
        assert_eq!(&message[HEADER..], b"/bin/x\0x\0\0A=1\0");
    }

    #[test]
    fn what_cannot_be_said_is_not_said() {
        let zero = job("x", ["a\0b"].into_iter(), [].into_iter(), false, &[]);
        assert_eq!(zero, Err(Unsayable::Zero));
        let of = |words: &[&str]| job("x", words.iter().copied(), [].into_iter(), false, &[]);
        let long = "a".repeat(MAX_MESSAGE);
        assert_eq!(of(&[&long]), Err(Unsayable::TooLong));
        assert_eq!(of(&vec!["a"; MAX_WORDS]), Err(Unsayable::TooLong));
    }

    #[test]
    fn an_answer_survives_the_way() {
        let answer = Answer {
            step: 3,
            errno: -5,
            status: 0x8b,
            cpu_ns: u64::MAX,
            peak_kib: 77,
        };
        assert_eq!(Answer::from_bytes(&answer.to_bytes()), answer);
        assert_eq!(limit(&[0; 20], 0), None);
        assert_eq!(counts(&[0; 3]), None);
    }
}
