//! What native frames are called, by the files that they are in.

use std::fmt;
use std::path::{Path, PathBuf};

use heaptide_capture::{Capture, NativeSymbol, WarningKind, Warnings};
use heaptide_format::NO_MODULE;
use heaptide_symbols::{Problem, Symbol, Symbolizer};

const UNKNOWN: &str = "<unknown>";

/// Names native frames, of one capture or of several of the same program. Files that were opened stay open, and what was found is known.
#[derive(Default)]
pub struct NativeNames(Symbolizer);

impl NativeNames {
    /// Looks up what each native frame of a capture stands for. Where the file of a frame cannot be read, it stands for
    /// nothing; where the file does not know the address, for a function that is not known.
    pub fn find(&mut self, capture: &mut Capture) {
        name_native_frames(&mut self.0, capture);
    }
}

impl fmt::Debug for NativeNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NativeNames").finish_non_exhaustive()
    }
}

fn name_native_frames(symbolizer: &mut Symbolizer, capture: &mut Capture) {
    let mut places: Vec<(u32, u64)> = (capture.native_nodes.iter())
        .filter(|(_, node)| node.module != NO_MODULE)
        .map(|(_, node)| (node.module, node.address))
        .collect();
    places.sort_unstable();
    places.dedup();
    let mut warnings = Warnings::default();
    for of_module in places.chunk_by(|one, next| one.0 == next.0) {
        let Some(module) = capture.modules.get(of_module[0].0) else {
            warnings.add(WarningKind::DanglingReference, None, || {
                format!("module {} is named and is not there", of_module[0].0)
            });
            continue;
        };
        let name = capture.definitions.string(module.file_name);
        let Some(path) = name.filter(|name| !name.is_empty()).map(PathBuf::from) else {
            continue;
        };
        let build_id = module.known_build_id();
        for &(number, address) in of_module {
            // The address is that of the next instruction.
            let before = address.wrapping_sub(1);
            let found = symbolizer.resolve(&path, build_id, before);
            let functions = found.iter().map(native_symbol).collect();
            capture.symbols.insert(number, address, functions);
        }
        let mut problems = symbolizer.problems();
        if let Some((_, problem)) =
            problems.find(|(of, problem)| *of == path && is_of(problem, &path))
        {
            warnings.add(WarningKind::MissingSymbols, None, || {
                format!("native frames have no names: {problem}")
            });
            continue;
        }
        for &(number, address) in of_module {
            if capture.symbols.at(number, address).is_empty() {
                let unknown = NativeSymbol {
                    function: UNKNOWN.to_owned(),
                    file: UNKNOWN.to_owned(),
                    line: 0,
                };
                capture.symbols.insert(number, address, vec![unknown]);
            }
        }
    }
    capture.warnings.append(&mut warnings.into_vec());
}

/// Is it the module itself that cannot be read, rather than a file with more about it?
fn is_of(problem: &Problem, module: &Path) -> bool {
    match problem {
        Problem::Unreadable { path, .. }
        | Problem::NotAFile { path }
        | Problem::NotElf { path, .. }
        | Problem::NotLoadable { path }
        | Problem::OtherBuildId { path, .. } => path == module,
        _ => false,
    }
}

fn native_symbol(symbol: &Symbol) -> NativeSymbol {
    let file = symbol.file.clone();
    NativeSymbol {
        function: symbol.function.clone(),
        file: file.unwrap_or_else(|| UNKNOWN.to_owned()),
        line: i32::try_from(symbol.line).unwrap_or_default(),
    }
}
