//! Plays the scenes, with the rounds of all peers in turn.

use crate::child::Child;
use crate::field::{Contestant, Field, Programs, HOST};
use crate::programme::{Outcome, Plan, Scene, SCENES};
use crate::run::{quantile, Run};
use crate::{floors, tables};
use std::path::{Path, PathBuf};
use std::{fs, io};

/// What the command line asks for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Only scenes whose name has one of these in it; without any, all of them.
    pub filters: Vec<String>,
    /// The numbers of workers.
    pub widths: Vec<usize>,
    /// Few and small rounds.
    pub quick: bool,
    /// Where to write the figures.
    pub json: Option<PathBuf>,
}

impl Options {
    fn asks_for(&self, name: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|filter| name.contains(filter))
    }
}

/// Plays what is asked for, prints a table for each scene and the floors at the end.
///
/// # Errors
///
/// When the figures cannot be written to the file that was asked for.
pub fn compare(programs: Programs, options: &Options) -> io::Result<()> {
    if let Some(directory) = options.json.as_deref().and_then(Path::parent) {
        fs::create_dir_all(directory)?;
    }
    let field = Field::new(programs);
    let mut run = Run::new(options.quick, field.versions());
    println!("{}", tables::heading(&run));
    for scene in SCENES.iter().filter(|scene| options.asks_for(scene.name)) {
        for &width in &options.widths {
            play(&field, scene, width, options.quick, &mut run);
        }
        println!("{}", tables::scene(&run, scene));
    }
    if options.asks_for("checks") {
        check_widths(&field, options.quick, &mut run);
        check_backlog(&field, options.quick, &mut run);
    }
    let floors = floors::check(&run);
    if !floors.is_empty() {
        println!("{}", tables::floors(&floors));
    }
    options.json.as_deref().map_or(Ok(()), |path| run.write(path))
}

/// One process, its plan, and what it has answered: one list for each round.
struct Player {
    contestant: Contestant,
    width: usize,
    child: Child,
    plan: Plan,
    answers: Vec<Vec<f64>>,
}

impl Player {
    fn start(field: &Field, scene: &str, contestant: Contestant, width: usize, plan: Plan) -> Option<Player> {
        match Child::start(field.command(contestant, width, scene == "bytes")) {
            Ok(child) => Some(Player { contestant, width, child, plan, answers: Vec::new() }),
            Err(error) => {
                eprintln!("{} cannot be started: {error}", contestant.name);
                None
            }
        }
    }

    fn is_done(&self) -> bool {
        self.answers.len() >= self.plan.rounds
    }

    /// Plays one round, and says whether this player has the scene.
    fn round(&mut self, scene: &str) -> bool {
        let warm_up = self.plan.warm_up.map_or(Ok(None), |size| self.child.ask(scene, size));
        match warm_up.and_then(|_| self.child.ask(scene, self.plan.size)) {
            Ok(Some(figures)) => {
                match self.plan.discarded {
                    0 => self.answers.push(figures),
                    _ => self.plan.discarded -= 1,
                }
                true
            }
            Ok(None) => false,
            Err(error) => {
                eprintln!("{} is left out of {scene} at width {}: {error}", self.contestant.name, self.width);
                false
            }
        }
    }
}

/// Plays rounds in turn. Each round begins with another player, so that none always follows the same one.
fn take_turns(scene: &str, players: &mut Vec<Player>) {
    while players.iter().any(|player| !player.is_done()) {
        players.retain_mut(|player| player.is_done() || player.round(scene));
        if !players.is_empty() {
            players.rotate_left(1);
        }
    }
}

fn play(field: &Field, scene: &Scene, width: usize, quick: bool, run: &mut Run) {
    let start = |contestant: Contestant| {
        let plan = scene.plan(contestant.kind, width, quick);
        Player::start(field, scene.name, contestant, width, plan)
    };
    let mut players: Vec<_> = field.contestants().filter_map(start).collect();
    take_turns(scene.name, &mut players);
    for player in &players {
        let name = player.contestant.name;
        match scene.outcome {
            Outcome::Medians(figures) => {
                for (column, figure) in figures.iter().enumerate() {
                    if let Some(median) = median(&player.answers, column) {
                        run.set(figure.name, width, name, median);
                    }
                }
            }
            Outcome::Percentiles(figures) => {
                let mut samples = player.answers.concat();
                for (figure, share) in figures.iter().zip([0.5, 0.99]) {
                    if let Some(value) = quantile(&mut samples, share) {
                        run.set(figure.name, width, name, value);
                    }
                }
            }
        }
    }
}

fn median(answers: &[Vec<f64>], column: usize) -> Option<f64> {
    let mut figures: Vec<_> = answers.iter().filter_map(|figures| figures.get(column).copied()).collect();
    quantile(&mut figures, 0.5)
}

/// winddown alone: 2 and 16 workers in turn, as the two are compared with each other.
fn check_widths(field: &Field, quick: bool, run: &mut Run) {
    let host = host(field);
    let plan = SCENES[0].plan(host.kind, 2, quick);
    let start = |width| Player::start(field, "burst", host, width, plan);
    let mut players: Vec<_> = [2, 16].into_iter().filter_map(start).collect();
    take_turns("burst", &mut players);
    for player in &players {
        if let Some(median) = median(&player.answers, 0) {
            run.set("burst in turn", player.width, HOST, median);
        }
    }
}

/// winddown alone: a short queue and a long one in turn, and what the long one needs.
fn check_backlog(field: &Field, quick: bool, run: &mut Run) {
    const WIDTH: usize = 2;
    let host = host(field);
    let long = if quick { 1_000_000 } else { 10_000_000 };
    let rounds = if quick { 3 } else { 7 };
    let plan = |size| Plan { warm_up: None, size, discarded: 1, rounds };
    let start = |size| Player::start(field, "backlog", host, WIDTH, plan(size));
    let mut players: Vec<_> = [100_000, long].into_iter().filter_map(start).collect();
    take_turns("backlog", &mut players);
    for player in &players {
        let figure = if player.plan.size == long { "long queue" } else { "short queue" };
        if let Some(median) = median(&player.answers, 0) {
            run.set(figure, WIDTH, HOST, median);
        }
    }
    let bytes = Child::start(field.command(host, WIDTH, true)).and_then(|mut child| child.ask("bytes", long));
    if let Ok(Some(bytes)) = bytes {
        run.set("long queue bytes", WIDTH, HOST, bytes[0]);
    }
}

fn host(field: &Field) -> Contestant {
    field.contestants().find(|contestant| contestant.name == HOST).expect("the host takes part")
}
