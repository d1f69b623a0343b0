//! Lanes: steps that follow one another, beside other lanes, each tried for as long as the machine runs.
//!
//! ```text
//! waiting ── what it comes after is through ──▶ working ── well ──▶ next step … through
//!                                                ▲    │
//!                                                └────┴─ failed: a pause, and once more
//! ```
//!
//! A step has a number of attempts and the pause between them, as the profile renders it: that is what a sound image on
//! a sound machine needs at most. After them it *has failed*: the gate need not wait any longer (`until_verdict` says
//! what that means), people are told, and the pauses double up to [`LONGEST`]. It is tried nevertheless: the disk may
//! be emptied, the server may come back, and nobody is there to say so. A unit that is started is waited for without a
//! limit of ours: systemd has one (`TimeoutStartSec`).

use std::rc::Rc;
use std::time::Duration;

use profile::{Lane, Step};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::failure::Result;
use crate::os::clock;

/// The longest pause before another attempt, unless the profile asks for a longer one.
const LONGEST: Duration = Duration::from_secs(300);

/// Where a lane stands, for `status`. Times are milliseconds after the kernel's start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LaneState {
    /// What it brings up.
    pub lane: String,
    /// What it is doing about it.
    pub standing: Standing,
    /// Since when.
    pub since_ms: u64,
    /// The step that it has come to.
    pub step: Option<String>,
    /// How often that was tried.
    pub attempts: u32,
    /// Whether that has failed as often as it may; it is tried nevertheless.
    pub failed: bool,
    /// What the last attempt that failed said.
    pub said: Option<String>,
    /// When it is tried again.
    pub again_ms: Option<u64>,
}

/// What a lane is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// It comes after others that are not through.
    Waiting,
    /// A step is being done.
    Working,
    /// A step failed, and is tried again after a pause.
    Pausing,
    /// Everything is done.
    Through,
}

impl LaneState {
    fn new(lane: &str) -> Self {
        Self {
            lane: lane.to_owned(),
            standing: Standing::Waiting,
            since_ms: now_ms(),
            step: None,
            attempts: 0,
            failed: false,
            said: None,
            again_ms: None,
        }
    }

    /// What it is at, in one line, unless it is through.
    pub fn doing(&self) -> Option<String> {
        let step = self.step.as_deref().unwrap_or("not begun");
        let tried = match self.attempts {
            0 | 1 => String::new(),
            n => format!(" (attempt {n})"),
        };
        let said = self.said.as_ref().map(|said| format!(": {said}"));
        match self.standing {
            Standing::Through => None,
            Standing::Waiting => Some("waits for other lanes".into()),
            _ => Some(format!("{step}{tried}{}", said.unwrap_or_default())),
        }
    }
}

/// Milliseconds after the kernel's start.
pub(crate) fn now_ms() -> u64 {
    u64::try_from(clock::since_boot().as_millis()).unwrap_or(u64::MAX)
}

/// How far all of them have come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BringUp {
    /// With what is being done.
    Running(String),
    Done,
    /// A step has failed as often as it may.
    Failed(String),
}

impl BringUp {
    pub(crate) fn of(lanes: &[LaneState]) -> Self {
        let failed = lanes.iter().find(|lane| lane.failed);
        if let Some(why) = failed.and_then(|lane| lane.said.clone()) {
            return Self::Failed(why);
        }
        if lanes.iter().all(|lane| lane.standing == Standing::Through) {
            return Self::Done;
        }
        let doing: Vec<String> = lanes
            .iter()
            .filter(|lane| lane.standing != Standing::Waiting)
            .filter_map(LaneState::doing)
            .collect();
        Self::Running(if doing.is_empty() {
            "starting".into()
        } else {
            doing.join("; ")
        })
    }

    pub(crate) fn doing(&self) -> Option<String> {
        match self {
            Self::Running(doing) => Some(doing.clone()),
            _ => None,
        }
    }
}

/// Where all lanes stand.
pub(crate) type LaneStates = watch::Receiver<Vec<LaneState>>;

