//! A real browser: Debian's Chromium without a screen, driven over WebDriver by its chromedriver.
//!
//! The problem: the known client, thirtyfour, turns on `serde_json/preserve_order` for all that is built beside it, so the program
//! under test would write its JSON in another order than the one that is shipped; and it brings in its own asynchronous world,
//! while tests here are plain functions. The idea: WebDriver is JSON over HTTP, of which a dozen requests are needed. Rules kept: nothing is waited for by sleeping; whatever was started ends with the test; a machine
//! without a browser skips, and says so.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{skipped, until};

/// Programs of Debian's packages `chromium` and `chromium-driver`.
const DRIVER: &str = "chromedriver";
const BROWSER: &str = "chromium";
/// Without a sandbox: CI runs as root, and only our own page is opened.
const ARGUMENTS: [&str; 5] =
    ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"];

/// Far above what a browser takes for anything here.
const ANSWER: Duration = Duration::from_secs(60);
/// How WebDriver names an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
const KEY_DOWN: &str = "keyDown";
const KEY_UP: &str = "keyUp";

/// A browser with windows of its own.
pub(crate) struct Browser {
    url: String,
    session: String,
    process: Child,
}

impl Browser {
    /// Starts one; none, where this machine has none.
    #[track_caller]
    pub(crate) fn start() -> Option<Self> {
        let there =
            |program| Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success());
        if !there(DRIVER) || !there(BROWSER) {
            skipped("the live page: no chromium and chromium-driver on this machine");
            return None;
        }
        let port = tradenet_runtime::ports::hold_free(1).unwrap()[0].local_addr().unwrap().port();
        let mut command = Command::new(DRIVER);
        command.arg(format!("--port={port}")).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().unwrap();
        until("chromedriver", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        let mut browser = Self { url: format!("http://127.0.0.1:{port}"), session: String::new(), process };
        let wanted = json!({
            "browserName": "chrome",
            "goog:chromeOptions": {"args": ARGUMENTS},
            "goog:loggingPrefs": {"browser": "ALL"},
        });
        let session = browser.call("POST", "/session", &json!({"capabilities": {"alwaysMatch": wanted}}));
        browser.session = format!("/session/{}", session["sessionId"].as_str().unwrap());
        Some(browser)
    }

