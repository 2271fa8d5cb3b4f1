//! What native frames are called, by the files that they are in.

use std::path::PathBuf;

use heaptide_capture::{Capture, NativeSymbol};
use heaptide_format::NO_MODULE;
use heaptide_symbols::{Symbol, Symbolizer};

/// Looks up what each native frame of a capture stands for.
pub(crate) fn name_native_frames(capture: &mut Capture) {
    let mut symbolizer = Symbolizer::new();
    let capture_nodes = &capture.native_nodes;
    let mut places: Vec<(u32, u64)> = (capture_nodes.iter())
        .filter(|(_, node)| node.module != NO_MODULE)
        .map(|(_, node)| (node.module, node.address))
        .collect();
    // All of a file together: whoever looks them up need not have many open.
    places.sort_unstable();
    places.dedup();
    for of_module in places.chunk_by(|one, next| one.0 == next.0) {
        let Some(module) = capture.modules.get(of_module[0].0) else {
            continue;
        };
        let name = capture.definitions.string(module.file_name);
        let Some(path) = name.filter(|name| !name.is_empty()).map(PathBuf::from) else {
            continue;
        };
        for &(number, address) in of_module {
            // The address is that of the next instruction.
            let before = address.wrapping_sub(1);
            let found = symbolizer.resolve(&path, module.known_build_id(), before);
            let functions = found.iter().map(native_symbol).collect();
            capture.symbols.insert(number, address, functions);
        }
    }
}

fn native_symbol(symbol: &Symbol) -> NativeSymbol {
    let file = symbol.file.clone();
    NativeSymbol {
        function: symbol.function.clone(),
        file: file.unwrap_or_else(|| "<unknown>".to_owned()),
        line: i32::try_from(symbol.line).unwrap_or_default(),
    }
}
