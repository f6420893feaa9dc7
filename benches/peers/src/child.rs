//! A peer's process, as the bench sees it.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{self, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

/// How long a round may take. A peer that needs longer hangs, and is left out from there on.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct Child {
    process: process::Child,
    requests: ChildStdin,
    answers: Receiver<io::Result<String>>,
}

impl Child {
    pub(crate) fn start(mut command: Command) -> io::Result<Child> {
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let requests = process.stdin.take().expect("the input is a pipe");
        let output = process.stdout.take().expect("the output is a pipe");
        let (sender, answers) = mpsc::channel();
        // A read cannot be given up after some time, so it has a thread of its own, which ends with the process.
        thread::spawn(move || BufReader::new(output).lines().try_for_each(|line| sender.send(line)));
        Ok(Child { process, requests, answers })
    }

    /// The figures of one round, or `None` where the peer does not have the scene.
    pub(crate) fn ask(&mut self, scene: &str, number: u64) -> io::Result<Option<Vec<f64>>> {
        writeln!(self.requests, "{scene} {number}")?;
        let answer = self.answers.recv_timeout(PATIENCE).map_err(io::Error::other)??;
        if answer == "-" {
            return Ok(None);
        }
        let figures = answer.split(' ').map(str::parse).collect::<Result<_, _>>();
        figures.map(Some).map_err(|error| io::Error::other(format!("{error}: {answer}")))
    }
}

impl Drop for Child {
    /// Nothing in it is worth waiting for, and it may hang. That it has ended already is no error.
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
