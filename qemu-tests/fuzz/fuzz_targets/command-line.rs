//! The kernel's command line, as the initrd agent compares it with its own copy.
//!
//! What is taken is the image's own to the letter, and names exactly one root.
#![no_main]

use initrd::cmdline::{CmdlineError, Root, check};
use libfuzzer_sys::fuzz_target;

fn roots(line: &str) -> usize {
    line.split_whitespace()
        .filter(|word| word.starts_with("sternpost.root=") || *word == "sternpost.recovery")
        .count()
}

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let (kernel, image) = text.split_once('\n').unwrap_or((&text, &text));
    let strip = |line: &str| {
        line.trim_matches(|c: char| c.is_whitespace() || c == '\0')
            .to_owned()
    };
    let checked = check(kernel, image);
    let (kernel, image) = (strip(kernel), strip(image));
    let (same, roots) = (kernel == image, roots(&image));
    match checked {
        Ok(root) => {
            assert!(same && roots == 1);
            if let Root::Verity(hash) = root {
                assert!(image.contains(&format!("sternpost.root={hash}")));
            }
        }
        Err(CmdlineError::Differs { .. }) => assert!(!same),
        Err(CmdlineError::Root) => assert!(same && roots != 1),
        Err(CmdlineError::Hash(_)) => assert!(same && roots == 1),
    }
});
