//! A thousand SIGKILLs at random instants of a storm of allocations: a thousand good captures.
//!
//! The storm's threads count every event in a page of their own that survives them; the capture must
//! say the same, at most the one event apart that a thread was in the middle of.

use std::io::Read;
use std::process::Stdio;
use std::time::Duration;

use heaptide_e2e::{
    Capture, Cell, Counters, Page, PageCounters, Sandbox, Stretches, kill, kill_stranger, modes,
    pythons,
};

/// Twice as many as each of the tests has, spread over the interpreters.
const KILLS: usize = 1000;
/// Threads of `storm.py`: three of Python's and two of C's.
const THREADS: usize = 5;

#[derive(Clone, Copy, PartialEq)]
enum Victim {
    /// The supervisor lives on and writes down what it saw.
    Program,
    /// Nobody is left: the capture alone tells all.
    Everyone,
    /// The program tracks itself, so there is nobody else.
    Itself,
}

/// Without the GIL a thread that lets go of another's object puts it on a list for that one, and the interpreter makes the list then,
/// by `malloc`, on whatever line the thread is: `_PyObjectStackChunk`, bytes.
const HANDED_OVER: u64 = 2048;

/// What was captured without one block of so many bytes.
fn without(seen: Counters, bytes: u64) -> Counters {
    Counters {
        allocated_count: seen.allocated_count.wrapping_sub(1),
        allocated_bytes: seen.allocated_bytes.wrapping_sub(bytes),
        ..seen
    }
}

/// Does the capture have what the thread has counted, and at most the one event more that it was in the middle of?
fn agrees(seen: Counters, truth: PageCounters) -> bool {
    let within = |seen: u64, completed: u64, under_way: u64| {
        seen == completed || (under_way > 0 && seen == completed + under_way)
    };
    let one = u64::from(truth.pending_allocation > 0);
    let under_way = truth.pending_allocation;
    let count = within(seen.allocated_count, truth.allocated_count, one);
    let bytes = within(seen.allocated_bytes, truth.allocated_bytes, under_way);
    // Between the two stores of the page, count and pending may overlap by one event
    let overlap = seen.allocated_count == truth.allocated_count
        && seen.allocated_bytes == truth.allocated_bytes + under_way;
    (count && bytes) || overlap
}

