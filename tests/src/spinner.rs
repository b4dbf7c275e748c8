//! Other work on a host.

use std::process::{Child, Command, Stdio};

/// A process that computes until it is dropped.
#[derive(Debug)]
pub struct Spinner(Child);

impl Spinner {
    /// Starts one: `shell` is a shell and what it needs before `-c`.
    pub fn start(shell: &[&str]) -> Self {
        let (shell, first) = shell.split_first().unwrap();
        let mut command = Command::new(shell);
        command.args(first).args(["-c", "while :; do :; done"]);
        Self(command.stdin(Stdio::null()).spawn().unwrap())
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
