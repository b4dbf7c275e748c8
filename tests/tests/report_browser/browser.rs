//! A headless Chromium, spoken to over its debugging pipe (Chrome DevTools Protocol: JSON messages, each ended by a zero
//! byte, on descriptors 3 and 4).

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long one answer may take, on a busy host.
const PATIENCE: Duration = Duration::from_secs(90);

/// What can go wrong here ends a test with its text.
pub(crate) type Fallible<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// The browser's executable: `$HOTCELL_CHROMIUM`, or one of the usual names in `$PATH`.
pub(crate) fn executable() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("HOTCELL_CHROMIUM") {
        return Some(named.into());
    }
    let path = std::env::var_os("PATH")?;
    let names = [
        "chromium",
        "chromium-browser",
        "google-chrome",
        "google-chrome-stable",
    ];
    std::env::split_paths(&path)
        .flat_map(|folder| names.map(|name| folder.join(name)))
        .find(|file| file.is_file())
}

/// One page in a browser of its own.
pub(crate) struct Page {
    child: Child,
    input: ChildStdin,
    messages: Receiver<Value>,
    next: u64,
    session: String,
    /// Addresses that the page asked for.
    pub(crate) requests: Vec<String>,
    /// Errors of scripts and of the content security policy.
    pub(crate) errors: Vec<String>,
    loaded: bool,
    _profile: tempfile::TempDir,
}

impl Page {
    /// Starts a browser with an empty page.
    pub(crate) fn start(executable: &Path) -> Fallible<Self> {
        let profile = tempfile::tempdir()?;
        // The shell only moves the pipes to the descriptors that the browser wants them on.
        let mut child = Command::new("sh")
            .args(["-c", "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1"])
            .arg(executable)
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
            ])
            .args([
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ])
            .args([
                "--disable-dev-shm-usage",
                "--remote-debugging-pipe",
                "--window-size=1280,900",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take().ok_or("no pipe to the browser")?;
        let output = child.stdout.take().ok_or("no pipe from the browser")?;
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            for message in BufReader::new(output).split(0).map_while(Result::ok) {
                let Ok(value) = serde_json::from_slice(&message) else {
                    continue;
                };
                if sender.send(value).is_err() {
                    break;
                }
            }
        });
        let mut page = Self {
            child,
            input,
            messages,
            next: 0,
            session: String::new(),
            requests: Vec::new(),
            errors: Vec::new(),
            loaded: false,
            _profile: profile,
        };
        let target = page.call("Target.createTarget", json!({"url": "about:blank"}))?;
        let attached = page.call(
            "Target.attachToTarget",
            json!({"targetId": target["targetId"], "flatten": true}),
        )?;
        page.session = attached["sessionId"].as_str().ok_or("no session")?.to_owned();
        for domain in ["Page", "Network", "Runtime", "Log"] {
            page.call(&format!("{domain}.enable"), json!({}))?;
        }
        Ok(page)
    }

    /// Sends a command and waits for its answer.
    pub(crate) fn call(&mut self, method: &str, params: Value) -> Fallible<Value> {
        self.next += 1;
        let id = self.next;
        let mut message = json!({"id": id, "method": method, "params": params});
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        let mut bytes = serde_json::to_vec(&message)?;
        bytes.push(0);
        self.input.write_all(&bytes)?;
        let end = Instant::now() + PATIENCE;
        loop {
            let answer = self.receive(end, method)?;
            if answer["id"] == json!(id) {
                return match answer.get("error") {
                    Some(error) => Err(format!("{method}: {error}").into()),
                    None => Ok(answer["result"].clone()),
                };
            }
        }
    }

    fn receive(&mut self, end: Instant, what: &str) -> Fallible<Value> {
        let left = end.saturating_duration_since(Instant::now());
        let message = self
            .messages
            .recv_timeout(left)
            .map_err(|error| format!("no answer to {what}: {error}"))?;
        match message["method"].as_str() {
            Some("Network.requestWillBeSent") => {
                let url = message["params"]["request"]["url"].as_str().unwrap_or_default();
                self.requests.push(url.to_owned());
            }
            Some("Runtime.exceptionThrown") => self.errors.push(message["params"].to_string()),
            Some("Log.entryAdded") if message["params"]["entry"]["level"] == "error" => {
                self.errors.push(message["params"]["entry"].to_string());
            }
            Some("Page.loadEventFired") => self.loaded = true,
            _ => {}
        }
        Ok(message)
    }

    /// Opens a file and waits until it is loaded.
    pub(crate) fn open(&mut self, file: &Path) -> Fallible<()> {
        self.loaded = false;
        self.requests.clear();
        self.errors.clear();
        self.call(
            "Page.navigate",
            json!({"url": format!("file://{}", file.display())}),
        )?;
        let end = Instant::now() + PATIENCE;
        while !self.loaded {
            self.receive(end, "the page's load event")?;
        }
        Ok(())
    }

    /// The value of a JavaScript expression (a promise's, when it is one).
    pub(crate) fn eval(&mut self, expression: &str) -> Fallible<Value> {
        let answer = self.call(
            "Runtime.evaluate",
            json!({"expression": expression, "returnByValue": true, "awaitPromise": true}),
        )?;
        match answer.get("exceptionDetails") {
            Some(details) => Err(format!("`{expression}`: {details}").into()),
            None => Ok(answer["result"]["value"].clone()),
        }
    }

    /// Puts text into a field as a person would leave it there, and waits for the next drawn frames.
    pub(crate) fn fill(&mut self, selector: &str, text: &str) -> Fallible<()> {
        let (selector, text) = (json!(selector), json!(text));
        self.eval(&format!(
            "(field => {{ field.value = {text}; field.dispatchEvent(new Event('input', {{bubbles: true}})); }})(document.querySelector({selector}))"
        ))?;
        self.settle()
    }

    /// Clicks an element and waits for the next drawn frames.
    pub(crate) fn click(&mut self, selector: &str) -> Fallible<()> {
        let selector = json!(selector);
        self.eval(&format!("document.querySelector({selector}).click()"))?;
        self.settle()
    }

    /// Presses a key.
    pub(crate) fn press(&mut self, key: &str, code: u32) -> Fallible<()> {
        for kind in ["keyDown", "keyUp"] {
            self.call(
                "Input.dispatchKeyEvent",
                json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code}),
            )?;
        }
        self.settle()
    }

    /// Waits until two frames were drawn.
    pub(crate) fn settle(&mut self) -> Fallible<()> {
        self.eval("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")?;
        Ok(())
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // Closing the pipe would do; killing is quicker. The child may be gone already.
        let _ = self.call("Browser.close", json!({}));
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
