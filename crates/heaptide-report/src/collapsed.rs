//! `heaptide export collapsed`: one stack a line, as flame graph tools read them.

use std::io::{self, Write};

use heaptide_engine::{Location, Metric, NO_FILE, Profile, Stacks};

use crate::chains::Chains;
use crate::format::visible;

/// `outermost;…;innermost bytes`, frames as `function (file:line)`. A `;` in a name becomes `:`,
/// because the format has no escape.
///
/// # Errors
/// When writing fails.
pub fn collapsed_stacks(profile: &Profile, metric: Metric, out: &mut dyn Write) -> io::Result<()> {
    let chains = Chains::new(profile, metric);
    let names: Vec<String> = chains
        .stacks
        .locations
        .iter()
        .map(|&place| frame_text(chains.stacks, place))
        .collect();
    for (node, amount) in chains.iter().filter(|(_, amount)| amount.bytes > 0) {
        let mut separator = "";
        for location in chains.outermost_first(node) {
            write!(out, "{separator}{}", names[location.index()])?;
            separator = ";";
        }
        writeln!(out, " {}", amount.bytes)?;
    }
    Ok(())
}

fn frame_text(stacks: &Stacks, place: Location) -> String {
    let function = visible(stacks.text(place.function));
    let file = stacks.text(place.file);
    let text = if file == NO_FILE {
        function.into_owned()
    } else {
        format!("{function} ({}:{})", visible(file), place.line)
    };
    text.replace(';', ":")
}