/// Returns when a lane comes further; never if none can any more.
pub(crate) async fn changed(progress: &mut Option<LaneStates>) {
    if let Some(progress) = progress
        && progress.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// Where lanes write how far they have come.
#[derive(Debug, Clone)]
pub(crate) struct Board(Rc<watch::Sender<Vec<LaneState>>>);

impl Board {
    pub(crate) fn new<'a>(lanes: impl Iterator<Item = &'a str>) -> (Self, LaneStates) {
        let (sender, progress) = watch::channel(lanes.map(LaneState::new).collect());
        (Self(Rc::new(sender)), progress)
    }

    fn change(&self, lane: &str, change: impl FnOnce(&mut LaneState)) {
        self.0.send_modify(|all| {
            if let Some(found) = all.iter_mut().find(|it| it.lane == lane) {
                change(found);
            }
        });
    }

    /// `lane` has come to a step.
    pub(crate) fn begins(&self, lane: &str, step: &str) {
        eprintln!("bootctl: {lane}: {step}");
        self.change(lane, |it| {
            *it = LaneState::new(lane);
            it.standing = Standing::Working;
            it.step = Some(step.to_owned());
        });
    }

    /// Why a step is not done yet.
    pub(crate) fn says(&self, lane: &str, said: &str) {
        self.change(lane, |it| it.said = Some(said.to_owned()));
    }

    pub(crate) fn is_through(&self, lane: &str) {
        self.change(lane, |it| {
            *it = LaneState::new(lane);
            it.standing = Standing::Through;
        });
    }

    async fn wait_for(&self, lanes: &[String]) {
        let mut progress = self.0.subscribe();
        let through = |all: &Vec<LaneState>| {
            lanes.iter().all(|name| {
                let mut found = all.iter().filter(|lane| lane.lane == *name);
                found.any(|lane| lane.standing == Standing::Through)
            })
        };
        // The sender is ours.
        let _ = progress.wait_for(through).await;
    }

    /// Does `attempt`, which gets its number from 1, until it ends well.
    pub(crate) async fn persist(
        &self,
        lane: &str,
        step: &str,
        (attempts, pause): (u32, Duration),
        attempt: impl AsyncFn(u32) -> Result<()>,
    ) {
        self.begins(lane, step);
        let mut number = 0_u32;
        loop {
            number = number.saturating_add(1);
            self.change(lane, |it| {
                it.standing = Standing::Working;
                it.attempts = number;
                it.again_ms = None;
            });
            let Err(e) = attempt(number).await else {
                return;
            };
            let pause = pause_after(number, attempts, pause);
            eprintln!(
                "bootctl: {lane}: {e}; trying again in {} s",
                pause.as_secs()
            );
            let pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
            self.change(lane, |it| {
                it.standing = Standing::Pausing;
                it.failed = number >= attempts;
                it.said = Some(e.to_string());
                it.again_ms = Some(now_ms().saturating_add(pause_ms));
            });
            tokio::time::sleep(pause).await;
        }
    }
}

/// The pause after the attempt `number` failed.
fn pause_after(number: u32, attempts: u32, pause: Duration) -> Duration {
    let beyond = number.saturating_add(1).saturating_sub(attempts.max(1));
    let factor = 2_u32.checked_pow(beyond).unwrap_or(u32::MAX);
    pause.saturating_mul(factor).min(LONGEST.max(pause))
}

