//! The page of a run, in a real browser: while it trains, before anybody came, after its end.

use std::fs::{self, File, Permissions};
use std::io::Cursor;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{env, thread};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use pserver_cli::exit::Exit;
use pserver_ledger::ledger_file::LEDGER_FILE;
use pserver_ledger::record::{Phases, Start, TowerRecord};
use pserver_ledger::{Commit, LedgerFile, Line, Record};
use pserver_run::{ExamplesDigest, GlobalStep, StateDigest, Tower, TowerStep};
use pserver_server::args::RunArgs;
use pserver_server::config::new_run;
use pserver_state::checkpoint;
use rustix::process::{Pid, Signal};

use crate::browser::{Browser, Screen};
use crate::cluster::{Cluster, NUM_STEPS};
use crate::http;
use crate::ledger::slow_down;
use crate::program::{DEADLINE, EVAL, LAUNCHER, Program, SERVER, WORKER, command, eventually};

const SCREEN: Screen = Screen {
    width: 1400,
    height: 900,
    colours: "light",
};

/// A run that goes on for as long as it is looked at.
const WITHOUT_END: u64 = 1_000_000;

/// The loss as a line through at least ten points, wide enough to be one.
const SHOWS_CURVE: &str = "(() => {
    const curve = document.querySelector('#loss .curve');
    const points = curve?.getAttribute('d').match(/[ML]/g) ?? [];
    return points.length > 10 && curve.getBBox().width > 200;
})()";

/// Where the page of a server is, which it has said in its second line.
fn page_of(server: &Program) -> String {
    let address = server.wait_for("http ADDR", |program| {
        let stdout = program.stdout();
        let line = stdout.lines().find_map(|line| line.strip_prefix("http "));
        line.map(str::to_owned)
    });
    format!("http://{address}/")
}

/// `cifar-ps view` of a train dir, and where its page is.
fn view(train_dir: &Path) -> (Program, String) {
    let mut command = command(SERVER);
    let program = Program::start(command.args(["view", "--train-dir"]).arg(train_dir));
    let url = page_of(&program);
    (program, url)
}

/// Keeps a picture of what is seen where the tests are asked to, and gives it.
fn picture(browser: &mut Browser, name: &str) -> Picture {
    let png = browser.screenshot();
    if let Some(folder) = env::var_os("CIFAR_PAGE_PICTURES") {
        fs::write(PathBuf::from(folder).join(name), &png).expect("a picture can be kept");
    }
    Picture::of(&png)
}

/// What a person would see.
struct Picture {
    width: usize,
    pixels: Vec<[u8; 3]>,
}

impl Picture {
    fn of(png: &[u8]) -> Self {
        let mut decoder = png::Decoder::new(Cursor::new(png));
        decoder.set_transformations(png::Transformations::normalize_to_color8());
        let mut reader = decoder.read_info().unwrap();
        let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut bytes).unwrap();
        let pixels = bytes[..info.buffer_size()].chunks(info.color_type.samples());
        Picture {
            width: info.width as usize,
            pixels: pixels.map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect(),
        }
    }

    /// Columns of a part of the picture in which a colour is, or one close to it.
    fn columns_with(
        &self,
        colour: [u8; 3],
        left_top: [usize; 2],
        right_bottom: [usize; 2],
    ) -> usize {
        let is_close = |pixel: &[u8; 3]| {
            let distances = pixel
                .iter()
                .zip(colour)
                .map(|(one, other)| one.abs_diff(other));
            distances.max().is_some_and(|distance| distance < 24)
        };
        let column = |x: usize| {
            (left_top[1]..right_bottom[1]).any(|y| is_close(&self.pixels[y * self.width + x]))
        };
        (left_top[0]..right_bottom[0])
            .filter(|x| column(*x))
            .count()
    }
}

