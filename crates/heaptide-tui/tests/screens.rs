//! Screens against files in `tests/golden`. `HEAPTIDE_UPDATE_GOLDEN=1` writes them anew.

use std::path::PathBuf;
use std::rc::Rc;

use heaptide_capture::Capture;
use heaptide_engine::{Metric, Profile};
use heaptide_format::Allocator;
use heaptide_testkit::{CaptureBuilder, Simulation, fixtures, linetable};
use heaptide_tui::{Action, Next, Options, SourceFile, Sources, State, Theme, render};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Modifier;

const PLAIN: Theme = Theme {
    color: false,
    unicode: true,
};

/// Sources as the tests want them: line N of any file says so.
struct Numbered;

impl Sources for Numbered {
    fn file(&mut self, name: &str) -> Option<Rc<SourceFile>> {
        let lines = (1..=60).map(|line| format!("    line {line} of the file = call(1)"));
        (!name.starts_with('<')).then(|| {
            Rc::new(SourceFile {
                lines: lines.collect(),
                changed: name.ends_with("cache.py"),
            })
        })
    }
}

struct Screen<'a> {
    state: State<'a>,
    terminal: Terminal<TestBackend>,
    theme: Theme,
}

impl<'a> Screen<'a> {
    fn new(profile: &'a Profile, width: u16, height: u16) -> Self {
        let options = Options {
            metric: Metric::Peak,
            biggest: 200,
            title: "python app.py --name='big one'".to_owned(),
        };
        Self::with(profile, width, height, options)
    }

    fn with(profile: &'a Profile, width: u16, height: u16, options: Options) -> Self {
        Self {
            state: State::new(profile, options),
            terminal: Terminal::new(TestBackend::new(width, height)).expect("in memory"),
            theme: PLAIN,
        }
    }

    fn press(&mut self, actions: &[Action]) -> &mut Self {
        for &action in actions {
            self.draw();
            assert_eq!(self.state.apply(action), Next::Go);
        }
        self
    }

    fn draw(&mut self) {
        let (state, theme) = (&mut self.state, self.theme);
        self.terminal
            .draw(|frame| {
                state.fit(frame.area());
                state.refresh(&mut Numbered);
                render(frame, state, theme);
            })
            .expect("in memory");
    }

    fn text(&mut self) -> String {
        self.draw();
        let buffer = self.terminal.backend().buffer();
        let mut text = String::new();
        for y in 0..buffer.area.height {
            let row = (0..buffer.area.width).map(|x| buffer[(x, y)].symbol());
            text.push_str(row.collect::<String>().trim_end());
            text.push('\n');
        }
        text
    }

