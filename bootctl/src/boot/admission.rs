//! What this machine starts, as its loader said: by whose keys, and above which floors.
//!
//! The loader verifies by the root of trust in its own section and by firmware's floors, the running system has a
//! `trust.json` of its image and the record. Where these differ, what the one takes the other may not start, and an
//! installation would empty a slot and use up tries for nothing. So whatever asks these things asks an [`Admission`]:
//!
//! | question | who is asked |
//! | --- | --- |
//! | would the loader start what a slot holds? | the loader's trust and floors; the image's trust where the loader's is not known |
//! | may a bundle be installed? | both, and not at all where the loader goes by a trust that nobody knows any more |
//!
//! An older loader hands over neither: then it is the image's trust and the record alone.

use block_file::Access;
use boot_core::floor::{Floors, Level};
use boot_core::hand_over::HandOver;
use boot_core::manifest::Kind;
use boot_core::record::Record;
use boot_core::slot_header::SlotParts;
use boot_core::trust::Trust;
use boot_core::verify::{Expect, Rejected, Verified, Verify, verify_manifest};
use boot_core::{Digest, esp};

use crate::boot::slot_check;
use crate::failure::{Failure, Result};
use crate::machine::Machine;

/// Whom this machine trusts, and its floors.
#[derive(Debug, Clone)]
pub struct Admission {
    /// The image's.
    trust: Trust,
    /// The loader's.
    loader: Loader,
    /// Those that were in force when the machine was started.
    floors: Floors,
}

/// By what the loader goes.
#[derive(Debug, Clone)]
enum Loader {
    /// The same as the image, or it did not say.
    Same,
    /// Another one.
    Other(Trust),
    /// Another one, which neither ESP has any more.
    Lost,
}

impl From<Trust> for Admission {
    /// Where the loader said nothing.
    fn from(trust: Trust) -> Self {
        Self {
            trust,
            loader: Loader::Same,
            floors: Floors::default(),
        }
    }
}

impl Admission {
    /// This machine's.
    ///
    /// # Errors
    /// The image has no root of trust.
    pub fn of(machine: &Machine) -> Result<Self> {
        let trust = slot_check::trust(machine)?;
        let said = machine.handover.as_ref();
        Ok(Self::new(trust, said, |digest| {
            loaders_trust(machine, digest)
        }))
    }

    /// Of the image's trust and what the loader handed over; `find` looks for the trust with a digest.
    fn new(
        trust: Trust,
        said: Option<&HandOver>,
        find: impl FnOnce(&Digest) -> Option<Trust>,
    ) -> Self {
        let other = said
            .and_then(|said| said.trust)
            .filter(|digest| *digest != trust.digest());
        let loader = match other.map(|digest| find(&digest)) {
            None => Loader::Same,
            Some(Some(trust)) => Loader::Other(trust),
            Some(None) => Loader::Lost,
        };
        Self {
            trust,
            loader,
            floors: said.and_then(|said| said.floors).unwrap_or_default(),
        }
    }

    /// The image's root of trust.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// The root of trust that the loader goes by, as far as that is known.
    pub fn loaders(&self) -> &Trust {
        match &self.loader {
            Loader::Other(trust) => trust,
            Loader::Same | Loader::Lost => &self.trust,
        }
    }

    /// The floor for what is of `kind`: the higher one of what the loader said and what the record says by now.
    pub fn floor(&self, kind: Kind, record: &Record) -> Level {
        kind.floor(&self.floors.max(record.floors))
    }

    /// Fails unless the loader would take a manifest that is in no slot, where it goes by a root of trust of its own.
    ///
    /// # Errors
    /// The reason for which it would not; or its root of trust is not known.
    pub fn loader_takes(&self, envelope: &[u8], keyring: &[u8]) -> Result<()> {
        match &self.loader {
            Loader::Same => Ok(()),
            Loader::Other(loader) => verify_manifest(loader, envelope, keyring)
                .map(drop)
                .map_err(loader_rejects),
            Loader::Lost => Err(Failure::refused(
                "the loader that started this machine goes by another root of trust than the image, and neither ESP \
                 holds that loader any more",
            )
            .doing("looking for what this machine's loader would start")
            .next(
                "restart the machine, so that it is started by a loader that is there; nothing was changed",
            )),
        }
    }
}

/// What a slot holds is verified as the loader will.
impl Verify for Admission {
    fn verify(&self, parts: &SlotParts, expect: &Expect) -> Result<Verified, Rejected> {
        let expect = Expect {
            floor: expect.floor.max(self.floors.of(expect.target)),
            ..*expect
        };
        self.loaders().verify(parts, &expect)
    }
}

