//! The scenarios, one a file, each named after what it shows.

use crate::scenario::Scenario;

mod agent_that_ends_goes_back;
mod agent_that_hangs_goes_back;
mod arm64_first_boot;
mod arm64_hanging_userland_goes_back;
mod arm64_kernel_that_hangs_goes_back;
mod arm64_kubernetes_node_ready;
mod arm64_loader_that_faults_is_given_up;
mod arm64_smbios_injection_does_nothing;
mod arm64_uki_with_a_flipped_bit;
mod arm64_upgrade;
mod boot_state_partition_missing;
mod both_copies_of_the_record_destroyed;
mod both_roots_rot_ends_in_recovery;
mod both_slots_bad_ends_in_recovery;
mod clock_that_jumps;
mod cloned_disk;
mod crashes_go_back;
mod disk_moved_to_another_bus;
mod disk_on_ahci;
mod disk_on_nvme;
mod disk_on_usb;
mod disk_read_errors;
mod disk_turned_read_only;
mod disk_write_errors;
mod each_esp_destroyed_in_turn;
mod first_boot_grows_the_disk;
mod first_esp_destroyed;
mod gate_without_an_answer_goes_back;
mod generic_kernel_on_nvme;
mod hanging_userland_goes_back;
mod hangs_go_back;
mod install_cut_by_power_loss;
mod kernel_lockups_go_back;
mod kernel_that_hangs_goes_back;
mod kubernetes_life_of_an_appliance;
mod kubernetes_node_ready;
mod loader_that_comes_back_is_given_up;
mod loader_that_faults_is_given_up;
mod loader_that_hangs_is_reset;
mod loader_that_panics_is_given_up;
mod loader_update_cut_by_power_loss;
mod loader_update_reaches_both_esps;
mod loader_with_a_flipped_bit;
mod manifest_by_a_wrong_key;
mod manifest_of_another_product;
mod manifest_of_the_other_architecture;
mod newest_copy_of_the_record_destroyed;
mod no_verdict_three_times_goes_back;
mod primary_table_destroyed;
mod recovery_installs_by_itself;
mod recovery_installs_from_a_stick;
mod recovery_is_reached_over_ssh;
mod recovery_replaced;
mod root_rots_while_running;
mod root_with_a_flipped_bit;
mod root_with_a_read_error;
mod sectors_of_4096_bytes;
mod service_that_hangs_goes_back;
mod slot_header_of_the_other_slot;
mod smbios_injection_does_nothing;
mod state_damaged_beyond_repair;
mod state_full;
mod state_keeps_what_can_be_kept;
mod state_partition_missing;
mod state_with_an_error;
mod ten_plug_pulls_in_a_row;
mod timer_described_by_wdat;
mod two_disks_of_the_same_image;
mod uki_with_a_flipped_bit;
mod unhealthy_upgrade_goes_back;
mod upgrade_is_marked_good;

/// All of them, in the order in which they are listed and started.
pub const ALL: &[Scenario] = &[
    first_boot_grows_the_disk::SCENARIO,
    upgrade_is_marked_good::SCENARIO,
    unhealthy_upgrade_goes_back::SCENARIO,
    no_verdict_three_times_goes_back::SCENARIO,
    uki_with_a_flipped_bit::SCENARIO,
    manifest_by_a_wrong_key::SCENARIO,
    manifest_of_another_product::SCENARIO,
    manifest_of_the_other_architecture::SCENARIO,
    slot_header_of_the_other_slot::SCENARIO,
    root_with_a_flipped_bit::SCENARIO,
    root_rots_while_running::SCENARIO,
    root_with_a_read_error::SCENARIO,
    first_esp_destroyed::SCENARIO,
    primary_table_destroyed::SCENARIO,
    newest_copy_of_the_record_destroyed::SCENARIO,
    both_copies_of_the_record_destroyed::SCENARIO,
    each_esp_destroyed_in_turn::SCENARIO,
    loader_update_reaches_both_esps::SCENARIO,
    loader_that_comes_back_is_given_up::SCENARIO,
    loader_update_cut_by_power_loss::SCENARIO,
    both_slots_bad_ends_in_recovery::SCENARIO,
    both_roots_rot_ends_in_recovery::SCENARIO,
    recovery_installs_from_a_stick::SCENARIO,
    recovery_installs_by_itself::SCENARIO,
    recovery_is_reached_over_ssh::SCENARIO,
    recovery_replaced::SCENARIO,
    install_cut_by_power_loss::SCENARIO,
    hanging_userland_goes_back::SCENARIO,
    ten_plug_pulls_in_a_row::SCENARIO,
    state_damaged_beyond_repair::SCENARIO,
    state_keeps_what_can_be_kept::SCENARIO,
    state_partition_missing::SCENARIO,
    boot_state_partition_missing::SCENARIO,
    state_with_an_error::SCENARIO,
    state_full::SCENARIO,
    disk_read_errors::SCENARIO,
    disk_write_errors::SCENARIO,
    disk_turned_read_only::SCENARIO,
    clock_that_jumps::SCENARIO,
    loader_that_faults_is_given_up::SCENARIO,
    loader_that_hangs_is_reset::SCENARIO,
    loader_that_panics_is_given_up::SCENARIO,
    loader_with_a_flipped_bit::SCENARIO,
    smbios_injection_does_nothing::SCENARIO,
    crashes_go_back::SCENARIO,
    hangs_go_back::SCENARIO,
    service_that_hangs_goes_back::SCENARIO,
    gate_without_an_answer_goes_back::SCENARIO,
    kernel_that_hangs_goes_back::SCENARIO,
    kernel_lockups_go_back::SCENARIO,
    agent_that_ends_goes_back::SCENARIO,
    agent_that_hangs_goes_back::SCENARIO,
    timer_described_by_wdat::SCENARIO,
    two_disks_of_the_same_image::SCENARIO,
    cloned_disk::SCENARIO,
    sectors_of_4096_bytes::SCENARIO,
    disk_on_nvme::SCENARIO,
    disk_on_ahci::SCENARIO,
    disk_on_usb::SCENARIO,
    generic_kernel_on_nvme::SCENARIO,
    disk_moved_to_another_bus::SCENARIO,
    arm64_first_boot::SCENARIO,
    arm64_upgrade::SCENARIO,
    arm64_loader_that_faults_is_given_up::SCENARIO,
    arm64_uki_with_a_flipped_bit::SCENARIO,
    arm64_smbios_injection_does_nothing::SCENARIO,
    arm64_kernel_that_hangs_goes_back::SCENARIO,
    arm64_hanging_userland_goes_back::SCENARIO,
    kubernetes_node_ready::SCENARIO,
    kubernetes_life_of_an_appliance::SCENARIO,
    arm64_kubernetes_node_ready::SCENARIO,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_sentences_short() {
        for (at, scenario) in ALL.iter().enumerate() {
            assert!(
                ALL[..at].iter().all(|other| other.name != scenario.name),
                "{} twice",
                scenario.name
            );
            assert!(
                scenario.shows.len() <= 200,
                "{} explains too much",
                scenario.name
            );
        }
    }

    #[test]
    fn every_file_is_listed() {
        let directory = concat!(env!("STERNPOST_SOURCE"), "/qemu-tests/src/scenarios");
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path
                .file_stem()
                .unwrap()
                .to_string_lossy()
                .replace('_', "-");
            assert!(
                name == "mod" || ALL.iter().any(|scenario| scenario.name == name),
                "{name} is not in ALL"
            );
        }
    }
}
