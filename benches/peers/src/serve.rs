//! A peer in a process of its own: it plays one round for each line that it reads.
//!
//! `SCENE NUMBER` is answered by the figures of that round on one line, and by a dash where the peer does not have the
//! scene. The programs in `foreign/` speak the same way.

use crate::peer::{Drains, Ends, Handles, Peer};
use crate::pools::{BareThreads, Blocking, Futures, Rayon, RustyPool, Threadpool, Tokio, Winddown};
use crate::scenes::{backlog, fan_out, life, mixed, round_trip, spawn_join, stream};
use std::collections::HashMap;
use std::io::{self, Write};
use std::process::ExitCode;

type Round = Box<dyn Fn(u64) -> Vec<f64>>;

/// Plays the peer that the command line names, `NAME WIDTH`, until the input ends.
///
/// `live` tells the bytes that are allocated, in a program that counts them.
///
/// # Errors
///
/// When what is read is not a request, and when the answer cannot be written.
pub fn serve(live: Option<fn() -> usize>) -> io::Result<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_default();
    let width = arguments.next().and_then(|width| width.parse().ok()).unwrap_or(0);
    let Some(stage) = stage(&name, width, live) else {
        eprintln!("usage: NAME WIDTH, with the name of a peer and a number of threads");
        return Ok(ExitCode::FAILURE);
    };
    for line in io::stdin().lines() {
        let line = line?;
        let answer = match line.split_once(' ').map(|(scene, number)| (scene, number.parse())) {
            Some((scene, Ok(number))) => stage.play(scene, number),
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, format!("not a request: {line}"))),
        };
        writeln!(io::stdout(), "{}", answer.unwrap_or("-".to_owned()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Sets the stage for a peer, and starts its pool.
fn stage(name: &str, width: usize, live: Option<fn() -> usize>) -> Option<Stage> {
    let new = || Stage { width, live, rounds: HashMap::new() };
    Some(match name {
        _ if width == 0 => return None,
        "winddown" => {
            let pool = home::<Winddown>(width);
            new()
                .pool(pool)
                .handles(pool)
                .end::<Winddown>()
                .drain::<Winddown>()
                .with("backlog", move |n| vec![backlog::whole_cost(pool, width, n)])
        }
        "rayon" => new().pool(home::<Rayon>(width)).end::<Rayon>(),
        "threadpool" => new().pool(home::<Threadpool>(width)).end::<Threadpool>().drain::<Threadpool>(),
        "tokio" => {
            let pool = home::<Tokio>(width);
            new().pool(pool).handles(pool).end::<Tokio>()
        }
        "rusty_pool" => {
            let pool = home::<RustyPool>(width);
            new().pool(pool).handles(pool).end::<RustyPool>().drain::<RustyPool>()
        }
        "blocking" => {
            let pool = home::<Blocking>(width);
            new().pool(pool).handles(pool)
        }
        "futures" => {
            let pool = home::<Futures>(width);
            new().pool(pool).handles(pool).end::<Futures>()
        }
        "std::thread" => {
            let pool = home::<BareThreads>(width);
            new().tasks(pool).handles(pool).with("create", |n| vec![life::create_thread(n)])
        }
        _ => return None,
    })
}

/// The one pool of the process, in its `static`.
fn home<P: Peer>(width: usize) -> &'static P {
    P::home().get_or_init(|| P::start(width))
}

/// The scenes that a peer has.
struct Stage {
    width: usize,
    live: Option<fn() -> usize>,
    rounds: HashMap<&'static str, Round>,
}

impl Stage {
    /// One round, as the line that answers the request for it.
    fn play(&self, scene: &str, number: u64) -> Option<String> {
        let figures = self.rounds.get(scene)?(number);
        Some(figures.iter().map(|figure| format!("{figure:.3}")).collect::<Vec<_>>().join(" "))
    }

    fn with(mut self, scene: &'static str, round: impl Fn(u64) -> Vec<f64> + 'static) -> Stage {
        self.rounds.insert(scene, Box::new(round));
        self
    }

    /// What everything that runs tasks can do.
    fn tasks<P: Peer>(self, pool: &'static P) -> Stage {
        self.with("burst", |n| vec![stream::burst(pool, n)])
            .with("multi", |n| vec![stream::multi(pool, n)])
            .with("hot", |n| round_trip::hot(pool, n))
            .with("cold", |n| round_trip::cold(pool, n))
            .with("mixed", |n| vec![mixed::mixed(pool, n)])
    }

    /// What a pool can do, as it has a queue and not a thread for each task.
    fn pool<P: Peer>(self, pool: &'static P) -> Stage {
        let width = self.width;
        let live = self.live;
        let stage = self.tasks(pool).with("fan-out", |n| vec![fan_out::fan_out(pool, n)]);
        match live {
            Some(live) => stage.with("bytes", move |n| vec![backlog::bytes(pool, width, n, live)]),
            None => stage,
        }
    }

    fn handles<P: Handles>(self, pool: &'static P) -> Stage {
        self.with("spawn-join", |n| vec![spawn_join::spawn_join(pool, n)])
    }

    fn end<P: Ends>(self) -> Stage {
        let width = self.width;
        self.with("create", move |n| vec![life::create::<P>(width, n)])
    }

    fn drain<P: Drains>(self) -> Stage {
        let width = self.width;
        self.with("drain", move |n| life::drain::<P>(width, n))
    }
}
