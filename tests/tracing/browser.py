"""A headless Chromium, driven over the WebDriver protocol (W3C) by what Python brings."""

import json
import re
import shutil
import subprocess
from urllib.error import HTTPError
from urllib.request import Request, urlopen

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
CHROMEDRIVER = shutil.which("chromedriver")
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the protocol's name for a reference to one
KEYS = {"ArrowLeft": "\ue012", "ArrowUp": "\ue013", "ArrowRight": "\ue014", "ArrowDown": "\ue015"}
KEYS |= {"End": "\ue010", "Home": "\ue011"}
OPTIONS = (
    "--headless",
    "--no-sandbox",  # tests may run as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1200,900",
)


class Browser:
    """One window; its profile lies in a folder of its own."""

    def __init__(self, folder):
        self._driver = subprocess.Popen([CHROMEDRIVER, "--port=0"], stdout=subprocess.PIPE, text=True)
        for line in self._driver.stdout:
            if found := re.search(r"started successfully on port (\d+)", line):
                break
        else:
            raise RuntimeError("chromedriver ended before it began")
        self._session = f"http://127.0.0.1:{found[1]}/session"
        options = {"binary": CHROMIUM, "args": [*OPTIONS, f"--user-data-dir={folder}"]}
        asked = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        made = self._post("", {"capabilities": {"alwaysMatch": asked}})
        self._session += "/" + made["sessionId"]

    def close(self):
        try:
            self._ask("", method="DELETE")
        finally:
            self._driver.terminate()
            self._driver.wait()
            self._driver.stdout.close()

    def open(self, path):
        self._post("/url", {"url": path.as_uri()})

    def run(self, script, *arguments):
        """What a function body returns in the page."""
        return self._post("/execute/sync", {"script": script, "args": list(arguments)})

    def click(self, selector):
        """As a person would: in the middle of it, once it is in sight."""
        found = self._post("/element", {"using": "css selector", "value": selector})
        self._post(f"/element/{found[ELEMENT]}/click", {})

    def press(self, key):
        strokes = [{"type": kind, "value": KEYS[key]} for kind in ("keyDown", "keyUp")]
        self._post("/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": strokes}]})

    def messages(self):
        """What the console was told: errors of scripts, and what the page's own policy refused."""
        return [entry["message"] for entry in self._post("/se/log", {"type": "browser"})]

    def dialog(self):
        """The text of an open alert; None where there is none."""
        try:
            return self._ask("/alert/text")
        except HTTPError as error:
            if error.code == 404:  # no such alert
                return None
            raise

    def _post(self, path, content):
        return self._ask(path, json.dumps(content).encode())

    def _ask(self, path, content=None, method=None):
        asked = Request(self._session + path, content, {"Content-Type": "application/json"}, method=method)
        with urlopen(asked, timeout=60) as reply:
            return json.load(reply)["value"]