fn loader_rejects(rejected: Rejected) -> Failure {
    Failure::verification(rejected)
        .doing("asking what this machine's loader starts, which goes by another root of trust than the image")
        .next("update the loader first, with `bootctl update-loader`, or ask the bundle's publisher for one that it trusts; nothing was changed")
}

/// The root of trust with this digest, of a loader on one of the ESPs.
fn loaders_trust(machine: &Machine, digest: &Digest) -> Option<Trust> {
    let architecture = slot_check::trust(machine).ok()?.architecture;
    ["esp-a", "esp-b"].into_iter().find_map(|label| {
        let mut device = machine.open(label, Access::Read).ok()?;
        let program = esp::read_loader(&mut device, architecture).ok()?;
        let trust = Trust::from_intact_program(&program).ok()?;
        (trust.digest() == *digest).then_some(trust)
    })
}

#[cfg(test)]
mod tests {
    use boot_core::Target;
    use boot_core::keyring::KeySet;
    use boot_core::public_key::KeyFormat;
    use boot_core::test_support::{Image, TestKey, trust};

    use super::*;
    use crate::failure::Code;

    fn said() -> HandOver {
        let vector = concat!(
            env!("STERNPOST_SOURCE"),
            "/docs/formats/vectors/hand-over.json"
        );
        HandOver::from_json(&std::fs::read(vector).unwrap()).unwrap()
    }

    fn verify(admission: &Admission, image: &Image) -> Result<(), Rejected> {
        let parts = SlotParts {
            header: image.header(Target::A),
            envelope: image.envelope.clone(),
            keyring: image.keyring.clone(),
        };
        let expect = Expect {
            target: Target::A,
            floor: Level::default(),
        };
        admission.verify(&parts, &expect).map(drop)
    }

    #[test]
    fn what_is_below_the_loaders_floors_is_not_admitted() {
        let (old, new) = (Image::new(Kind::System, "1.0", 2), said());
        let admission = Admission::new(trust(), Some(&new), |_| None);
        let refused = verify(&admission, &old);
        assert!(matches!(refused, Err(Rejected::NotAdmitted(_))));
        let mut record = Record::empty();
        record.floors.system = Level::new(4, 1);
        assert_eq!(admission.floor(Kind::System, &record), Level::new(4, 2));
        let recovery = admission.floor(Kind::Recovery, &record);
        assert_eq!(recovery, Level::new(1, 1));
        assert_eq!(verify(&Admission::from(trust()), &old), Ok(()));
    }

    #[test]
    fn what_the_loader_does_not_trust_is_not_admitted() {
        let image = Image::new(Kind::System, "1.0", 2);
        let other = Trust {
            root: KeySet::new(KeyFormat::V1, 1, vec![TestKey(9).public()]).unwrap(),
            ..trust()
        };
        let said = HandOver {
            trust: Some(other.digest()),
            floors: None,
            ..said()
        };
        let admission = Admission::new(trust(), Some(&said), |digest| {
            assert_eq!(*digest, other.digest());
            Some(other.clone())
        });
        let refused = verify(&admission, &image);
        assert!(matches!(refused, Err(Rejected::Keyring(_))));
        let taken = |admission: &Admission| admission.loader_takes(&image.envelope, &image.keyring);
        assert_eq!(taken(&admission).unwrap_err().code, Code::Verification);
        // What is in a slot is not given up for it, and nothing new is installed.
        let lost = Admission::new(trust(), Some(&said), |_| None);
        assert_eq!(verify(&lost, &image), Ok(()));
        let refused = taken(&lost).unwrap_err();
        assert!(refused.what.contains("neither ESP"), "{refused}");
        // An older loader says nothing.
        let older = HandOver {
            trust: None,
            ..said
        };
        let admission = Admission::new(trust(), Some(&older), |_| None);
        assert_eq!(verify(&admission, &image), Ok(()));
        taken(&admission).unwrap();
    }

    /// While root keys are replaced an image may carry the new ones, and the loader and the other slot the old ones.
    #[test]
    fn what_the_image_does_not_trust_and_the_loader_does_would_start() {
        let image = Image::new(Kind::System, "1.0", 2);
        let new = Trust {
            root: KeySet::new(KeyFormat::V1, 1, vec![TestKey(9).public()]).unwrap(),
            ..trust()
        };
        let said = HandOver {
            trust: Some(trust().digest()),
            floors: None,
            ..said()
        };
        let admission = Admission::new(new, Some(&said), |_| Some(trust()));
        assert_eq!(verify(&admission, &image), Ok(()));
        assert_eq!(admission.loaders().root, trust().root);
    }
}
