//! What the runner asks of raw code while it runs changes nothing of what it does.

use std::{cell::RefCell, collections::VecDeque, fs::File, os::unix::fs::FileExt, rc::Rc};

use hotcell_cells::{
    cell_side::{CellError, Control},
    contract::Operation,
    protocol::{FromCell, ToCell},
};
use hotcell_kernel::Bytes;
use hotcell_schema::{
    event::Event,
    guest::Address,
    job::{MemoryOut, PayloadJob, PayloadResult},
    outcome::Outcome,
};

use super::{CODE, DATA, code, job, memory_file};
use crate::{
    context::{Area, Beginning},
    operate::{Operator, Outlet},
    sources::Sources,
};

/// A runner that pauses the job, asks for this one after the other, and then lets it go on.
#[derive(Clone)]
struct Runner {
    asks: Rc<RefCell<VecDeque<ToCell>>>,
    answers: Rc<RefCell<Vec<FromCell>>>,
}

impl Runner {
    fn new(asks: impl IntoIterator<Item = ToCell>) -> Self {
        Self {
            asks: Rc::new(RefCell::new(asks.into_iter().collect())),
            answers: Rc::default(),
        }
    }
}

impl Outlet for Runner {
    fn events(&mut self, events: Vec<Event>) -> Result<(), CellError> {
        assert_eq!(events, [], "raw code has no events");
        Ok(())
    }

    fn control(&mut self) -> Result<Control, CellError> {
        let asked = self.asks.borrow_mut().pop_front();
        Ok(asked.map_or(Control::GoOn, Control::Asked))
    }

    fn is_paused(&self) -> bool {
        !self.asks.borrow().is_empty() || self.answers.borrow().is_empty()
    }

    fn answer(&mut self, answer: &FromCell) -> Result<(), CellError> {
        self.answers.borrow_mut().push(answer.clone());
        Ok(())
    }
}

fn from(context: &File, length: u64) -> Beginning {
    Beginning::Context(context.try_clone().expect("another descriptor"), length)
}

fn run(job: &PayloadJob, code: &[u8], runner: &Runner, area: &File, from: Beginning) -> PayloadResult {
    let area = Area::new(area.try_clone().expect("another descriptor"), 8 << 20);
    let operator = Operator::new(Box::new(runner.clone()), Some(area));
    crate::payload::run(operator, job, code, Sources::default(), from).expect("the job begins")
}

const ARCHS: [(&str, &str, &str); 12] = [
    ("x86", "x86", "ebx"),
    ("x86_64", "x86_64", "rbx"),
    ("arm", "arm", "r1"),
    ("armeb", "armeb", "r1"),
    ("arm", "thumb", "r1"),
    ("aarch64", "aarch64", "x1"),
    ("mips", "mips", "a1"),
    ("mipsel", "mipsel", "a1"),
    ("mips64", "mips64", "a1"),
    ("mips64el", "mips64el", "a1"),
    ("ppc", "ppc", "r4"),
    ("riscv64", "riscv64", "a1"),
];

#[test]
fn raw_code_that_is_stepped_saved_and_moved_does_the_same() {
    for (arch, name, memory) in ARCHS {
        let bytes = code(&format!("sum.{name}"));
        let job = job(arch, &bytes, &[(memory, DATA)], |job| {
            job.trace = 1000;
            job.address = Address(CODE | u64::from(name == "thumb"));
        });
        let area = memory_file(8 << 20);
        let calm = run(&job, &bytes, &Runner::new([]), &area, Beginning::Program);

        let mut asks = vec![ToCell::RunOneInstruction; 50];
        asks.extend([ToCell::SaveContext, ToCell::RunOneSlice]);
        let runner = Runner::new(asks);
        assert_eq!(
            run(&job, &bytes, &runner, &area, Beginning::Program),
            calm,
            "{name}: stepped and saved"
        );
        let answers = runner.answers.borrow();
        let operation = Operation::RunOneInstruction;
        let stepped = answers
            .iter()
            .filter(|answer| **answer == FromCell::Did { operation });
        assert_eq!(stepped.count(), 50, "{name}: {answers:?}");
        let Some((at, length)) = answers.iter().find_map(|answer| match answer {
            FromCell::Saved {
                start,
                length,
                events: 0,
            } => Some((*start, *length)),
            _ => None,
        }) else {
            panic!("{name}: nothing was saved: {answers:?}");
        };
        assert_eq!(at, 0);

        // In another instance, as in another process.
        let elsewhere = memory_file(8 << 20);
        let moved = run(&job, &bytes, &Runner::new([]), &elsewhere, from(&area, length));
        assert_eq!(moved, calm, "{name}: moved");
    }
}