/// Where an element is on the screen: left, top, right, bottom.
fn place_of(browser: &mut Browser, selector: &str) -> [usize; 4] {
    let expression = format!(
        "(() => {{ const place = document.querySelector({selector:?}).getBoundingClientRect();
            return [place.left, place.top, place.right, place.bottom].map(Math.round); }})()"
    );
    let place = browser.evaluate(&expression);
    [0, 1, 2, 3].map(|side| place[side].as_u64().expect("it is on the screen") as usize)
}

#[test]
fn a_run_is_seen_as_it_goes_and_so_is_who_is_slow() {
    let mut cluster = Cluster::builder()
        .towers(4)
        .workers(4)
        .max_steps(WITHOUT_END)
        .server_flags(&["--http", "127.0.0.1:0"])
        .start();
    let url = page_of(&cluster.server.program);
    let Some(mut browser) = Browser::open(&url, SCREEN) else {
        return;
    };
    for worker in &cluster.workers {
        worker.wait_until_said("registered");
    }
    let slow = cluster.workers[2].id();
    let process = Pid::from_raw(slow as i32).unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let let_go = LetGo(&is_over);
        scope.spawn(|| slow_down(process, &is_over));
        browser.wait_until(SHOWS_CURVE);
        let named = format!(
            "[...document.querySelectorAll('.lane.slow')].map(lane => lane.innerText).join().includes('/{slow}')"
        );
        browser.wait_until(&named);
        browser.wait_until("Number(document.body.dataset.drawnStep) >= 60");
        let drawn = browser.evaluate("document.body.dataset.drawnStep");
        let further = format!("document.body.dataset.drawnStep !== {drawn}");
        browser.wait_until(&further);

        let [left, top, right, bottom] = place_of(&mut browser, "#loss .plot");
        let seen = picture(&mut browser, "training.png");
        // Blue, as --compute in style.css: the curve crosses the plot, whose margins are 60 pixels.
        let columns = seen.columns_with([47, 111, 222], [left, top], [right, bottom]);
        assert!(
            columns > (right - left - 60) * 3 / 4,
            "{columns} columns of a curve"
        );

        browser.look_like(Screen {
            colours: "dark",
            ..SCREEN
        });
        let dark = picture(&mut browser, "dark.png");
        assert!(
            dark.pixels[dark.width * 890 + 5]
                .iter()
                .all(|part| *part < 40)
        );
        drop(let_go);
    });
    assert_eq!(browser.text("#state").trim(), "training");
    for words in ["4", "straggler"] {
        let tiles = browser.text("#tiles");
        assert!(tiles.contains(words), "{words:?} is not in {tiles}");
    }
    cluster.stop_server();
    browser.wait_until("document.querySelector('#state').innerText.trim() === 'stopped'");
}

/// Lets the process that slows a worker down go, also when the test fails.
struct LetGo<'a>(&'a AtomicBool);

impl Drop for LetGo<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_run_that_nobody_has_come_to_says_so() {
    let cluster = Cluster::builder()
        .workers(0)
        .server_flags(&["--http", "127.0.0.1:0"])
        .start();
    let url = page_of(&cluster.server.program);
    let Some(mut browser) = Browser::open(&url, SCREEN) else {
        return;
    };
    browser.wait_until("document.querySelector('#state').innerText === 'waits for workers'");
    assert_eq!(browser.evaluate(SHOWS_CURVE), false);
    let page = browser.text("main");
    for words in [
        "The curve begins with the first step",
        "No worker has registered yet",
        "a server started at step 0",
        "synthetic:512",
    ] {
        assert!(page.contains(words), "{words:?} is not in {page}");
    }
    // The checkpoint that pins the run has a first layer already.
    browser.wait_until("document.querySelector('#filters').naturalWidth === 95");
    picture(&mut browser, "empty.png");
}

