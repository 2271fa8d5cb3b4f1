//! How large a capture may get, and how much memory we may take.

use heaptide_e2e::{Capture, Sandbox, each, each_python, pythons_of, run};

const MIB: u64 = 1 << 20;

fn length(sandbox: &Sandbox) -> u64 {
    std::fs::metadata(sandbox.capture())
        .expect("a capture")
        .len()
}

#[test]
fn a_hundred_million_events_over_a_thousand_stacks() {
    // The file's size depends on the interpreter in nothing but line tables: three of them are enough
    each(pythons_of(&[9, 12, 14]), |python| {
        let sandbox = Sandbox::new(python);
        run(sandbox.profiled().arg(sandbox.inside("churn_lines.py"))).expect_success("churn");
        let capture = Capture::read(&sandbox.capture());
        let churn = capture.sum(|cell| {
            cell.stack
                .first()
                .is_some_and(|f| f.file == "<thousand lines>")
        });
        assert_eq!(
            (churn.allocated_count, churn.temporary_count),
            (50_000_000, 50_000_000)
        );
        let lines = capture.cells.iter().filter(|c| {
            c.stack
                .first()
                .is_some_and(|f| f.file == "<thousand lines>")
        });
        assert_eq!(lines.count(), 1000);
        assert!(length(&sandbox) <= MIB, "{} bytes", length(&sandbox));
    });
}

/// Peak RSS of a finished child, from the resource usage that the program prints itself.
fn printed_kib(finished: &heaptide_e2e::Finished) -> u64 {
    finished.text().trim().parse().expect("a number")
}

#[test]
fn a_million_live_blocks_cost_32_bytes_each() {
    each_python(|python| {
        let sandbox = Sandbox::new(python);
        let program = sandbox.inside("many_blocks.py");
        let plain = run(sandbox.plain().arg(&program).arg("1000000"));
        plain.expect_success("plain");
        let profiled = run(sandbox.profiled().arg(&program).arg("1000000"));
        profiled.expect_success("profiled");
        let added = (printed_kib(&profiled) << 10).saturating_sub(printed_kib(&plain) << 10);
        let bound = 8 * MIB + 32 * 1_000_000;
        assert!(added <= bound, "{added} bytes added, {bound} allowed");
        let capture = Capture::read(&sandbox.capture());
        let held = capture.sum(|cell| {
            cell.stack
                .first()
                .is_some_and(|f| f.line == sandbox.line("many_blocks.py", "held"))
        });
        assert!(held.live_count >= 1_000_000);
    });
}

#[test]
fn a_recursion_with_every_stack_distinct_keeps_its_budget() {
    each_python(|python| {
        let sandbox = Sandbox::new(python);
        let budget = 20_000;
        let mut command = sandbox.command(sandbox.heaptide());
        command
            .args([
                "run",
                "--aggregate",
                "-q",
                "-f",
                "--stack-budget",
                &budget.to_string(),
                "-o",
            ])
            .arg(sandbox.inside("capture.tide"))
            .arg("--python")
            .arg(&sandbox.python.path)
            .arg(sandbox.inside("fib_stacks.py"))
            .arg("22");
        run(&mut command).expect_success("fib");
        let capture = Capture::read(&sandbox.capture());
        // fib(22) by calls: 2 * F(23) - 1
        let calls = 57_313;
        let all = capture.sum(|cell| {
            cell.allocator == "MALLOC" && cell.counters.allocated_bytes.is_multiple_of(1000)
        });
        assert!(all.allocated_count >= calls, "{all:?}");
        let number = |key: &str| capture.own_cost[key].as_u64().unwrap();
        assert!(
            number("folded_stacks") + number("overflow_stacks") > 0,
            "{}",
            capture.own_cost
        );
        assert!(length(&sandbox) <= 16 * MIB, "{} bytes", length(&sandbox));
    });
}

#[test]
fn threads_that_are_gone_cost_nothing() {
    each_python(|python| {
        let sandbox = Sandbox::new(python);
        let program = sandbox.inside("many_threads.py");
        let plain = run(sandbox.plain().arg(&program));
        plain.expect_success("plain");
        let profiled = run(sandbox.profiled().arg(&program));
        profiled.expect_success("profiled");
        let growth =
            |finished: &heaptide_e2e::Finished| finished.text().trim().parse::<i64>().unwrap();
        let added = growth(&profiled) - growth(&plain);
        assert!(
            added < 256,
            "9,000 threads left {added} KiB of private memory"
        );
        // Each thread is one of its own: a record and a cell stay in the file
        assert!(
            length(&sandbox) <= 10_000 * 512,
            "{} bytes",
            length(&sandbox)
        );
        assert_eq!(Capture::read(&sandbox.capture()).status(), "finished");
    });
}
