//! Brings up what the profile rendered to: the time, files, then everything else in lanes.

pub(crate) mod files;
pub(crate) mod lanes;
pub(crate) mod step;

use std::time::Duration;

use profile::{Rendered, When, Work};

use self::files::write_files;
use self::lanes::{Board, LaneStates};
use crate::failure::Result;
use crate::kubernetes::ApiServers;
use crate::machine::clock::{Wait, implausible, wait};
use crate::os::clock::Pace;
use crate::os::paths::Paths;
use crate::os::systemd::Systemd;

/// Between two looks at a clock that is not yet plausible.
const LOOK: Duration = Duration::from_secs(2);
/// The lane before all that the profile has.
const FILES: &str = "files";

/// Begins to bring everything up, beside whatever else is done; gives where to look how far it has come.
pub(crate) fn begin(paths: Paths, rendered: Rendered, api: ApiServers) -> LaneStates {
    let lanes = rendered.lanes.iter().map(|lane| lane.name.as_str());
    let (board, progress) = Board::new([FILES].into_iter().chain(lanes));
    tokio::task::spawn_local(async move { all(paths, rendered, api, &board).await });
    progress
}

async fn all(paths: Paths, rendered: Rendered, api: ApiServers, board: &Board) {
    if !rendered.lanes.is_empty() {
        wait_for_time(&paths, rendered.waits_for_time, board).await;
    }
    let write = async |_| files(&paths, &rendered).await;
    let once = (1, Duration::from_secs(2));
    board.persist(FILES, "write the files", once, write).await;
    board.is_through(FILES);
    lanes::run(rendered.lanes, board, async move |step, number| {
        // What stands in for a machine runs no commands and has no cluster.
        if !matches!(step.work, Work::Start { .. }) && !paths.are_real() {
            return Ok(());
        }
        step::attempt(step, number, &paths, &api).await
    })
    .await;
}

/// No certificate is made while the time is a guess, unless nobody says it for as long as the profile would wait: a
/// clock that is late, as this one is then, harms no certificate.
async fn wait_for_time(paths: &Paths, at_most: Option<Duration>, board: &Board) {
    let began = tokio::time::Instant::now();
    let mut waits = false;
    loop {
        let why = match wait(implausible(paths), began.elapsed(), at_most) {
            Wait::NotNeeded => return,
            Wait::Over(why) => {
                eprintln!("bootctl: nobody has said the time; going on without it: {why}");
                return;
            }
            Wait::On(why) => why,
        };
        if !waits {
            board.begins(FILES, "wait for the time");
            waits = true;
        }
        board.says(FILES, &why);
        tokio::time::sleep(LOOK).await;
    }
}

async fn files(paths: &Paths, rendered: &Rendered) -> Result<()> {
    let units = |path: &str| path.contains("/systemd/");
    let brings_units = rendered
        .files
        .iter()
        .any(|f| f.when == When::BringUp && units(&f.path));
    if write_files(paths, rendered, When::BringUp)? > 0 && brings_units {
        Systemd::of(paths, Pace::default()).await?.reload().await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::facts::stand_in;
    use lanes::{BringUp, Standing};
    use profile::{Lane, Step};

    async fn standing(paths: &Paths, rendered: &Rendered) -> BringUp {
        let local = tokio::task::LocalSet::new();
        let begun = async {
            begin(
                paths.clone(),
                rendered.clone(),
                ApiServers::new(paths.clone()),
            )
        };
        let mut progress = local.run_until(begun).await;
        let settled = local.run_until(progress.wait_for(|all| {
            all.iter().all(|lane| lane.standing == Standing::Through)
                || all.iter().any(|lane| lane.failed)
        }));
        let _ = tokio::time::timeout(Duration::from_millis(500), settled).await;
        let all = progress.borrow().clone();
        BringUp::of(&all)
    }

    #[tokio::test]
    async fn nothing_is_brought_up_before_the_time_is_plausible() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path());
        stand_in::image(&paths);
        stand_in::put(
            &paths.run("applied.json"),
            r#"{"profile":"x","problem":null,
                "clock":{"found":0,"set_to":1790000000,"implausible":"never saved"}}"#,
        );
        let mut rendered = crate::profile::choose::in_force(&paths).unwrap().rendered;
        // Without anything to bring up there is nothing to wait for.
        assert_eq!(standing(&paths, &rendered).await, BringUp::Done);
        rendered.lanes.push(Lane {
            name: "a".into(),
            after: vec![],
            steps: vec![Step {
                name: "start a.service".into(),
                work: Work::Start {
                    unit: "a.service".into(),
                },
                conditions: vec![],
                stamp: None,
                recover: None,
                attempts: 1,
                pause: Duration::from_secs(2),
                required: true,
            }],
        });
        let waiting = standing(&paths, &rendered).await;
        let doing = waiting.doing().unwrap();
        assert!(doing.starts_with("wait for the time: "), "{doing}");
        let mut impatient = rendered.clone();
        impatient.waits_for_time = Some(Duration::ZERO);
        let went_on = standing(&paths, &impatient).await;
        assert!(matches!(went_on, BringUp::Failed(_)), "{went_on:?}");
        stand_in::put(&paths.at("/run/systemd/timesync/synchronized"), "");
        let BringUp::Failed(why) = standing(&paths, &rendered).await else {
            panic!("there is no systemd");
        };
        assert!(why.contains("connecting to "), "{why}");
    }
}