#[test]
fn a_run_that_is_over_is_shown_from_its_train_dir_on_any_screen() {
    let mut cluster = Cluster::builder().workers(2).start();
    cluster.finish();
    let scores = cluster.train_dir().join("eval");
    fs::create_dir(&scores).unwrap();
    fs::write(
        scores.join("scores.jsonl"),
        "{\"global_step\":20,\"precision_at_1\":0.25}\n{\"global_step\":40,\"precision_at_1\":0.375}\n",
    )
    .unwrap();
    let (mut program, url) = view(cluster.train_dir());
    let Some(mut browser) = Browser::open(&url, SCREEN) else {
        return;
    };
    browser.wait_until(SHOWS_CURVE);
    assert_eq!(browser.text("#state"), "complete");
    let page = browser.text("main");
    for words in ["0.3750", "the server left: complete", "worker 0"] {
        assert!(page.contains(words), "{words:?} is not in {page}");
    }
    assert_eq!(
        browser.evaluate("document.body.dataset.drawnStep"),
        NUM_STEPS.to_string()
    );
    picture(&mut browser, "ended.png");

    browser.look_like(Screen {
        width: 390,
        height: 844,
        ..SCREEN
    });
    browser.wait_until("document.documentElement.scrollWidth === 390");
    browser.wait_until("document.querySelector('#loss .plot').clientWidth < 390");
    picture(&mut browser, "narrow.png");

    program.signal(Signal::TERM);
    assert_eq!(program.wait(), Exit::Terminated);
    browser.wait_until("document.querySelector('#activity').innerText === 'server stopped'");
    let requests = http::refuse_all(address_of(&url));
    let request = requests.recv_timeout(Duration::from_secs(5));
    assert!(request.is_err(), "asks again: {request:?}");
}

/// Pieces of text that stick out of the screen, or of what cuts them off.
const CUT: &str = "(() => {
    const cut = [];
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
        const { data, parentElement } = texts.currentNode;
        if (!data.trim() || parentElement.closest('[hidden], svg, script, noscript')) continue;
        const range = document.createRange();
        range.selectNodeContents(texts.currentNode);
        const text = range.getBoundingClientRect();
        for (let box = parentElement; box; box = box.parentElement) {
            const style = getComputedStyle(box);
            const cuts = box === document.body || style.overflowX !== 'visible' || /content|paint/.test(style.contain);
            const { left, right } = box.getBoundingClientRect();
            if (cuts && (text.left < left - 1 || text.right > right + 1 || box.scrollWidth > box.clientWidth + 1)) {
                cut.push(data);
                break;
            }
        }
    }
    return [...new Set(cut)].join(' | ');
})()";

#[test]
fn no_text_is_cut_on_any_screen() {
    let long = "a-train-dir-with-a-name-that-somebody-took-his-time-for".repeat(2);
    let scratch = tempfile::tempdir().unwrap();
    let train_dir = scratch.path().join(long);
    fs::create_dir(&train_dir).unwrap();
    let host = "worker-of-a-long-name.with-a-longer-domain.rack-0123456789.example.com/1234567";
    write_ledger(
        &train_dir,
        |number| format!("{host}{number}"),
        4,
        1_700_000_000_000_000,
    );
    let (mut program, url) = view(&train_dir);
    let Some(mut browser) = Browser::open(&url, SCREEN) else {
        return;
    };
    browser.wait_until("document.querySelectorAll('.lane:not(.axis)').length === 4");
    program.signal(Signal::TERM);
    assert_eq!(program.wait(), Exit::Terminated);
    browser.wait_until("document.querySelector('#again').hidden === false");
    for (width, height) in [(1280, 1900), (768, 2300), (390, 3600)] {
        for colours in ["light", "dark"] {
            browser.look_like(Screen {
                width,
                height,
                colours,
            });
            browser.wait_until(&format!("document.documentElement.clientWidth === {width}"));
            assert_eq!(browser.evaluate(CUT), "", "at {width} pixels");
        }
    }
}

#[test]
fn the_loss_is_called_what_it_is() {
    let train_dir = tempfile::tempdir().unwrap();
    write_crowded_ledger(train_dir.path(), 2);
    let (_program, url) = view(train_dir.path());
    let Some(mut browser) = Browser::open(&url, SCREEN) else {
        return;
    };
    browser.wait_until(SHOWS_CURVE);
    for part in ["#tiles .tile", "#loss figcaption"] {
        let said = browser.text(part);
        assert!(
            said.contains("Total loss") && said.contains("weight decay"),
            "{part}: {said}"
        );
    }
}

