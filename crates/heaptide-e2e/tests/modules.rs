//! Modules are named as the program imports them, wherever `sys.path` has them from.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use heaptide_e2e::{Mode, Sandbox, Stretches, each_python, run, stats};
use serde_json::Value;

/// What a module allocates, in bytes.
const SIZE: u64 = 3_000_007;
/// Each makes one block when it is called; the last one is in a directory whose name is no text.
const MODULES: [(&[u8], &str); 4] = [
    (b"lib/package/part/store.py", "package"),
    (b"lib/plain.py", "plain"),
    (b"lib/nested/inner/store.py", "inner"),
    (b"lib-\xff/odd/store.py", "odd"),
];
/// They go by these names, and what a name is there for is in `held`.
const PROGRAM: &str = "\
import package.part.store, plain, inner.store, odd.store
held = [module.make() for module in (package.part.store, plain, inner.store, odd.store)]
";

/// Makes the modules and says where they are looked for: an entry of `sys.path` may lie within another.
fn search_path(sandbox: &Sandbox) -> OsString {
    for (path, _) in MODULES {
        let path = sandbox.outside(OsString::from_vec(path.to_vec()));
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("directories");
        // Not by Python, which may have its objects elsewhere.
        let source = format!("import bare\ndef make():\n    return bare.malloc({SIZE})\n");
        std::fs::write(path, source).expect("a module");
    }
    let entries = [&b""[..], b"lib", b"lib/nested", b"lib-\xff"]
        .map(|name| sandbox.inside(OsString::from_vec(name.to_vec())));
    std::env::join_paths(entries).expect("no colon")
}

/// Every module has its block, and has it by its own name.
#[track_caller]
fn check(capture: &Path, what: &str) {
    let stats = stats(capture);
    let metadata = &stats["metadata"];
    let modules = stats["top_modules_by_allocation_size"]
        .as_array()
        .unwrap_or_else(|| panic!("{what}: {metadata}"));
    let named = |name: &str| {
        let found: Vec<&Value> = modules.iter().filter(|row| row["module"] == name).collect();
        assert_eq!(found.len(), 1, "{what}: {name} in {modules:?}");
        found[0]["total_bytes"].as_u64().expect("a number")
    };
    for (_, name) in MODULES {
        let bytes = named(name);
        // And what its own import takes.
        assert!(
            (SIZE..SIZE * 3 / 2).contains(&bytes),
            "{what}: {name} has {bytes}"
        );
    }
}

/// The captures of children that were forked, beside that of their parent.
fn children(directory: &Path, name: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).expect("the sandbox");
    entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| {
            let text = path.file_name().expect("a name").to_string_lossy();
            text.starts_with(&format!("{name}."))
        })
        .collect()
}

#[test]
fn of_a_program_and_of_its_forked_child() {
    each_python(|python| {
        let sandbox = Sandbox::new(python);
        let path = search_path(&sandbox);
        let program = format!(
            "{PROGRAM}\
             import os, sys\n\
             sys.path.clear()\n\
             child = os.fork()\n\
             if child == 0:\n    \
                 held = [module.make() for module in (package.part.store, plain, inner.store, odd.store)]\n\
             else:\n    \
                 os.waitpid(child, 0)\n"
        );
        std::fs::create_dir(sandbox.outside("bin")).expect("a directory");
        std::fs::write(sandbox.outside("bin/program.py"), program).expect("a program");
        let mut command = sandbox.profiled_with(&["--follow-fork"]);
        command
            .env("PYTHONPATH", path)
            .arg(sandbox.inside("bin/program.py"));
        run(&mut command).expect_success(&python.version());

        check(&sandbox.capture(), &python.version());
        let children = children(&sandbox.outside(""), "capture.tide");
        assert_eq!(children.len(), 1, "{children:?}");
        check(&children[0], &format!("{}, the child", python.version()));
    });
}

#[test]
fn of_a_program_that_tracks_itself_with_odd_things_in_its_path() {
    each_python(|python| {
        let sandbox = Sandbox::new(python);
        let path = search_path(&sandbox);
        let code = format!(
            "import stretch, sys\n\
             before = list(sys.path)\n\
             kinds = [3, None, '\\ud800', 'x' * 40000, b'bytes'] + before\n\
             for number, entries in enumerate([kinds, 7, None]):\n    \
                 sys.path = entries\n    \
                 if entries is None: del sys.path\n    \
                 assert stretch.start(f'{{number}}.tide') == 0\n    \
                 sys.path = before\n    \
                 exec({PROGRAM:?})\n    \
                 assert stretch.stop() == 0\n"
        );
        let mut command = sandbox.tracking_itself(&Stretches::of(Mode::All, 3));
        command.env("PYTHONPATH", path).arg("-c").arg(code);
        run(&mut command).expect_success(&python.version());

        check(&sandbox.stretch(0), &python.version());
        for number in [1, 2] {
            let read = heaptide_capture::Capture::open(sandbox.stretch(number));
            let read = read.expect("a capture");
            assert!(read.warnings.is_empty(), "{:?}", read.warnings);
            assert_eq!(read.metadata.search_path(), [""; 0]);
        }
    });
}