    /// One request of WebDriver.
    #[track_caller]
    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let path = format!("{}{path}", self.session);
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let (status, answer) = ask(&self.url, method, &path, &text).unwrap();
        assert_eq!(status, 200, "{method} {path} {body}: {answer}");
        answer["value"].clone()
    }

    #[track_caller]
    fn post(&self, path: &str, body: &Value) -> Value {
        self.call("POST", path, body)
    }

    /// Opens a page in this window, and waits until it is live.
    #[track_caller]
    pub(crate) fn open(&self, url: &str) {
        self.post("/url", &json!({"url": url}));
        self.until_text("#state", "Live");
        self.until_js("stocks are shown", "return document.querySelectorAll('#stocks tr').length > 0");
    }

    /// Goes from whatever page is open to an empty one.
    #[track_caller]
    pub(crate) fn leave(&self) {
        self.post("/url", &json!({"url": "about:blank"}));
    }

    /// The browser's own processes: all that the driver has started, and they.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let parent = |pid: &u32| -> Option<u32> {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
        };
        let names = std::fs::read_dir("/proc").unwrap().flatten();
        let all: Vec<u32> = names.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        let parents: Vec<_> = all.iter().map(|pid| (*pid, parent(pid))).collect();
        let mut found = vec![self.process.id()];
        let mut at = 0;
        while let Some(&known) = found.get(at) {
            found.extend(parents.iter().filter(|(_, parent)| *parent == Some(known)).map(|(pid, _)| *pid));
            at += 1;
        }
        found.split_off(1)
    }

    /// Opens another window, and goes on in it.
    #[track_caller]
    pub(crate) fn new_window(&self) {
        let window = self.post("/window/new", &json!({"type": "window"}));
        self.post("/window", &json!({"handle": window["handle"]}));
    }

    /// Goes on in the window that was opened as the `number`th, from 0.
    #[track_caller]
    pub(crate) fn switch_to(&self, number: usize) {
        let windows = self.call("GET", "/window/handles", &Value::Null);
        self.post("/window", &json!({"handle": windows[number]}));
    }

    /// What a script returns.
    #[track_caller]
    pub(crate) fn js(&self, script: &str) -> Value {
        self.post("/execute/sync", &json!({"script": script, "args": []}))
    }

    /// Waits until a script returns true.
    #[track_caller]
    pub(crate) fn until_js(&self, what: &str, script: &str) {
        until(what, || self.js(script) == true);
    }

    #[track_caller]
    fn on(&self, css: &str, action: &str, body: &Value) {
        let element = self.post("/element", &json!({"using": "css selector", "value": css}));
        self.post(&format!("/element/{}/{action}", element[ELEMENT].as_str().unwrap()), body);
    }

    /// Waits until an element's text has `wanted` in it.
    #[track_caller]
    pub(crate) fn until_text(&self, css: &str, wanted: &str) {
        let wanted = json!(wanted);
        let script = format!("return document.querySelector({}).innerText.includes({wanted})", json!(css));
        until(&format!("{css} says {wanted}"), || self.js(&script) == true);
    }

    /// Clicks as a mouse does: it must be there to be seen.
    #[track_caller]
    pub(crate) fn click(&self, css: &str) {
        // Not below the head, which stays where it is.
        self.js(&format!("document.querySelector({}).scrollIntoView({{block: 'center'}})", json!(css)));
        self.on(css, "click", &json!({}));
    }

    /// Types into a field in the place of what it has.
    #[track_caller]
    pub(crate) fn fill(&self, css: &str, text: &str) {
        self.on(css, "clear", &json!({}));
        self.on(css, "value", &json!({"text": text}));
    }

    /// Presses keys, wherever the focus is.
    #[track_caller]
    pub(crate) fn press(&self, keys: &str) {
        let strokes = keys.chars().flat_map(|key| [KEY_DOWN, KEY_UP].map(|way| json!({"type": way, "value": key})));
        let strokes: Vec<_> = strokes.collect();
        self.post("/actions", &json!({"actions": [{"type": "key", "id": "keyboard", "actions": strokes}]}));
    }

    /// One of the browser's own commands.
    #[track_caller]
    pub(crate) fn devtools(&self, command: &str, parameters: &Value) -> Value {
        self.post("/goog/cdp/execute", &json!({"cmd": command, "params": parameters}))
    }

    /// How wide and high a window is, and whether the system is dark.
    #[track_caller]
    pub(crate) fn look_like(&self, width: u32, height: u32, scheme: &str) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.devtools("Emulation.setDeviceMetricsOverride", &size);
        let scheme = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.devtools("Emulation.setEmulatedMedia", &scheme);
    }

    /// A picture of the window, or of all that could be scrolled to, as base64 of a PNG file.
    #[track_caller]
    pub(crate) fn picture(&self, whole: bool) -> String {
        let shot = self.devtools("Page.captureScreenshot", &json!({"format": "png", "captureBeyondViewport": whole}));
        shot["data"].as_str().unwrap().to_owned()
    }

    /// What the browser has complained of since it was last asked.
    #[track_caller]
    pub(crate) fn complaints(&self) -> Vec<String> {
        let entries = self.post("/se/log", &json!({"type": "browser"}));
        let bad = entries
            .as_array()
            .unwrap()
            .iter()
            .filter(|entry| entry["level"] == "SEVERE" || entry["level"] == "WARNING");
        bad.map(|entry| entry["message"].as_str().unwrap().to_owned()).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends the browser's own processes; chromedriver's end alone would leave them.
        let _ = ask(&self.url, "DELETE", &self.session, "");
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// One request on a connection of its own. chromedriver speaks HTTP/1.1 alone, and leaves the connection open.
fn ask(url: &str, method: &str, path: &str, body: &str) -> io::Result<(u16, Value)> {
    let mut stream = TcpStream::connect(url.trim_start_matches("http://"))?;
    stream.set_read_timeout(Some(ANSWER))?;
    let length = body.len();
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\n\r\n{body}")?;
    let mut answer = BufReader::new(stream);
    let (mut status, mut length, mut line) = (0, 0, String::new());
    while answer.read_line(&mut line)? > 2 {
        let lower = line.trim().to_ascii_lowercase();
        if let Some(rest) = lower.strip_prefix("http/1.1 ") {
            status = rest[..3].parse().map_err(io::Error::other)?;
        } else if let Some(rest) = lower.strip_prefix("content-length:") {
            length = rest.trim().parse().map_err(io::Error::other)?;
        }
        line.clear();
    }
    let mut bytes = vec![0; length];
    answer.read_exact(&mut bytes)?;
    Ok((status, serde_json::from_slice(&bytes)?))
}
