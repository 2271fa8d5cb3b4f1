//! Frames that most readers do not want to see.

use heaptide_engine::{LocationId, Stacks};

/// Whether a frame is of the import system.
pub(super) fn is_import_system(stacks: &Stacks, location: LocationId) -> bool {
    let file = stacks.text(stacks.locations[location.index()].file);
    file.starts_with("<frozen importlib")
        || file.ends_with("/importlib/_bootstrap.py")
        || file.ends_with("/importlib/_bootstrap_external.py")
}

/// Whether a frame is there in every program that was started in some way (`python -m`).
pub(super) fn is_uninteresting(stacks: &Stacks, location: LocationId) -> bool {
    let file = stacks.text(stacks.locations[location.index()].file);
    file == "<frozen runpy>" || file.ends_with("/runpy.py")
}