#[test]
fn a_ledger_at_the_end_of_all_times_and_steps_is_drawn() {
    let train_dir = tempfile::tempdir().unwrap();
    write_ledger(
        train_dir.path(),
        |number| format!("host/{number}"),
        2,
        u64::MAX - 100,
    );
    let (_program, url) = view(train_dir.path());
    let Some(mut browser) = Browser::open(&url, SCREEN) else {
        return;
    };
    browser.wait_until("document.querySelectorAll('#settings > div').length > 5");
    browser.wait_until(SHOWS_CURVE);
    assert!(browser.text("#events").contains("a server started"));
}

/// Where a page of the server is, without what makes it a URL.
fn address_of(url: &str) -> &str {
    url.trim_start_matches("http://").trim_end_matches('/')
}

/// Pictures on the page that can be seen: the samples, and the filters.
const PICTURES: &str = "[...document.querySelectorAll('#samples img, #filters')]
    .filter(picture => !picture.hidden && picture.naturalWidth > 0).length";

/// Three pictures of one colour in the train dir, in the place of what a worker sends.
fn draw_samples(train_dir: &Path) {
    let images = train_dir.join("images");
    fs::create_dir_all(&images).unwrap();
    for (number, level) in [40, 120, 200].into_iter().enumerate() {
        let mut png = Vec::new();
        let mut encoder = png::Encoder::new(&mut png, 24, 24);
        encoder.set_color(png::ColorType::Rgb);
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(&[level; 24 * 24 * 3]).unwrap();
        writer.finish().unwrap();
        fs::write(images.join(format!("{number}.png")), png).unwrap();
    }
}

/// A run of which the page was open from before its first step to its end, and its page.
fn seen_to_its_end() -> Option<(Cluster, String, Browser)> {
    let mut cluster = Cluster::builder()
        .workers(0)
        .server_flags(&["--http", "127.0.0.1:0", "--summary-steps", "0"])
        .start();
    let url = page_of(&cluster.server.program);
    let mut browser = Browser::open(&url, SCREEN)?;
    browser.wait_until("document.querySelector('#state').innerText === 'waits for workers'");
    draw_samples(cluster.train_dir());
    cluster.add_worker(&[]);
    cluster.finish();
    browser.wait_until("document.querySelector('#state').innerText === 'complete'");
    Some((cluster, url, browser))
}

#[test]
fn the_last_pictures_reach_the_page_before_the_server_leaves() {
    let Some((cluster, _, mut browser)) = seen_to_its_end() else {
        return;
    };
    let last = format!("checkpoint of step {NUM_STEPS}");
    browser.wait_until(&format!(
        "document.querySelector('#filters-step').innerText === {last:?}"
    ));
    browser.wait_until(&format!("{PICTURES} === 4"));
    let newest = fs::read(cluster.train_dir().join("images/2.png")).unwrap();
    let newest = BASE64_STANDARD.encode(newest);
    browser.wait_until(&format!(
        "document.querySelectorAll('#samples img')[2].src.endsWith({newest:?})"
    ));
}