    fn check(&mut self, name: &str) {
        let actual = self.text();
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("tests/golden")
            .join(name);
        if std::env::var_os("HEAPTIDE_UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &actual).expect("golden files can be written");
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(
            actual, expected,
            "{name}: run with HEAPTIDE_UPDATE_GOLDEN=1 if this is wanted"
        );
    }
}

fn profile_of(builder: &CaptureBuilder) -> Profile {
    Profile::new(&Capture::from_bytes(&builder.build(), "test.tide").expect("readable"))
}

/// A program under `python -m`, whose package is imported, and that allocates in both.
fn module_run() -> CaptureBuilder {
    let mut capture = CaptureBuilder::new();
    let main = capture.thread(4711, "python", "");
    let run = capture.function("_run_code", "<frozen runpy>", 80, 20);
    let program = capture.function("<module>", "/srv/app/__main__.py", 1, 20);
    let load = capture.function("_find_and_load", "<frozen importlib._bootstrap>", 1100, 20);
    let package = capture.function("<module>", "/srv/lib/big/__init__.py", 1, 20);
    let outer = capture.frame(0, run, 2);
    let top = capture.frame(outer, program, 3);
    let importing = capture.frame(top, load, 4);
    let inner_load = capture.frame(importing, load, 6);
    let imported = capture.frame(inner_load, package, 7);
    let mut simulation = Simulation::new();
    simulation.allocate(&mut capture, main, imported, Allocator::Malloc, 3 << 20);
    simulation.allocate(&mut capture, main, importing, Allocator::Malloc, 1 << 20);
    simulation.allocate(&mut capture, main, top, Allocator::Calloc, 1 << 20);
    capture
}

#[test]
fn the_largest_branch_is_open() {
    let profile = profile_of(&fixtures::killed_service());
    Screen::new(&profile, 80, 24).check("start-80x24.txt");
    Screen::new(&profile, 120, 30).check("start-120x30.txt");
    Screen::new(&profile, 40, 10).check("start-40x10.txt");
}

#[test]
fn no_size_of_the_screen_is_too_small() {
    let profile = profile_of(&fixtures::wide_tree(300, true));
    for width in [1, 2, 5, 17, 79, 99, 100, 101, 250] {
        for height in [1, 2, 3, 5, 6, 15, 16, 17, 60] {
            let mut screen = Screen::new(&profile, width, height);
            screen.press(&[
                Action::Last,
                Action::Help,
                Action::Cancel,
                Action::Search,
                Action::Letter('7'),
            ]);
            assert_eq!(screen.text().lines().count(), usize::from(height));
        }
    }
}

#[test]
fn the_selected_frame_is_described() {
    let profile = profile_of(&fixtures::killed_service());
    let mut screen = Screen::new(&profile, 120, 30);
    screen.press(&[Action::Move(3)]).check("load-table.txt");
    screen
        .press(&[Action::Move(1), Action::Open])
        .check("cache.txt");
}

#[test]
fn columns_are_underlined() {
    let profile = profile_of(&fixtures::killed_service());
    let mut screen = Screen::new(&profile, 120, 30);
    screen.press(&[Action::Move(3)]).draw();
    let buffer = screen.terminal.backend().buffer();
    let underlined: Vec<(u16, u16)> = (0..30)
        .flat_map(|y| (0..120).map(move |x| (x, y)))
        .filter(|&at| buffer[at].modifier.contains(Modifier::UNDERLINED))
        .collect();
    let wide = linetable::END_COLUMN - linetable::COLUMN;
    assert_eq!(underlined.len(), wide as usize);
    let row = underlined[0].1;
    assert!(underlined.iter().all(|&(_, y)| y == row));
    let text: String = (0..120).map(|x| buffer[(x, row)].symbol()).collect();
    assert!(text.contains(">31     line 31 of the file"), "{text}");
}

#[test]
fn opening_and_closing() {
    let profile = profile_of(&fixtures::killed_service());
    let mut screen = Screen::new(&profile, 80, 12);
    let rows = |screen: &mut Screen<'_>| -> Vec<String> {
        let text = screen.text();
        let rows = text.lines().skip(1).take(10);
        rows.filter(|row| !row.is_empty())
            .map(|row| row.get(18..).unwrap_or_default().trim().to_owned())
            .collect()
    };
    let open = rows(&mut screen);
    assert_eq!(open.len(), 6, "{open:?}");
    // Left closes what is open, then goes to the caller.
    screen.press(&[Action::Move(2), Action::Close]);
    assert_eq!(rows(&mut screen).len(), 5);
    screen.press(&[Action::Open]);
    assert_eq!(rows(&mut screen), open);
    screen.press(&[Action::Toggle, Action::Toggle]);
    assert_eq!(rows(&mut screen), open);
    // The whole chain, from the root on.
    screen.press(&[Action::First, Action::ToggleChain]);
    assert_eq!(rows(&mut screen).len(), 1);
    screen.press(&[Action::ToggleChain]);
    assert!(rows(&mut screen).len() >= 3);
}

#[test]
fn frames_are_hidden_and_nothing_is_lost() {
    let profile = profile_of(&module_run());
    let mut screen = Screen::new(&profile, 80, 14);
    screen.check("module.txt");
    screen
        .press(&[Action::ToggleImports])
        .check("module-without-imports.txt");
    screen
        .press(&[Action::ToggleImports, Action::ToggleUninteresting])
        .check("module-with-everything.txt");
}

#[test]
fn small_stacks_are_one_row() {
    let profile = profile_of(&fixtures::killed_service());
    let options = Options {
        metric: Metric::Allocated,
        biggest: 1,
        title: "app".to_owned(),
    };
    let mut screen = Screen::with(&profile, 100, 20, options);
    screen.press(&[Action::Last]).check("rest.txt");
    // The whole is the whole all the same.
    let text = screen.press(&[Action::First]).text();
    assert!(text.contains("peak       74.0 MiB in 10 blocks"), "{text}");
}

