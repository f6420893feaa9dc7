//! Who takes part, and how their processes are started.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The one that the others are compared with.
pub const HOST: &str = "winddown";

/// What starts a thread for each task.
pub const THREADS: &str = "std::thread";

/// A contestant's name, and what it is.
#[derive(Clone, Copy, Debug)]
pub struct Contestant {
    /// As it stands in tables, files and on the command line of its process.
    pub name: &'static str,
    /// What its rounds have to be measured with.
    pub kind: Kind,
}

/// What a contestant is written in decides how large its rounds can be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A Rust pool.
    Pool,
    /// A Rust thread for each task.
    Threads,
    /// A pool of Java's library.
    Java,
    /// A pool of Python's library.
    Python,
}

impl Kind {
    /// Whether this is Rust, and so one of those among which the best is sought.
    pub fn is_rust(self) -> bool {
        matches!(self, Kind::Pool | Kind::Threads)
    }
}

/// All of them, in the order of the tables.
pub const CONTESTANTS: &[Contestant] = &[
    Contestant { name: HOST, kind: Kind::Pool },
    Contestant { name: "rayon", kind: Kind::Pool },
    Contestant { name: "threadpool", kind: Kind::Pool },
    Contestant { name: "tokio", kind: Kind::Pool },
    Contestant { name: "rusty_pool", kind: Kind::Pool },
    Contestant { name: "blocking", kind: Kind::Pool },
    Contestant { name: "futures", kind: Kind::Pool },
    Contestant { name: THREADS, kind: Kind::Threads },
    Contestant { name: "Java fixed", kind: Kind::Java },
    Contestant { name: "Java ForkJoin", kind: Kind::Java },
    Contestant { name: "Python", kind: Kind::Python },
];

/// Where the programs are that play the peers.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The Rust peers.
    pub peer: PathBuf,
    /// The Rust peers, with an allocator that counts.
    pub peer_bytes: PathBuf,
    /// A directory for what is compiled on the way.
    pub scratch: PathBuf,
}

/// The contestants that this machine can run.
pub(crate) struct Field {
    programs: Programs,
    java: Option<String>,
    python: Option<String>,
}

impl Field {
    /// Looks for Java and Python, and compiles the Java peers.
    pub(crate) fn new(programs: Programs) -> Field {
        let foreign = foreign();
        let mut javac = Command::new("javac");
        javac.arg("-d").arg(&programs.scratch).arg(foreign.join("JavaPeer.java"));
        let has_java = javac.stderr(Stdio::inherit()).status().is_ok_and(|status| status.success());
        let java = has_java.then(|| first_line(Command::new("java").arg("--version"))).flatten();
        let python = first_line(Command::new("python3").arg("--version"));
        Field { programs, java, python }
    }

    pub(crate) fn contestants(&self) -> impl Iterator<Item = Contestant> + '_ {
        CONTESTANTS.iter().copied().filter(|contestant| match contestant.kind {
            Kind::Java => self.java.is_some(),
            Kind::Python => self.python.is_some(),
            Kind::Pool | Kind::Threads => true,
        })
    }

    /// What starts a contestant's process.
    pub(crate) fn command(&self, contestant: Contestant, width: usize, counts_bytes: bool) -> Command {
        let mut command = match contestant.kind {
            Kind::Pool | Kind::Threads if counts_bytes => Command::new(&self.programs.peer_bytes),
            Kind::Pool | Kind::Threads => Command::new(&self.programs.peer),
            Kind::Java => {
                let mut java = Command::new("java");
                java.arg("-cp").arg(&self.programs.scratch).arg("JavaPeer");
                java
            }
            Kind::Python => {
                let mut python = Command::new("python3");
                python.arg(foreign().join("python_peer.py"));
                python
            }
        };
        // The only way to set the width of `blocking`, and why every peer has a process of its own for every width.
        command.arg(contestant.name).arg(width.to_string()).env("BLOCKING_MAX_THREADS", width.to_string());
        command
    }

    /// The versions that take part, by contestant.
    pub(crate) fn versions(&self) -> BTreeMap<String, String> {
        let lock = fs::read_to_string(package().join("../../Cargo.lock")).unwrap_or_default();
        let version = |contestant: Contestant| match contestant.kind {
            Kind::Pool => locked(&lock, contestant.name),
            Kind::Threads => None, // It is rustc's.
            Kind::Java => self.java.clone(),
            Kind::Python => self.python.clone(),
        };
        self.contestants()
            .filter_map(|contestant| Some((contestant.name.to_owned(), version(contestant)?)))
            .collect()
    }
}

fn foreign() -> PathBuf {
    package().join("foreign")
}

/// Where this package is.
pub fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The first line that a program prints, if it is there.
pub(crate) fn first_line(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    String::from_utf8_lossy(&output.stdout).lines().next().map(|line| line.trim().to_owned())
}

/// The version of a package in the text of a lock file.
fn locked(lock: &str, package: &str) -> Option<String> {
    let entry = lock.split("[[package]]").find(|entry| entry.contains(&format!("name = \"{package}\"\n")))?;
    let (_, rest) = entry.split_once("version = \"")?;
    rest.split('"').next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::locked;

    #[test]
    fn the_lock_file_tells_the_version_of_exactly_the_package_asked_for() {
        let lock = "[[package]]\nname = \"rayon-core\"\nversion = \"1.13.0\"\n\n\
                    [[package]]\nname = \"rayon\"\nversion = \"1.12.0\"\n";
        assert_eq!(locked(lock, "rayon").as_deref(), Some("1.12.0"));
        assert_eq!(locked(lock, "ray"), None);
    }
}