#[test]
fn a_page_that_was_told_the_end_asks_no_more_and_says_how_to_see_the_run_again() {
    let Some((cluster, url, mut browser)) = seen_to_its_end() else {
        return;
    };
    let requests = http::refuse_all(address_of(&url));
    browser.wait_until("document.querySelector('#activity').innerText === 'server stopped'");
    // Longer than a page that asks again ever waited.
    let request = requests.recv_timeout(Duration::from_secs(5));
    assert!(request.is_err(), "asks again: {request:?}");
    let said = browser.text("#again");
    assert!(said.contains("no longer updated"), "{said}");

    let shown = browser.text("#again code");
    let train_dir = cluster.train_dir().display().to_string();
    assert!(
        shown.ends_with(&format!("view --train-dir {train_dir}")),
        "{shown}"
    );
    // As a person would who copies it from there.
    let again = Program::start(command("sh").args(["-c", &format!("exec {shown}")]));
    let answer = http::get(&page_of(&again));
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[test]
fn a_launcher_that_shows_no_page_says_how_to_see_the_run() {
    let mut cluster = Cluster::builder().start();
    cluster.finish();
    let train_dir = cluster.train_dir().display().to_string();
    let max_steps = NUM_STEPS.to_string();
    let mut launcher = Program::start(
        command(LAUNCHER)
            .args(["--ps-program", SERVER, "--worker-program", WORKER])
            .args(["--eval-program", EVAL])
            .args(["--train-dir", &train_dir, "--max-steps", &max_steps])
            .args(["--http", "127.0.0.1:0", "--no-eval"]),
    );
    assert_eq!(launcher.wait(), Exit::Complete);
    launcher.assert_said("--http shows no page");
    launcher.assert_said(&format!("view --train-dir {train_dir}"));
}

#[test]
fn a_page_whose_server_was_killed_says_since_when_and_asks_less_and_less() {
    let mut cluster = Cluster::builder()
        .workers(1)
        .max_steps(WITHOUT_END)
        .server_flags(&["--http", "127.0.0.1:0"])
        .start();
    let url = page_of(&cluster.server.program);
    let Some(mut browser) = Browser::open(&url, SCREEN) else {
        return;
    };
    browser.wait_until(SHOWS_CURVE);
    cluster.server.program.kill();
    let requests = http::refuse_all(address_of(&url));
    let next = || {
        let (at, line) = requests
            .recv_timeout(DEADLINE)
            .expect("the page asks again");
        assert!(line.starts_with("GET /events "), "{line:?}");
        at
    };
    let moments: Vec<Instant> = (0..4).map(|_| next()).collect();
    let pauses: Vec<Duration> = moments.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses[2] > pauses[0] + Duration::from_secs(1), "{pauses:?}");
    assert_eq!(browser.text("#state"), "no connection");
    let said = browser.text("#activity");
    assert!(
        said.contains("since ") && said.contains("retrying"),
        "{said}"
    );
    assert_eq!(
        browser.evaluate("document.querySelector('#again').hidden"),
        true
    );
}

#[test]
fn a_picture_that_cannot_be_had_keeps_the_one_before_it() {
    let mut cluster = Cluster::builder()
        .server_flags(&["--summary-steps", "0"])
        .start();
    cluster.finish();
    draw_samples(cluster.train_dir());
    let (_program, url) = view(cluster.train_dir());
    let Some(mut browser) = Browser::open(&url, SCREEN) else {
        return;
    };
    browser.wait_until(&format!("{PICTURES} === 4"));
    let images = cluster.train_dir().join("images");
    fs::remove_file(images.join("0.png")).unwrap();
    fs::write(images.join("1.png"), "no picture").unwrap();
    let newer = checkpoint::path_of(cluster.train_dir(), GlobalStep(NUM_STEPS + 1));
    fs::write(newer, "no checkpoint").unwrap();
    let scores = cluster.train_dir().join("eval");
    fs::create_dir(&scores).unwrap();
    let score = "{\"global_step\":40,\"precision_at_1\":0.375}\n";
    fs::write(scores.join("scores.jsonl"), score).unwrap();
    // What comes with this was seen after the pictures were gone.
    browser.wait_until("document.querySelector('#tiles').innerText.includes('0.3750')");
    assert_eq!(browser.evaluate(PICTURES), 4);
    let step = browser.text("#filters-step");
    assert_eq!(step, format!("checkpoint of step {NUM_STEPS}"));
}