/// One storm, one kill, one comparison.
fn kill_once(sandbox: &Sandbox, seed: u64, victim: Victim) -> Result<(), String> {
    let page_path = sandbox.outside("page");
    let _ = std::fs::remove_file(&page_path);
    let modes = modes();
    let mode = modes[seed as usize % modes.len()];
    // With and without the storm's requests to Python's allocators
    let python_allocators = seed / modes.len() as u64 % 2 == 1;
    let native = seed / modes.len() as u64 / 2 % 2 == 1;
    let mut command = match victim {
        Victim::Program | Victim::Everyone => sandbox.profiled_in(mode),
        Victim::Itself => sandbox.tracking_itself(&Stretches {
            captures: vec![(mode, python_allocators)],
            whole: true,
            memory_interval_ms: 1,
            native,
            ..Stretches::of(mode, 0)
        }),
    };
    if python_allocators && victim != Victim::Itself {
        command.arg("--trace-python-allocators");
    }
    if native && victim != Victim::Itself {
        command.arg("--native");
    }
    command
        .arg(sandbox.inside("storm.py"))
        .arg(sandbox.inside("page"))
        .args([&seed.to_string(), "0"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("heaptide");
    let mut word = [0; 6];
    let output = child.stdout.as_mut().expect("piped");
    if output.read_exact(&mut word).is_err() {
        let mut text = String::new();
        let _ = child
            .stderr
            .take()
            .expect("piped")
            .read_to_string(&mut text);
        let _ = child.wait();
        return Err(format!("the storm never began: {text}"));
    }
    // The instant to die at: nothing is waited for here
    std::thread::sleep(Duration::from_micros(
        seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) % 100_000,
    ));
    let program = i32::try_from(Page::read(&page_path).expect("a page").pid).expect("a pid");
    if victim == Victim::Everyone {
        kill(i32::try_from(child.id()).expect("a pid"), libc::SIGKILL);
    }
    kill_stranger(program);
    // The pipes of the program close when the last of it is gone
    let mut rest = Vec::new();
    let _ = child.stdout.take().expect("piped").read_to_end(&mut rest);
    let mut errors = String::new();
    let _ = child
        .stderr
        .take()
        .expect("piped")
        .read_to_string(&mut errors);
    let status = child.wait().expect("wait");
    if std::os::unix::process::ExitStatusExt::signal(&status) != Some(libc::SIGKILL) {
        return Err(format!("heaptide ended with {status}: {errors}"));
    }

    let page = Page::read(&page_path).expect("a page");
    // Inside, where the files are that native frames are named by.
    let name = match victim {
        Victim::Program | Victim::Everyone => "capture.tide",
        Victim::Itself => "0.tide",
    };
    let capture = Capture::read_inside(sandbox, name, |_| true);
    let in_storm = |cell: &&Cell| cell.stack.iter().any(|frame| frame.function == "ht_storm");
    if native && !capture.cells.iter().any(|cell| in_storm(&cell)) {
        return Err("no native stacks".to_owned());
    }
    let capture = capture.without_native_frames();
    let told = capture.lifecycle["status_text"]
        .as_str()
        .unwrap_or_default();
    if capture.status() != "died" || (victim == Victim::Program) != told.contains("SIGKILL") {
        return Err(format!("status: {}", capture.lifecycle));
    }
    let mut live = (0, 0);
    let mut pending = (0, 0);
    let mut handed_over = 0;
    for (number, truth) in page.counters.iter().take(THREADS).enumerate() {
        // Python's threads allocate on a line of the program; C's have no stack
        let seen: Counters = capture.sum(|cell| {
            u64::from(cell.thread_id) == truth.thread_id
                && cell.domain.is_none()
                && match cell.stack.first() {
                    Some(frame) => {
                        number < 3
                            && frame.function == "first"
                            && cell.stack[1].function == if number == 0 { "run" } else { "second" }
                    }
                    None => number >= 3,
                }
        });
        let may_hand_over = sandbox.python.free_threaded && number < 3;
        if may_hand_over && !agrees(seen, *truth) && agrees(without(seen, HANDED_OVER), *truth) {
            handed_over += 1;
        } else if !agrees(seen, *truth) {
            return Err(format!("thread {number}: {truth:?}, captured {seen:?}"));
        }
        let signed = |value: u64| i64::try_from(value).expect("small");
        live.0 += seen.live_bytes - (signed(truth.allocated_bytes) - signed(truth.freed_bytes));
        live.1 += seen.live_count - (signed(truth.allocated_count) - signed(truth.freed_count));
        pending.0 += signed(truth.pending_allocation);
        pending.1 += signed(truth.pending_free);
    }
    let threads = i64::try_from(THREADS).expect("small");
    // Whoever has been handed an object gives the memory back, if it comes to that.
    let is_right = |kept: u64| {
        let kept = i64::try_from(kept).expect("small");
        let bytes = live.0 - kept * i64::try_from(HANDED_OVER).expect("small");
        bytes <= pending.0 && bytes >= -pending.1 && (live.1 - kept).abs() <= threads
    };
    if !(0..=handed_over).any(is_right) {
        return Err(format!(
            "live differs by {live:?}, under way were {pending:?} bytes"
        ));
    }
    Ok(())
}

fn kill_many(victim: Victim) {
    let each = KILLS / 2 / pythons().len() + 1;
    let base = std::process::id().into();
    println!("seeds {base} and up, {each} for each interpreter");
    let mut failures = Vec::new();
    for python in pythons() {
        let sandbox = Sandbox::new(python);
        for number in 0..each {
            let seed = u64::wrapping_add(base, number as u64);
            if let Err(error) = kill_once(&sandbox, seed, victim) {
                failures.push(format!("Python {}, seed {seed}: {error}", python.version()));
                if failures.len() > 20 {
                    panic!("more than 20 bad captures\n{}", failures.join("\n"));
                }
            }
        }
    }
    let all = each * pythons().len();
    assert!(
        failures.is_empty(),
        "{} of {all} captures\n{}",
        failures.len(),
        failures.join("\n")
    );
}

#[test]
fn the_program_is_killed() {
    kill_many(Victim::Program);
}

#[test]
fn the_supervisor_is_killed_too() {
    kill_many(Victim::Everyone);
}

#[test]
fn a_program_is_killed_that_tracks_itself() {
    kill_many(Victim::Itself);
}
