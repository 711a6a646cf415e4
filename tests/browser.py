"""A headless Chromium that tests talk to through two pipes; nothing else is needed for it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess

_NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, _NAMES)), "")
_QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-extensions"),
    *("--disable-default-apps", "--window-size=1280,900", "--remote-debugging-pipe"),
)


class Page:
    """A page of the browser.

    Attributes:
      requests: Addresses of all that it asked for, the page itself first.
      errors: What the console was told of errors, and errors that nobody caught.
    """

    def __init__(self, to_browser, from_browser):
        self.requests, self.errors = [], []
        self._to, self._from, self._number, self._session = to_browser, from_browser, 0, None
        targets = self.ask("Target.getTargets")["targetInfos"]
        target = next(target["targetId"] for target in targets if target["type"] == "page")
        found = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = found["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.ask(f"{domain}.enable")

    def open(self, address):
        """Opens an address and waits until it is there."""
        self._loaded = False
        self.ask("Page.navigate", url=address)
        while not self._loaded:
            self._read()

    def run(self, script):
        """Returns the value of an expression of JavaScript; of a promise, what it promises."""
        asked = {"expression": script, "returnByValue": True, "awaitPromise": True}
        found = self.ask("Runtime.evaluate", **asked)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def ask(self, method, **parameters):
        """Sends a command and returns its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        message |= {"sessionId": self._session} if self._session else {}
        self._to.write(json.dumps(message).encode() + b"\0")
        self._to.flush()
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def _read(self):
        text = b""
        while not text.endswith(b"\0"):
            byte = self._from.read(1)
            assert byte, "the browser has gone"
            text += byte
        message = json.loads(text[:-1])
        event, told = message.get("method"), message.get("params", {})
        if event == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        elif event == "Page.loadEventFired":
            self._loaded = True
        elif event == "Runtime.exceptionThrown":
            self.errors.append(str(told["exceptionDetails"]))
        elif event == "Log.entryAdded" and told["entry"]["level"] == "error":
            self.errors.append(told["entry"]["text"])
        return message


@contextlib.contextmanager
def browser(profile):
    """Starts a browser with a new profile in a directory; ends it with the block."""
    (given, to_browser), (from_browser, taken) = os.pipe(), os.pipe()
    # it reads commands from descriptor 3, and writes answers to 4
    command = f'exec "$0" "$@" 3<&{given} 4>&{taken}'
    process = subprocess.Popen(
        ["bash", "-c", command, CHROMIUM, *_QUIET, f"--user-data-dir={profile}", "about:blank"],
        pass_fds=(given, taken), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(given)
    os.close(taken)
    try:
        with open(to_browser, "wb") as out, open(from_browser, "rb") as back:
            yield Page(out, back)
    finally:
        process.terminate()
        process.wait(20)