#[test]
fn raw_code_goes_back_to_what_was_kept() {
    let bytes = code("sum.x86_64");
    let job = job("x86_64", &bytes, &[("rbx", DATA)], |job| job.trace = 1000);
    let area = memory_file(8 << 20);
    let calm = run(&job, &bytes, &Runner::new([]), &area, Beginning::Program);
    let steps = vec![ToCell::RunOneInstruction; 20];
    let mut asks = vec![ToCell::LoadContext, ToCell::SaveContext];
    asks.extend(steps.clone());
    asks.push(ToCell::LoadContext);
    asks.extend(steps);
    let runner = Runner::new(asks);
    assert_eq!(run(&job, &bytes, &runner, &area, Beginning::Program), calm);
    let answers = runner.answers.borrow();
    let count = |wanted: &FromCell| answers.iter().filter(|answer| *answer == wanted).count();
    let operation = Operation::RunOneInstruction;
    assert_eq!(count(&FromCell::Did { operation }), 40);
    let operation = Operation::LoadContext;
    assert_eq!(count(&FromCell::Did { operation }), 1);
    assert!(matches!(
        answers.first(),
        Some(FromCell::Refused {
            operation: Operation::LoadContext,
            ..
        })
    ));
}

#[test]
fn a_context_that_is_not_this_jobs_is_refused() {
    let bytes = code("sum.x86_64");
    let job = job("x86_64", &bytes, &[("rbx", DATA)], |job| job.trace = 4);
    let area = memory_file(8 << 20);
    let mut wider = job.clone();
    wider.trace = 1000;
    let runner = Runner::new([vec![ToCell::RunOneInstruction; 50], vec![ToCell::SaveContext]].concat());
    run(&wider, &bytes, &runner, &area, Beginning::Program);
    let length = runner.answers.borrow().iter().find_map(|answer| match answer {
        FromCell::Saved { length, .. } => Some(*length),
        _ => None,
    });
    let length = length.expect("saved");
    let operator = || Operator::new(Box::new(Runner::new([])), None);
    let error = crate::payload::run(operator(), &job, &bytes, Sources::default(), from(&area, length));
    let error = error.expect_err("refused").to_string();
    assert!(error.contains("other instructions traced"), "{error}");
    let error = crate::payload::run(
        operator(),
        &job,
        &bytes,
        Sources::default(),
        from(&area, length - 1),
    );
    assert!(error.is_err());
}

