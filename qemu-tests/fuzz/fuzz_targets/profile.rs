//! Profiles: docs/schemas/profile.schema.json.
//!
//! - what is wrong is said with a place in the file, and without the secret that stands there;
//! - what is right renders: files below /etc and /run, each path once;
//! - leniently, only what has no fields is refused, and a right profile is what it is when it is read strictly.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use profile::{ImageFacts, MachineFacts, Reading, check, parse_for, render};

static IMAGE: LazyLock<ImageFacts> = LazyLock::new(|| {
    serde_json::from_value(serde_json::json!({
        "product": "demo", "version": "1.0.0", "architecture": "x86_64", "security_version": 1,
        "state_epoch": 1, "build_time": 1_760_000_000, "vm": ["none"], "kernel": "6.12",
        "kubernetes": {"distribution": "kubeadm", "version": "1.36.3"},
    }))
    .expect("facts of an image")
});

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let lines = text.matches('\n').count() + 1;
    let strict = check(&text, "p.yaml", Reading::Strict);
    match (check(&text, "p.yaml", Reading::Lenient), strict) {
        (Ok((profile, said)), Ok((strict, _))) => {
            assert_eq!(profile, strict.of_host());
            assert!(said.errors.is_empty());
        }
        (Ok((_, said)), Err(_)) => drop(said.to_text(false)),
        (Err(_), Err(said)) => assert!(said.errors.iter().all(|it| it.path.is_empty())),
        (Err(said), Ok(_)) => panic!("{said}"),
    }
    match parse_for(&text, "p.yaml", &IMAGE) {
        Err(diagnostics) => {
            assert!(!diagnostics.errors.is_empty());
            for error in &diagnostics.errors {
                assert!((1..=lines).contains(&error.line) && error.column > 0);
            }
            assert!(diagnostics.to_text(false).contains("error"));
            assert!(!diagnostics.to_text(true).is_empty());
        }
        Ok(profile) => {
            let machine = MachineFacts {
                machine_id: "0f3b5c1a2d4e46788a9bacbdcedfe0f1".into(),
                boot_id: "b".into(),
            };
            let rendered =
                render(&profile, &IMAGE, &machine).expect("it was checked for this image");
            for file in &rendered.files {
                assert!(file.path.starts_with("/etc/") || file.path.starts_with("/run/"));
                assert!(
                    !file.path.contains("/../") && !file.path.contains('\0'),
                    "{}",
                    file.path
                );
            }
            let mut paths: Vec<_> = rendered.files.iter().map(|file| &file.path).collect();
            paths.sort();
            paths.dedup();
            assert_eq!(paths.len(), rendered.files.len(), "a path occurs twice");
        }
    }
});