#[test]
fn metrics_and_order_can_be_changed() {
    let profile = profile_of(&fixtures::killed_service());
    let mut screen = Screen::new(&profile, 80, 12);
    let mut title = |action: Action| {
        let text = screen.press(&[action]).text();
        text.lines().next().unwrap_or_default().to_owned()
    };
    assert!(title(Action::Metric(1)).starts_with(" live: 70.0 MiB in 8 blocks"));
    assert!(title(Action::NextMetric).starts_with(" allocated: 76.4 MiB in 112 blocks"));
    assert!(title(Action::Metric(3)).starts_with(" temporary: 400 KiB in 100 blocks"));
    assert!(title(Action::NextMetric).starts_with(" peak: 74.0 MiB in 10 blocks"));
    assert!(title(Action::NextSort).starts_with(" peak, by blocks: "));
}

#[test]
fn searching() {
    let profile = profile_of(&fixtures::killed_service());
    let mut screen = Screen::new(&profile, 80, 24);
    let typed = [Action::Search, Action::Letter('P'), Action::Letter('u')];
    screen.press(&typed).check("search.txt");
    let footer = |screen: &mut Screen<'_>| screen.text().lines().last().unwrap_or("").to_owned();
    screen.press(&[Action::Erase, Action::Erase, Action::Letter('v')]);
    assert!(
        footer(&mut screen).starts_with("/v  1 of 5"),
        "{}",
        footer(&mut screen)
    );
    screen.press(&[Action::Accept, Action::NextMatch]);
    assert!(footer(&mut screen).starts_with("/v  2 of 5"));
    screen.press(&[Action::PreviousMatch, Action::PreviousMatch]);
    assert!(footer(&mut screen).starts_with("/v  5 of 5"));
    screen.press(&[Action::Cancel, Action::Search, Action::Letter('€')]);
    assert!(footer(&mut screen).starts_with("/€  not found"));
    screen.press(&[Action::Cancel]);
    assert!(footer(&mut screen).starts_with(" q quit"));
}

#[test]
fn help_covers_the_tree() {
    let profile = profile_of(&fixtures::killed_service());
    let mut screen = Screen::new(&profile, 80, 24);
    screen.press(&[Action::Help]).check("help.txt");
    // Any key closes it and does nothing else.
    screen.press(&[Action::Last]).check("start-80x24.txt");
}

#[test]
fn ascii_terminals_get_ascii() {
    let profile = profile_of(&fixtures::killed_service());
    for (width, height) in [(80, 24), (120, 30)] {
        let mut screen = Screen::new(&profile, width, height);
        screen.theme.unicode = false;
        assert!(screen.text().is_ascii(), "{}", screen.text());
    }
}

#[test]
fn colours_are_an_addition() {
    let profile = profile_of(&fixtures::killed_service());
    let mut plain = Screen::new(&profile, 120, 30);
    let mut colored = Screen::new(&profile, 120, 30);
    colored.theme.color = true;
    assert_eq!(plain.text(), colored.text());
    let has_colors = |screen: &Screen<'_>| {
        let cells = screen.terminal.backend().buffer().content.iter();
        cells
            .clone()
            .any(|cell| cell.fg != ratatui::style::Color::Reset)
    };
    assert!(has_colors(&colored) && !has_colors(&plain));
}

#[test]
fn a_capture_of_nothing() {
    let profile = profile_of(&CaptureBuilder::new());
    let mut screen = Screen::new(&profile, 80, 24);
    let everything = [
        Action::Move(5),
        Action::Open,
        Action::Close,
        Action::ToggleChain,
        Action::NextMatch,
        Action::MovePages(-3),
        Action::NextMetric,
    ];
    screen.press(&everything);
    assert!(screen.text().contains("(all)"));
}

#[test]
fn quit_and_suspend() {
    let profile = profile_of(&fixtures::tiny());
    let mut screen = Screen::new(&profile, 80, 24);
    assert_eq!(screen.state.apply(Action::Suspend), Next::Suspend);
    screen.press(&[Action::Help]);
    assert_eq!(screen.state.apply(Action::Quit), Next::Quit);
}