#[test]
fn a_page_finds_the_server_again_when_it_is_back() {
    let mut cluster = Cluster::builder()
        .workers(1)
        .max_steps(WITHOUT_END)
        .server_flags(&["--http", "127.0.0.1:0"])
        .start();
    let url = page_of(&cluster.server.program);
    let Some(mut browser) = Browser::open(&url, SCREEN) else {
        return;
    };
    browser.wait_until(SHOWS_CURVE);
    cluster.server.program.kill();
    browser.wait_until("document.querySelector('#state').innerText === 'no connection'");
    cluster.set_server_flags(&["--http", address_of(&url)]);
    cluster.start_server_again();
    browser.wait_until("document.querySelector('#state').innerText === 'training'");
    let events = browser.text("#events");
    assert_eq!(events.matches("a server started").count(), 2, "{events}");
}

/// A ledger of as many workers and towers, whose names would be markup if they were taken for it.
fn write_crowded_ledger(train_dir: &Path, num_workers: u32) {
    let name = |worker| format!("<img src=x onerror=\"window.taken = true\">/{worker}");
    write_ledger(train_dir, name, num_workers, 1_700_000_000_000_000);
}

/// A ledger of as many workers and towers, with these names, that begins at this moment.
fn write_ledger(
    train_dir: &Path,
    name_of: impl Fn(u32) -> String,
    num_workers: u32,
    began_micros: u64,
) {
    let args = RunArgs {
        towers: Some(num_workers),
        ..RunArgs::default()
    };
    // At the end of all times the steps are so many that to JavaScript a number and the next are the same.
    let (first, stride) = match began_micros > u64::MAX / 2 {
        true => (u64::MAX / 2, 64),
        false => (0, 1),
    };
    let run = new_run(&args, StateDigest(1)).unwrap();
    let start = Start {
        format_version: pserver_ledger::record::FORMAT_VERSION,
        version: "0.1.0".to_owned(),
        run,
        global_step: GlobalStep(first),
        digest: StateDigest(1),
    };
    let mut records = vec![Record::Start(start)];
    records.extend((0..num_workers).map(|worker| Record::Joined {
        worker,
        name: name_of(worker),
        numerics: "cpu".to_owned(),
    }));
    let steps = (0..100).map(|step| first + stride * step);
    records.extend(steps.map(|step| Record::Commit(crowded_commit(step, num_workers))));
    let (mut ledger, _) = LedgerFile::open(&train_dir.join(LEDGER_FILE)).unwrap();
    for (index, record) in (0..).zip(records) {
        let at_micros = began_micros.saturating_add(index * 120_000);
        ledger.append(&Line { at_micros, record }).unwrap();
    }
}

/// A step in which the last worker takes three times as long as the others.
fn crowded_commit(step: u64, num_workers: u32) -> Commit {
    let tower = |tower: u32| {
        let held_micros = match tower + 1 == num_workers {
            true => 105_000,
            false => 35_000 + u64::from(tower) * 50,
        };
        TowerRecord {
            of: TowerStep {
                global_step: GlobalStep(step),
                tower: Tower(tower),
            },
            worker: tower,
            examples: ExamplesDigest([0; 16]),
            loss: 4.0,
            norm: 1.0,
            held_micros,
            compute_micros: held_micros - 4_000,
            waited_micros: 105_000 - held_micros,
            staleness: 0,
        }
    };
    Commit {
        global_step: GlobalStep(step),
        learning_rate: 0.1,
        loss: 4.6 / (1.0 + (step % (1 << 20)) as f32 / 40.0),
        towers: (0..num_workers).map(tower).collect(),
        gather_micros: 110_000,
        phases: Phases {
            apply_micros: 4_000,
            digest_micros: 1_000,
            write_micros: 1_000,
            ledger_micros: 500,
        },
        digest: StateDigest(u128::from(step) + 2),
    }
}

