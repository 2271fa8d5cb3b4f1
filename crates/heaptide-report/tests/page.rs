//! The HTML page: escaping, and whether a browser can draw it.

use std::path::Path;
use std::process::Command;

use heaptide_capture::{Capture, ProcessState};
use heaptide_engine::{Metric, Profile};
use heaptide_report::{FlamegraphOptions, flamegraph_html};
use heaptide_testkit::{CaptureBuilder, fixtures};

fn page(builder: &CaptureBuilder) -> String {
    let capture = Capture::from_bytes(&builder.build(), "test.tide").expect("readable");
    let profile = Profile::new(&capture);
    let liveness = capture.liveness_given(|| ProcessState::Gone);
    let mut out = Vec::new();
    let options = FlamegraphOptions {
        metric: Metric::Peak,
    };
    flamegraph_html(&capture, &profile, &liveness, options, &mut out)
        .expect("memory takes everything");
    String::from_utf8(out).expect("pages are UTF-8")
}

#[test]
fn hostile_names_stay_text() {
    let mut builder = fixtures::wide_tree(200, true);
    builder.metadata(
        heaptide_format::MetadataKey::CommandLine,
        "python\0\"><script>alert(1)</script>{{data}}\u{202e}\0".as_bytes(),
    );
    let html = page(&builder);
    assert!(html.contains("onerror=alert"), "the names are in the page");
    assert!(!html.contains("<img"), "and are not markup");
    assert_eq!(
        html.matches("</script>").count(),
        2,
        "only the page ends its scripts"
    );
    assert_eq!(html.matches("<script").count(), 2);
    let shown = |character: char| !character.is_control() || character == '\n';
    assert!(
        html.chars().all(shown),
        "control characters are shown as text"
    );
    assert!(
        !html.contains('\u{202e}'),
        "as are marks that turn text around"
    );
}

#[test]
fn the_page_needs_no_network() {
    let html = page(&fixtures::killed_service());
    assert!(html.contains("default-src 'none'"));
    for forbidden in ["http://", "https://", "<link rel=\"stylesheet", " src="] {
        assert!(!html.contains(forbidden), "{forbidden}");
    }
    assert!(!html.contains("{{"), "no placeholder is left");
}

/// The document after its scripts ran, or `None` without a browser.
fn rendered(html: &str, directory: &Path) -> Option<String> {
    let browser = ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find(|name| {
            std::env::var_os("PATH").is_some_and(|path| {
                std::env::split_paths(&path).any(|directory| directory.join(name).is_file())
            })
        })?;
    let file = directory.join("page.html");
    std::fs::write(&file, html).expect("the page can be written");
    let output = Command::new(browser)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--window-size=1000,700",
            "--dump-dom",
        ])
        .arg(format!(
            "--user-data-dir={}",
            directory.join("browser").display()
        ))
        .arg(format!("file://{}", file.display()))
        .output()
        .expect("the browser starts");
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Added to a page: uses it as a person would, and writes down what it then shows.
const USE: &str = r#"
<script>
(() => {
  const notes = [];
  const note = (name, id) => notes.push(name + ": " + document.getElementById(id).textContent.trim());
  const press = (key) => document.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  note("start", "detail");
  for (const key of ["ArrowDown", "ArrowDown", "ArrowDown", "ArrowRight"]) press(key);
  note("selected", "detail");
  press("Enter");
  note("path", "path");
  press("Escape");
  const search = document.getElementById("search");
  search.value = "/^(put|load_table) /";
  search.dispatchEvent(new Event("input"));
  note("matched", "matched");
  press("Escape");
  note("cleared", "matched");
  press("m");
  note("live", "detail");
  press("i");
  const canvas = document.getElementById("graph");
  const bounds = canvas.getBoundingClientRect();
  const event = { clientX: bounds.left + 20, clientY: bounds.bottom - 30, bubbles: true };
  canvas.dispatchEvent(new MouseEvent("mousemove", event));
  note("tooltip", "tooltip");
  canvas.dispatchEvent(new MouseEvent("click", event));
  note("clicked", "path");
  const result = document.createElement("pre");
  result.id = "result";
  result.textContent = notes.join("\n");
  document.body.append(result);
})();
</script>
</body>"#;

#[test]
fn a_browser_draws_and_follows_the_keys() {
    let directory = tempfile::tempdir().expect("a directory");
    let html = page(&fixtures::killed_service()).replace("</body>", USE);
    let Some(document) = rendered(&html, directory.path()) else {
        eprintln!("no browser on PATH: not tested");
        return;
    };
    assert!(
        document.contains("data-ready=\"true\""),
        "the script ran to its end"
    );
    let (_, rest) = document
        .split_once("<pre id=\"result\">")
        .expect("the page could be used");
    let (result, _) = rest.split_once("</pre>").expect("the result is whole");
    let expected = [
        "start: all     74.0 MiB (100.0%), 10 blocks",
        "selected: serve  /srv/app.py:14   6.00 MiB (8.1%), 6 blocks",
        "path: all&lt;module&gt;serve",
        "matched: 74.0 MiB (100.0%) in 2 frames",
        "cleared:",
        "live: all     70.0 MiB (100.0%), 8 blocks",
        "tooltip: &lt;module&gt;/srv/app.py:3total70.0 MiB100.0%own0 B0.0%blocks787.5%",
        "clicked: all&lt;module&gt;",
    ];
    assert_eq!(
        result.lines().map(str::trim_end).collect::<Vec<_>>(),
        expected
    );
}

#[test]
fn a_browser_draws_hostile_names_as_text() {
    let directory = tempfile::tempdir().expect("a directory");
    let Some(document) = rendered(&page(&fixtures::wide_tree(200, true)), directory.path()) else {
        eprintln!("no browser on PATH: not tested");
        return;
    };
    assert!(document.contains("data-ready=\"true\""));
    assert!(!document.contains("<img"));
}