/// A saved context holds what the run changed, not what came with the job; both are mapped where another goes on.
#[test]
fn a_context_holds_only_what_changed() {
    const PAGES: u64 = 64;
    // mov [rbx], ecx; mov [rdx], ecx; jmp on: two pages have changed when it is saved, fewer than 16 pages apart.
    let mut bytes = code("sum.x86_64");
    bytes.splice(0..0, [0x89, 0x0b, 0x89, 0x0a, 0xeb, 0x00]);
    let end = CODE + bytes.len() as u64;
    bytes.extend((bytes.len() as u64..PAGES * 0x1000).map(|at| (at >> 12 ^ at) as u8 | 1));
    let (stored, near) = (CODE + 40 * 0x1000, CODE + 44 * 0x1000);
    let job = job("x86_64", &bytes, &[("rbx", stored), ("rdx", near)], |job| {
        job.until = Some(Address(end));
        job.want_memory = vec![MemoryOut {
            address: Address(CODE),
            length: PAGES * 0x1000,
        }];
    });
    let file = memory_file(0);
    file.write_all_at(&bytes, 0).expect("written");
    let bytes = Bytes::of(bytes);
    let run = |runner: &Runner, area: &File, from: Beginning| {
        let mut sources = Sources::default();
        sources
            .add(0, &bytes, || file.try_clone())
            .expect("another descriptor");
        let area = Area::new(area.try_clone().expect("another descriptor"), 8 << 20);
        let operator = Operator::new(Box::new(runner.clone()), Some(area));
        crate::payload::run(operator, &job, &bytes, sources, from)
    };
    let (area, elsewhere) = (memory_file(8 << 20), memory_file(8 << 20));
    let runner = Runner::new([vec![ToCell::RunOneInstruction; 50], vec![ToCell::SaveContext]].concat());
    let calm = run(&runner, &area, Beginning::Program).expect("the job begins");
    assert_eq!(calm.outcome, Outcome::Completed);
    let left = &calm.memory[0].bytes.0;
    assert_eq!(
        left.get(40 << 12..(40 << 12) + 4),
        Some(&5050u32.to_le_bytes()[..])
    );
    let same = left.iter().zip(bytes.iter()).filter(|(now, then)| now == then);
    assert!(
        same.count() as u64 >= PAGES * 0x1000 - 8,
        "only eight bytes changed"
    );
    let answers = runner.answers.borrow();
    let Some(FromCell::Saved { length, .. }) = answers.last() else {
        panic!("nothing was saved: {answers:?}");
    };
    assert!(*length <= 5 * 0x1000, "{length} bytes for two pages");
    let moved = run(&Runner::new([]), &elsewhere, from(&area, *length)).expect("it goes on");
    assert!(moved == calm, "moved");

    // Where the job has no such blob, the context is refused.
    let operator = Operator::new(Box::new(Runner::new([])), None);
    let without = crate::payload::run(operator, &job, &bytes, Sources::default(), from(&area, *length));
    let error = without.expect_err("refused").to_string();
    assert!(error.contains("a blob that the job does not have"), "{error}");
}

#[test]
fn core_files_for_which_there_is_no_room_are_refused() {
    let bytes = code("sum.x86_64");
    let job = job("x86_64", &bytes, &[("rbx", DATA)], |job| job.trace = 4);
    let operation = Operation::Dump;
    let dumped = |area: Option<u64>| {
        let runner = Runner::new([ToCell::Dump]);
        let area = area.map(|length| Area::new(memory_file(length), length));
        let operator = Operator::new(Box::new(runner.clone()), area);
        let result = crate::payload::run(operator, &job, &bytes, Sources::default(), Beginning::Program);
        let answer = runner.answers.borrow_mut().remove(0);
        (result.expect("the job begins"), answer)
    };
    let (calm, answer) = dumped(None);
    let reason = "the runner gave no room for core files".to_owned();
    assert_eq!(answer, FromCell::Refused { operation, reason });
    let (result, answer) = dumped(Some(8192));
    assert_eq!(result, calm);
    let FromCell::Refused { reason, .. } = answer else {
        panic!("{answer:?}");
    };
    assert!(reason.contains("there is room for 4096"), "{reason}");
    assert!(reason.contains("limits.memory"), "{reason}");
    let (result, answer) = dumped(Some(1 << 20));
    assert_eq!(result, calm);
    let FromCell::Dumped {
        start: 0 | 0x8_0000,
        cores,
    } = answer
    else {
        panic!("{answer:?}");
    };
    assert_eq!(cores[0].name.as_str(), "1-code.core");
}
