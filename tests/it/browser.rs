//! A real browser without a window, asked over its debugging protocol what a page has become.
//!
//! Where there is no Chromium its tests say that they are skipped; with `CIFAR_REQUIRE_BROWSER=1` they
//! fail instead.

use std::net::TcpStream;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use cifar_bench::browser;
use serde_json::{Value, json};
use tempfile::TempDir;
use tungstenite::stream::MaybeTlsStream;
use tungstenite::{Message, WebSocket};

use crate::program::{DEADLINE, Program, eventually, skip};

/// What a person's screen is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Screen {
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// `light` or `dark`.
    pub(crate) colours: &'static str,
}

/// A page that is open in a browser.
pub(crate) struct Browser {
    socket: WebSocket<MaybeTlsStream<TcpStream>>,
    session: String,
    last_id: u64,
    _program: Program,
    _profile: TempDir,
}

impl Browser {
    /// Opens a page; `None` where there is no browser.
    pub(crate) fn open(url: &str, screen: Screen) -> Option<Self> {
        let Some(path) = browser::find() else {
            skip(
                "BROWSER",
                "there is no Chromium (on Debian: apt-get install chromium)",
            );
            return None;
        };
        let profile = tempfile::tempdir().expect("there is room for a temporary folder");
        let program = Program::start(&mut browser::headless(&path, profile.path(), "about:blank"));
        let address = program.wait_for("the address of the browser", |program| {
            let stderr = program.stderr();
            let (_, rest) = stderr.split_once("DevTools listening on ")?;
            Some(rest.lines().next()?.to_owned())
        });
        let (socket, _) = tungstenite::connect(address).expect("the browser answers");
        if let MaybeTlsStream::Plain(stream) = socket.get_ref() {
            stream
                .set_read_timeout(Some(DEADLINE))
                .expect("a socket has a deadline");
        }
        let mut browser = Browser {
            socket,
            session: String::new(),
            last_id: 0,
            _program: program,
            _profile: profile,
        };
        browser.begin(screen);
        browser.ask("Page.navigate", json!({ "url": url }));
        Some(browser)
    }

    fn begin(&mut self, screen: Screen) {
        let target = self.ask("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = self.ask("Target.attachToTarget", attach);
        self.session = attached["sessionId"]
            .as_str()
            .expect("a session")
            .to_owned();
        self.look_like(screen);
    }

    /// Gives the page another screen.
    pub(crate) fn look_like(&mut self, screen: Screen) {
        let Screen {
            width,
            height,
            colours,
        } = screen;
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500 }),
        );
        let feature = json!({ "name": "prefers-color-scheme", "value": colours });
        self.ask(
            "Emulation.setEmulatedMedia",
            json!({ "features": [feature] }),
        );
    }

    /// What an expression of JavaScript is on the page.
    #[track_caller]
    pub(crate) fn evaluate(&mut self, expression: &str) -> Value {
        let asked = json!({ "expression": expression, "returnByValue": true });
        let answer = self.ask("Runtime.evaluate", asked);
        let exception = &answer["exceptionDetails"];
        assert!(exception.is_null(), "{expression}: {exception}");
        answer["result"]["value"].clone()
    }

    /// Waits until an expression is true on the page, of which a part may not be there yet.
    #[track_caller]
    pub(crate) fn wait_until(&mut self, expression: &str) {
        let attempt =
            format!("(() => {{ try {{ return {expression} }} catch {{ return false }} }})()");
        eventually(expression, || {
            (self.evaluate(&attempt) == Value::Bool(true)).then_some(())
        });
    }

    /// The text of the one element that a selector names.
    #[track_caller]
    pub(crate) fn text(&mut self, selector: &str) -> String {
        let text = self.evaluate(&format!("document.querySelector({selector:?}).innerText"));
        text.as_str().expect("an element has a text").to_owned()
    }

    /// A picture of what is seen, as PNG.
    pub(crate) fn screenshot(&mut self) -> Vec<u8> {
        let asked = json!({ "format": "png" });
        let answer = self.ask("Page.captureScreenshot", asked);
        let data = answer["data"].as_str().expect("a picture");
        BASE64_STANDARD.decode(data).expect("base64")
    }

    #[track_caller]
    fn ask(&mut self, method: &str, params: Value) -> Value {
        self.last_id += 1;
        let mut request = json!({ "id": self.last_id, "method": method, "params": params });
        if !self.session.is_empty() {
            request["sessionId"] = json!(self.session);
        }
        let request = Message::text(request.to_string());
        self.socket.send(request).expect("the browser listens");
        loop {
            let message = self.socket.read().expect("the browser answers in time");
            let Message::Text(text) = message else {
                continue;
            };
            let mut answer: Value = serde_json::from_str(&text).expect("the browser speaks JSON");
            if answer["id"] == self.last_id {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].take();
            }
        }
    }
}