#[test]
fn sixty_four_workers_have_a_lane_each_and_their_names_are_only_text() {
    let train_dir = tempfile::tempdir().unwrap();
    write_crowded_ledger(train_dir.path(), 64);
    let (_program, url) = view(train_dir.path());
    let screen = Screen {
        height: 2000,
        ..SCREEN
    };
    let Some(mut browser) = Browser::open(&url, screen) else {
        return;
    };
    browser.wait_until("document.querySelectorAll('.lane:not(.axis)').length === 64");
    browser.wait_until("document.querySelectorAll('.lane.slow').length === 1");
    assert!(browser.text(".lane.slow").contains("worker 63"));
    assert!(browser.text("#lanes").contains("<img src=x onerror="));
    assert_eq!(
        browser.evaluate("document.querySelectorAll('#lanes img, #events img').length"),
        0
    );
    assert_eq!(browser.evaluate("window.taken === undefined"), true);
    picture(&mut browser, "crowded.png");
}

#[test]
fn what_is_sent_lets_nothing_from_elsewhere_in() {
    let train_dir = tempfile::tempdir().unwrap();
    write_crowded_ledger(train_dir.path(), 2);
    let (_program, url) = view(train_dir.path());
    for path in ["", "page.js", "run.json", "no-such-file"] {
        let answer = http::get(&format!("{url}{path}"));
        let head = answer.split("\r\n\r\n").next().unwrap();
        assert!(
            head.contains("content-security-policy: default-src 'none'; script-src 'self';"),
            "{path}: {head}"
        );
        assert!(
            head.contains("x-content-type-options: nosniff"),
            "{path}: {head}"
        );
    }
    assert!(http::get(&format!("{url}healthz")).ends_with("\r\n\r\nok\n"));
    for name in ["..%2f..%2fledger", "3.png", "0.png", "filters.png"] {
        let answer = http::get(&format!("{url}images/{name}"));
        assert!(answer.starts_with("HTTP/1.1 404 "), "{name}: {answer}");
    }
}

#[test]
fn a_page_of_a_damaged_ledger_works_and_counts_the_damage() {
    let train_dir = tempfile::tempdir().unwrap();
    write_crowded_ledger(train_dir.path(), 2);
    let path = train_dir.path().join(LEDGER_FILE);
    let mut ledger = fs::read(&path).unwrap();
    let second = ledger.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    ledger[second..second + 8].fill(0);
    fs::write(&path, ledger).unwrap();
    let (_program, url) = view(train_dir.path());
    let metrics = eventually("metrics of a damaged ledger", || {
        let answer = http::get(&format!("{url}metrics"));
        answer.starts_with("HTTP/1.1 200 ").then_some(answer)
    });
    assert!(metrics.contains("cifar_damaged_ledger_lines_total 1\n"));
    assert!(http::get(&format!("{url}healthz")).ends_with("\r\n\r\nok\n"));
    let run = http::get(&format!("{url}run.json"));
    let damage =
        format!("\"damage\":{{\"num_lines\":1,\"first\":[{{\"line\":2,\"offset\":{second},");
    assert!(run.contains(&damage), "{run}");
}

/// Every kind of thing that a page answers with.
const PATHS: [&str; 6] = [
    "",
    "page.js",
    "run.json",
    "metrics",
    "healthz",
    "no-such-file",
];

/// A web site can give its own name the address of somebody's machine, and read what that machine shows the
/// browsers of its visitors.
#[test]
fn a_page_on_loopback_answers_to_names_of_loopback_only() {
    let train_dir = tempfile::tempdir().unwrap();
    write_crowded_ledger(train_dir.path(), 2);
    let (_program, url) = view(train_dir.path());
    let status = |path: &str, host: &str| {
        let answer = http::get_as(&format!("{url}{path}"), host);
        answer.split(' ').nth(1).unwrap_or_default().to_owned()
    };
    for path in PATHS {
        let expected = status(path, "127.0.0.1");
        assert!(
            ["200", "404"].contains(&expected.as_str()),
            "{path}: {expected}"
        );
        for host in ["localhost", "LOCALHOST:1", "127.1.2.3:80", "[::1]:8080"] {
            assert_eq!(status(path, host), expected, "{path} as {host}");
        }
        for host in [
            "rebound.example",
            "rebound.example:80",
            "localhost.rebound.example",
            "127.0.0.1.rebound.example",
            "10.0.0.1",
            "cifar-server",
            "a@localhost",
            "",
        ] {
            assert_eq!(status(path, host), "421", "{path} as {host}");
        }
    }
    let refused = http::get_as(&url, "rebound.example");
    assert!(
        refused.contains("does not accept the host name \"rebound.example\""),
        "{refused}"
    );
    assert_eq!(status("events", "rebound.example"), "421");
}