/// Does all lanes, each step by `act`, which gets the number of the attempt, from 1.
pub(crate) async fn run<A>(lanes: Vec<Lane>, board: &Board, act: A)
where
    A: AsyncFn(&Step, u32) -> Result<()> + 'static,
{
    let act = Rc::new(act);
    let mut running = JoinSet::new();
    for lane in lanes {
        let (board, act) = (board.clone(), act.clone());
        running.spawn_local(async move {
            board.wait_for(&lane.after).await;
            for step in &lane.steps {
                let tries = (step.attempts, step.pause);
                let attempt = async |number| act(step, number).await;
                board.persist(&lane.name, &step.name, tries, attempt).await;
            }
            board.is_through(&lane.name);
        });
    }
    while running.join_next().await.is_some() {}
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;
    use crate::failure::Failure;

    const fn s(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn lane(name: &str, after: &[&str], steps: &[&str], attempts: u32) -> Lane {
        let step = |name: &&str| Step {
            name: name.to_string(),
            work: profile::Work::Start {
                unit: name.to_string(),
            },
            conditions: vec![],
            stamp: None,
            recover: None,
            attempts,
            pause: s(2),
            required: true,
        };
        Lane {
            name: name.into(),
            after: after.iter().map(|&it| it.to_owned()).collect(),
            steps: steps.iter().map(step).collect(),
        }
    }

    /// Runs `lanes` until they are through or `limit` (which passes at once) is over; gives what was done, and where
    /// they stand.
    async fn for_a_while(
        lanes: Vec<Lane>,
        limit: Duration,
        fails: impl Fn(&str) -> bool + 'static,
    ) -> (Vec<String>, Vec<LaneState>) {
        let done = Rc::new(RefCell::new(Vec::new()));
        let (board, progress) = Board::new(lanes.iter().map(|lane| lane.name.as_str()));
        let local = tokio::task::LocalSet::new();
        let log = done.clone();
        let all = async {
            run(lanes, &board, async move |step: &Step, _| {
                log.borrow_mut().push(step.name.clone());
                if fails(&step.name) {
                    return Err(Failure::failed("disk full").doing(&step.name));
                }
                Ok(())
            })
            .await;
        };
        let _ = local.run_until(tokio::time::timeout(limit, all)).await;
        let states = progress.borrow().clone();
        (done.borrow().clone(), states)
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_that_failed_is_tried_until_it_ends_well() {
        let tries = Rc::new(Cell::new(0));
        let count = tries.clone();
        let fails = move |name: &str| {
            count.set(count.get() + u32::from(name == "b"));
            name == "b" && count.get() < 9
        };
        let lanes = vec![lane("x", &[], &["a", "b", "c"], 1)];
        let (done, states) = for_a_while(lanes, s(86_400), fails).await;
        assert_eq!(tries.get(), 9);
        assert_eq!((done.len(), done.last().unwrap().as_str()), (11, "c"));
        assert_eq!(states[0].standing, Standing::Through);
        assert_eq!(BringUp::of(&states), BringUp::Done);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lane_that_fails_holds_up_only_those_that_come_after_it() {
        let lanes = vec![
            lane("runtime", &[], &["containerd"], 1),
            lane("image", &["runtime"], &["import"], 3),
            lane("node", &["runtime"], &["kubelet"], 1),
            lane("waits", &["image"], &["never"], 1),
        ];
        let (done, states) = for_a_while(lanes, s(30), |name| name == "import").await;
        assert!(done.contains(&"kubelet".to_owned()), "{done:?}");
        assert!(!done.contains(&"never".to_owned()), "{done:?}");
        let standing: Vec<_> = states.iter().map(|lane| lane.standing).collect();
        let expected = [
            Standing::Through,
            Standing::Pausing,
            Standing::Through,
            Standing::Waiting,
        ];
        assert_eq!(standing, expected);
        let image = &states[1];
        assert!(image.failed && image.attempts > 3, "{image:?}");
        assert_eq!(image.said.as_deref(), Some("import: disk full"));
        assert!(image.again_ms.is_some());
        assert_eq!(
            BringUp::of(&states),
            BringUp::Failed("import: disk full".into())
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_has_not_failed_while_it_has_attempts_left() {
        let lanes = vec![lane("x", &[], &["a"], 4)];
        let (_, states) = for_a_while(lanes.clone(), s(5), |_| true).await;
        assert_eq!((states[0].attempts, states[0].failed), (3, false));
        assert_eq!(
            BringUp::of(&states),
            BringUp::Running("a (attempt 3): a: disk full".into())
        );
        let (_, states) = for_a_while(lanes, s(7), |_| true).await;
        assert_eq!((states[0].attempts, states[0].failed), (4, true));
    }

    #[test]
    fn pauses_grow_only_after_the_attempts_and_not_for_ever() {
        let pauses: Vec<u64> = (1..14)
            .map(|number| pause_after(number, 3, s(2)).as_secs())
            .collect();
        assert_eq!(pauses[..5], [2, 2, 4, 8, 16]);
        assert_eq!(pauses[12], 300);
        assert_eq!(pause_after(u32::MAX, 1, s(2)), s(300));
        assert_eq!(pause_after(1, 0, s(400)), s(400));
    }
}
