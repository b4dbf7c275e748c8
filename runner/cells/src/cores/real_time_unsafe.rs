//! The scheduling policy of one thread.
#![allow(unsafe_code)]

use std::io;
use std::os::unix::thread::JoinHandleExt;
use std::thread::JoinHandle;

/// Lets a thread of this process run as soon as it can, before all that is not real-time (`SCHED_FIFO`, sched(7)), at the least
/// of its priorities: the kernel's own threads go first. Threads and processes that it makes do not inherit it.
///
/// # Errors
///
/// If this process may not (`CAP_SYS_NICE`), or its control group has no time for it.
pub(super) fn make_real_time<T>(thread: &JoinHandle<T>) -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 1 };
    // SAFETY: the handle was not joined, so that the thread's id is valid; the parameters live until the call returns.
    let error = unsafe {
        libc::pthread_setschedparam(
            thread.as_pthread_t(),
            libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK,
            &raw const parameters,
        )
    };
    match error {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn a_thread_is_real_time_or_the_kernel_says_why_not() {
        let (end, ended) = channel::<()>();
        let (tell, told) = channel();
        let thread = std::thread::spawn(move || {
            let _ = tell.send(std::fs::read_link("/proc/thread-self").unwrap());
            let _ = ended.recv();
        });
        let path = std::path::Path::new("/proc")
            .join(told.recv().unwrap())
            .join("stat");
        // proc(5): field 41 is the policy; the first after the name is the third.
        let policy = || {
            let text = std::fs::read_to_string(&path).unwrap();
            text.rsplit_once(") ")
                .unwrap()
                .1
                .split(' ')
                .nth(38)
                .unwrap()
                .to_owned()
        };
        assert_eq!(policy(), "0");
        match make_real_time(&thread) {
            Ok(()) => assert_eq!(policy(), libc::SCHED_FIFO.to_string()),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::EPERM));
                assert_eq!(policy(), "0");
            }
        }
        drop(end);
        thread.join().unwrap();
    }
}