#[test]
fn an_open_page_on_other_addresses_answers_to_names_that_no_web_site_has() {
    let train_dir = tempfile::tempdir().unwrap();
    write_crowded_ledger(train_dir.path(), 2);
    let view = |flags: &[&str]| {
        let mut command = command(SERVER);
        command.args(["view", "--http", "0.0.0.0:0"]).args(flags);
        let program = Program::start(command.arg("--train-dir").arg(train_dir.path()));
        let url = page_of(&program).replace("0.0.0.0", "127.0.0.1");
        (program, url)
    };
    let (_open, url) = view(&["--insecure"]);
    for path in PATHS {
        let expected = http::get(&format!("{url}{path}"));
        let expected = expected.lines().next().unwrap().to_owned();
        let status = |host: &str| {
            let answer = http::get_as(&format!("{url}{path}"), host);
            answer.lines().next().unwrap().to_owned()
        };
        for host in [
            // As a probe, a tunnel and Prometheus on a cluster ask.
            "10.1.2.3:8080",
            "[fd00::7]:8080",
            "localhost:8080",
            "cifar-server:8080",
            "cifar-server.cifar.svc:8080",
            "cifar-server.cifar.svc.cluster.local:8080",
            &pserver_cli::host::host_name(),
        ] {
            assert_eq!(status(host), expected, "{path} as {host}");
        }
        for host in [
            "rebound.example:8080",
            "svc.rebound.example",
            "10.1.2.3.rebound.example",
        ] {
            assert!(
                status(host).starts_with("HTTP/1.1 421 "),
                "{path} as {host}"
            );
        }
    }
    // A browser does not show another site's page what opens this one.
    let token_file = train_dir.path().join("token");
    fs::write(&token_file, "viewer-token-0123456789").unwrap();
    fs::set_permissions(&token_file, Permissions::from_mode(0o600)).unwrap();
    let token_file = token_file.display().to_string();
    let (_with_token, url) = view(&["--insecure", "--token-file", &token_file]);
    let answer = http::get_as(&format!("{url}run.json"), "trainer.example");
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
}

#[test]
fn what_is_not_there_is_said_in_words_and_a_head_has_no_body() {
    let train_dir = tempfile::tempdir().unwrap();
    write_crowded_ledger(train_dir.path(), 2);
    let (_program, url) = view(train_dir.path());
    let answer = http::get(&format!("{url}no-such-file"));
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    assert!(
        answer.contains("there is nothing at /no-such-file"),
        "{answer}"
    );
    for path in ["", "run.json", "metrics"] {
        let answer = http::head(&format!("{url}{path}"));
        assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
        assert!(answer.ends_with("\r\n\r\n"), "{path}: {answer}");
    }
}

#[test]
fn a_folder_without_a_run_or_a_taken_port_is_named() {
    let nothing = tempfile::tempdir().unwrap();
    let viewed = |flags: &[&str]| {
        let mut command = command(SERVER);
        command.arg("view").args(flags).arg("--train-dir");
        let mut program = Program::start(command.arg(nothing.path()));
        (program.wait(), program)
    };
    let (exit, program) = viewed(&[]);
    assert_eq!(exit, Exit::Permanent);
    program.assert_said("holds no ledger; name the train dir of a run");
    File::create(nothing.path().join(LEDGER_FILE)).unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (exit, program) = viewed(&["--http", &taken.local_addr().unwrap().to_string()]);
    assert_eq!(exit, Exit::TryAgain);
    program.assert_said("cannot listen on 127.0.0.1:");
}
