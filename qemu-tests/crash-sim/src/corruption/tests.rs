use super::*;

#[test]
fn every_cell_comes_out_as_the_table_says() {
    let arguments = Arguments::parse_from(["corruption", "--variants", "1"]);
    assert!(run(&arguments).unwrap());
}

/// What a matrix that finds nothing proves: it tells outcomes apart.
#[test]
fn another_expectation_is_a_violation() {
    let world = appliance::world().unwrap();
    let machines = appliance::lived(&world, 512).unwrap();
    let mut random = Random::new(1);
    let mut told_apart = 0;
    for cell in table::cells() {
        let expected = match cell.expected {
            Outcome::Same | Outcome::Mended | Outcome::Rebuilt => Outcome::Other,
            Outcome::Other | Outcome::Earlier => Outcome::Same,
            Outcome::Verity | Outcome::VerityRecovery => Outcome::Recovery,
            Outcome::Recovery => Outcome::VerityRecovery,
            Outcome::Nothing => Outcome::Recovery,
            _ => continue,
        };
        let (_, machine) = machines
            .iter()
            .find(|(situation, _)| *situation == cell.situation)
            .unwrap();
        let Some(damaged) = machine
            .damaged(cell.region, cell.damage, &mut random)
            .unwrap()
        else {
            continue;
        };
        let runs = judge::runs(&world, machine, Cell { expected, ..cell }, &damaged);
        assert!(runs.iter().all(|run| run.wrong.is_some()), "{cell}");
        told_apart += 1;
    }
    assert!(told_apart > 500, "{told_apart}");
}

#[test]
fn the_page_has_the_table_and_names_the_scenarios() {
    let source = env!("STERNPOST_SOURCE");
    let page = std::fs::read_to_string(format!("{source}/docs/reliability.md")).unwrap();
    assert!(
        page.contains(&table::markdown()),
        "docs/reliability.md has another table than `corruption --table` prints"
    );
    for scenario in SCENARIOS {
        let file = format!(
            "{source}/qemu-tests/src/scenarios/{}.rs",
            scenario.replace('-', "_")
        );
        assert!(std::path::Path::new(&file).exists(), "{file} is missing");
        assert!(page.contains(&format!("`{scenario}`")), "{scenario}");
    }
}

#[test]
fn every_situation_has_every_region_once() {
    let [(_, regions), others @ ..] = table::EXPECTED;
    let of = |rows: &[table::Row]| {
        rows.iter()
            .map(|(it, _)| it.to_string())
            .collect::<Vec<_>>()
    };
    let names = of(regions);
    for (situation, rows) in others {
        assert_eq!(of(rows), names, "{situation}");
    }
    let mut sorted = names.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!(sorted.len(), names.len());
}
