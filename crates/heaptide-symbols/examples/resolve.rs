//! Says what is at addresses of a library, and what that cost: `resolve FILE ADDRESS...` in hexadecimal.

use std::path::Path;
use std::time::Instant;

use heaptide_symbols::Symbolizer;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, addresses @ ..] = &arguments[..] else {
        eprintln!("usage: resolve FILE ADDRESS...");
        std::process::exit(2);
    };
    let mut symbolizer = Symbolizer::new();
    for address in addresses {
        let Ok(number) = u64::from_str_radix(address.trim_start_matches("0x"), 16) else {
            eprintln!("{address} is not a hexadecimal number");
            std::process::exit(2);
        };
        let start = Instant::now();
        let found = symbolizer.resolve(Path::new(file), None, number);
        println!("{address}: {:?}", start.elapsed());
        for symbol in found {
            let file = symbol.file.as_deref().unwrap_or("?");
            println!("    {} {file}:{}", symbol.function, symbol.line);
        }
    }
    for (_, problem) in symbolizer.problems() {
        eprintln!("{problem}");
    }
}
